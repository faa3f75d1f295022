"""Pairs for the DPO recipes of LLaVA-NeXT and LongVPO: JSON lines `{video, question, chosen, rejected}`.

LLaVA-NeXT (`llava/train/train_dpo.py`) reads `prompt` for the question and needs `answer` where it groups
rows by their length, so both are given too. It joins `video` with `--video_folder`, and an absolute path
wins.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.release_rows import ReleaseRows
from safevid_core.datasets.exports.text_rows import json_objects, write_splits


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>.jsonl` for each split."""
    write_splits(rows, folder, _objects)


def _objects(pairs: pl.DataFrame) -> pl.Series:
    objects = pairs.select(
        pl.col("pair_id").alias("id"),
        "video",
        pl.col("prompt").alias("question"),
        "prompt",
        pl.col("chosen").alias("answer"),
        "chosen",
        "rejected",
        "licence",
    )
    return json_objects(objects)


EXPORT = Export(name="llava-next", reader="LLaVA-NeXT", write=write, placeholders=("<image>",))
