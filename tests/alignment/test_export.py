"""What reads the rows that a release exports: this project's trainer does, trl's own does not."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from datasets import Dataset
from trl import DPOTrainer

from safevid_core.alignment.clips import PixelStore
from safevid_core.alignment.collator import VideoPreferenceCollator
from safevid_core.alignment.encoding import encode_pairs
from safevid_core.alignment.trainer import VideoDPOTrainer, lora_config, training_arguments
from safevid_core.contracts.rows import Pair, rows_of
from safevid_core.datasets.release import chat_row, read_export
from safevid_core.models.video_chat import load_local
from tests.alignment.exactness import FAMILIES, AlignmentOf
from tests.alignment.test_training import batch_of, build, loss_and_gradients


@pytest.fixture
def exported(release: pl.DataFrame, clips: list[Path], tmp_path: Path) -> Path:
    """The release's first pairs as a `pairs.jsonl` whose videos are relative to the clips' folder."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        chat_row(pair, "CC0-1.0", Path(video).name, "release-1")
        for pair, video in zip(rows_of(release[:4], Pair), release["path"][:4], strict=True)
    ]
    assert not any(Path(row["video"]).is_absolute() for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_collator_makes_the_same_batch_of_exported_rows(
    family: str, alignment_of: AlignmentOf, release: pl.DataFrame, clips: list[Path], exported: Path
) -> None:
    alignment = alignment_of(family)
    _, processor = load_local(alignment.base)

    def batch(rows: pl.DataFrame) -> dict[str, object]:
        store = PixelStore()
        encoded = encode_pairs(rows, alignment, processor, store)
        assert not encoded.refused
        return VideoPreferenceCollator(encoded.pairs, store, processor.tokenizer.pad_token_id).batch(
            encoded.pairs
        )

    given, read = batch(release[:4]), batch(read_export(exported, clips[0].parent))
    assert given.keys() == read.keys()
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, read[name]), name  # type: ignore[arg-type]
        else:
            assert value == read[name], name


def test_the_trainer_takes_exported_rows(
    alignment_of: AlignmentOf, clips: list[Path], exported: Path, tmp_path: Path
) -> None:
    alignment = alignment_of("llava_next_video")
    trainer = build(alignment, read_export(exported, clips[0].parent), tmp_path)
    assert isinstance(trainer, VideoDPOTrainer)
    trainer.store_reference()
    loss, gradients = loss_and_gradients(trainer, batch_of(trainer, [0, 1, 2, 3]))
    assert torch.isfinite(loss)
    assert any(gradient.norm() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_trl_refuses_them_for_the_video_part_of_their_prompts(
    family: str, alignment_of: AlignmentOf, exported: Path, tmp_path: Path
) -> None:
    alignment = alignment_of(family)
    model, processor = load_local(alignment.base)
    rows = [json.loads(line) for line in exported.read_text().splitlines()]

    def stock() -> DPOTrainer:
        return DPOTrainer(
            model=model,
            args=training_arguments(alignment, tmp_path, len(rows), 0),
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            peft_config=lora_config(alignment),
        )

    with pytest.raises(ValueError, match="no videos were passed"):
        stock()
    for row in rows:
        row["prompt"][0]["content"].pop(0)
    assert len(stock().train_dataset) == len(rows)
