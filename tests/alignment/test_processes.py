"""One training in several processes: the loss curve of one process at the same batch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.alignment.dpo import _launcher
from safevid_core.alignment.job import Job
from safevid_core.settings import Settings


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
