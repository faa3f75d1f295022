"""One training in several processes, or over shared weights, is that of one process at the same batch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from safevid_core.alignment import fused_layers
from safevid_core.alignment.dpo import _launcher
from safevid_core.alignment.job import Job
from safevid_core.settings import Settings
from tests.alignment.exactness import EXACT, SOME, Figures, Subjects, figures, forest_batch, language_model


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["none", "video"])
def test_two_processes_have_the_loss_curve_of_one(
    packing: str, settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    release.write_parquet(tmp_path / "pairs.parquet")
    curves = []
    for processes in (1, 2):
        update: dict[str, Any] = {
            "packing": packing,
            "processes": processes,
            "micro_batch_size": 1,
            "learning_rate": 5e-3,
            "epochs": 2,
        }
        alignment = settings.alignment.model_copy(update=update)
        job = Job(
            tmp_path / f"{processes}",
            tmp_path / "pairs.parquet",
            0,
            alignment,
            features=tmp_path / "features",
            reference=tmp_path / f"reference-{processes}.parquet",
        )
        job.folder.mkdir()
        job.write()
        command = [*_launcher(alignment), "safevid_core.alignment.train", str(job.file)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (job.folder / "output.txt").read_text()[-2000:]
        reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job"')]
        assert reports == [{"job": str(job.file), "code": 0}]
        curves.append(pl.read_ndjson(job.adapter / "training_log.jsonl"))
    one, two = curves
    assert one.height == two.height == 12
    for name in ("loss", "reward_margin", "logps_chosen", "logps_rejected"):
        assert two[name].to_list() == pytest.approx(one[name].to_list(), rel=1e-4, abs=1e-5), name
    assert one["loss"][-1] < one["loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["of a CPU", "of a GPU"])
def test_sharded_weights_have_the_figures_and_gradients_of_whole_ones(
    layers: str, checkpoints: dict[str, Path], release: pl.DataFrame, tmp_path: Path
) -> None:
    """FSDP's sharding, which accelerate itself does on GPUs alone, over two processes."""
    release.write_parquet(tmp_path / "pairs.parquet")
    arguments = (layers, checkpoints["llava_next_video"], tmp_path)
    torch.multiprocessing.spawn(compare_sharded_with_whole, arguments, nprocs=2)  # type: ignore[no-untyped-call]
    assert {each.read_text() for each in tmp_path.glob("*.txt")} == {"compared"}


def compare_sharded_with_whole(rank: int, layers: str, checkpoint: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    rows = pl.read_parquet(folder / "pairs.parquet")
    subject = Subjects({"llava_next_video": checkpoint}, rows, folder / f"run-{rank}")("llava_next_video")
    trainer, pairs = subject.trainer, subject.pairs(SOME)
    model = language_model(trainer.model)
    if layers == "of a GPU":
        for module in model.modules():
            if isinstance(module, LoraLinear):
                module.forward = types.MethodType(fused_layers._add_adapter, module)

    def found() -> Figures:
        return figures(trainer, forest_batch(trainer, subject.store, pairs, "video", "segments"))

    whole = found()
    meeting = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(trainer.model)
    assert all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
    sharded = found()
    sharded.gradients = {name: each.full_tensor() for name, each in sharded.gradients.items()}
    assert sharded.largest_difference(whole) < EXACT
    (folder / f"{rank}.txt").write_text("compared")
    torch.distributed.destroy_process_group()


def test_a_training_ends_when_the_process_that_asked_for_it_is_killed() -> None:
    """Its owner is a process that starts it as `dpo` does and is killed; a job that waits stands for work."""
    trains = (
        "import sys, time\n"
        "from safevid_core.alignment import train\n"
        "train._context_for = lambda files: __import__('multiprocessing').get_context('spawn')\n"
        "train._run_all = lambda *_: (print('at work', flush=True), time.sleep(600))\n"
        "train.main(['--while-asked', 'no.json'])\n"
    )
    owns = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {trains!r}], stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", owns], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        lines = {owner.stdout.readline().strip() for _ in range(2)}
        (training,) = (int(line) for line in lines if line.isdigit())
        assert "at work" in lines
        owner.kill()
        deadline = time.monotonic() + 20
        while _runs(training):
            assert time.monotonic() < deadline, "the training outlived its owner"
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
