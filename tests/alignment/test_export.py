"""What reads the rows of a kept release: this project's trainer does, trl's own refuses video parts."""

from __future__ import annotations

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
from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.exports.hugging_face import arrow_table
from safevid_core.datasets.release_folder import write_shards
from safevid_core.models.video_chat import load_local
from tests.alignment.exactness import FAMILIES, AlignmentOf
from tests.alignment.test_training import batch_of, build, loss_and_gradients


@pytest.fixture
def kept(release: pl.DataFrame, tmp_path: Path) -> pl.DataFrame:
    """The release's first pairs, written as shards and read back, with the paths of their videos."""
    rows = release[:4].with_columns(source_id=pl.col("clip_id"), split=pl.lit("train"), licence=pl.lit("CC0"))
    rows = RELEASE.frame({name: row.get(name) for name in RELEASE.schema} for row in rows.to_dicts())
    parts = [pl.read_parquet(tmp_path / shard.file) for shard in write_shards(tmp_path, rows)]
    return pl.concat(parts).with_columns(release["path"][:4])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_collator_makes_the_same_batch_of_kept_rows(
    family: str, alignment_of: AlignmentOf, release: pl.DataFrame, kept: pl.DataFrame
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

    given, read = batch(release[:4]), batch(kept)
    assert given.keys() == read.keys()
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, read[name]), name  # type: ignore[arg-type]
        else:
            assert value == read[name], name


def test_the_trainer_takes_kept_rows(alignment_of: AlignmentOf, kept: pl.DataFrame, tmp_path: Path) -> None:
    alignment = alignment_of("llava_next_video")
    trainer = build(alignment, kept, tmp_path)
    assert isinstance(trainer, VideoDPOTrainer)
    trainer.store_reference()
    loss, gradients = loss_and_gradients(trainer, batch_of(trainer, [0, 1, 2, 3]))
    assert torch.isfinite(loss)
    assert any(gradient.norm() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_trl_refuses_them_for_the_video_part_of_their_prompts(
    family: str, alignment_of: AlignmentOf, kept: pl.DataFrame, tmp_path: Path
) -> None:
    alignment = alignment_of(family)
    model, processor = load_local(alignment.base)
    licences = kept.with_columns(pl.lit(None, pl.String).alias("file_name"))
    rows = arrow_table(licences).to_pylist()

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
