"""What a training leaves behind loads with plain transformers and peft, and tells how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from safevid_core.alignment.job import Job
from safevid_core.alignment.progress import chosen_falls
from safevid_core.alignment.train import prepare, train
from safevid_core.models.families import build_inputs, conversation
from safevid_core.settings import Settings
from safevid_core.video.decoding import decode_uniform
from tests.alignment.exactness import move_adapter
from tests.alignment.progress_log import logged

FAMILIES = ("llava_next_video", "qwen2_5_vl", "internvl")


@pytest.fixture
def trained(settings: Settings, release: pl.DataFrame, tmp_path: Path) -> Any:
    def of(family: str, checkpoint: Path, **changes: Any) -> Job:
        base = settings.alignment.base.model_copy(update={"family": family, "path": str(checkpoint)})
        update = {
            "base": base,
            "packing": "video",
            "merge": True,
            "learning_rate": 1e-2,
            "epochs": 2,
            **changes,
        }
        release.write_parquet(tmp_path / "pairs.parquet")
        job = Job(
            tmp_path / family, tmp_path / "pairs.parquet", 0, settings.alignment.model_copy(update=update)
        )
        job.folder.mkdir()
        train(job)
        return job

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_and_merged_model_load_with_plain_libraries_and_agree(
    family: str, trained: Any, checkpoints: dict[str, Path], release: pl.DataFrame
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    job = trained(family, checkpoints[family])
    merged_folder = job.adapter / "merged"
    processor = AutoProcessor.from_pretrained(merged_folder)
    frames = decode_uniform(release["path"][0], 4)
    inputs = build_inputs(family, processor, [conversation("What is it?")], [frames])
    base = AutoModelForImageTextToText.from_pretrained(checkpoints[family], dtype=torch.float32)
    with torch.no_grad():
        before = base(**inputs).logits
        adapted = PeftModel.from_pretrained(base, job.adapter).eval()(**inputs).logits
        merged = AutoModelForImageTextToText.from_pretrained(merged_folder, dtype=torch.float32).eval()
        after = merged(**inputs).logits
    assert torch.allclose(after, adapted, atol=1e-4)
    assert not torch.allclose(after, before, atol=1e-2)
    assert "safevid_tree" not in (merged_folder / "config.json").read_text()


def test_progress_tells_loss_rates_and_time_left(trained: Any, checkpoints: dict[str, Path]) -> None:
    job = trained("llava_next_video", checkpoints["llava_next_video"])
    steps = [line for line in logged(job) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    wanted = {
        "loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "tokens/s",
        "tokens/padding_share", "tokens/saved_by_sharing", "memory/peak_gb",
    }  # fmt: skip
    assert all(wanted <= set(line) for line in steps)
    assert all(line["tokens/padding_share"] == 0 for line in steps)
    assert sum(line["tokens/saved_by_sharing"] for line in steps) > 0
    assert [line["seconds_left"] for line in steps[:-1]] == pytest.approx(
        sorted((line["seconds_left"] for line in steps[:-1]), reverse=True), rel=0.8
    )


def test_a_falling_chosen_log_probability_is_warned_about() -> None:
    assert not chosen_falls([-1.0] * 19)
    assert chosen_falls([0.5] * 10 + [-0.1] * 20)
    assert not chosen_falls([-5.0] * 10 + [0.1] * 20)


def test_held_out_pairs_are_measured_alike_in_every_packing(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    release[:16].write_parquet(tmp_path / "pairs.parquet")
    found = []
    for packing in ("none", "video"):
        alignment = settings.alignment.model_copy(update={"packing": packing, "learning_rate": 1e-2})
        job = Job(tmp_path / packing, tmp_path / "pairs.parquet", 0, alignment)
        job.folder.mkdir()
        trainer, _, encode = prepare(job)
        held = encode(release[16:]).pairs
        trainer.store_reference(held)
        untrained = trainer.measure(held)
        assert untrained["loss"] == pytest.approx(0.6931, abs=1e-4)
        move_adapter(trainer.model)
        found.append(trainer.measure(held))
    one, other = found
    assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert abs(one["margins"]) > 0
