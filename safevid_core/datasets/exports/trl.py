"""Pairs for trl's own DPOTrainer: conversational preference with the frames of the clip as `images`.

trl 1.16 knows images and no videos: it refuses a prompt with a part for a video, and it ignores a column
`videos` and trains without any picture. So the prompt is text, trl puts the images before it, and `video`
names the source file for people. The folder is an image folder of `datasets` 5.2: `<split>/metadata.parquet`
names the JPEG files of each row in `images_file_names`, and `load_dataset` makes the column `images` of them.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.hub_card import copy_statistics, hub_card, licence_file
from safevid_core.datasets.exports.release_rows import ReleaseRows, turn

_ROW_GROUP = 1_000
_TEXTS = ("pair_id", "clip_id", "video", "licence", "scene", "subcategory")
_ABOUT = """\
One preference pair a row, for trl's `DPOTrainer`: `prompt`, `chosen` and `rejected` are conversations of
text, `images` are uniform frames of the clip in their order, and `video` names the file they come from."""


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `README.md` and `<split>/metadata.parquet`; the frames are there already."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    lists = [("images_file_names", pa.list_(pa.string()))]
    messages = [(name, turns) for name in ("prompt", "chosen", "rejected")]
    schema = pa.schema(messages + lists + [(name, pa.string()) for name in _TEXTS])
    for split in rows.splits:
        with pq.ParquetWriter(folder / split / "metadata.parquet", schema) as file:
            for pairs in rows.batches(split):
                file.write_table(_table(pairs).to_arrow().cast(schema), row_group_size=_ROW_GROUP)
    # The files are found by the folder alone: a folder name of a person's may look like another split.
    card = hub_card(rows, {split: f"{split}/**" for split in rows.splits}, _ABOUT)
    (folder / "README.md").write_text(card, encoding="utf-8")
    copy_statistics(rows, folder)
    (folder / "LICENSE").write_text(licence_file(rows), encoding="utf-8")


def _table(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.select(
        pl.concat_list(turn("user", pl.col("prompt"))).alias("prompt"),
        pl.concat_list(turn("assistant", pl.col("chosen"))).alias("chosen"),
        pl.concat_list(turn("assistant", pl.col("rejected"))).alias("rejected"),
        pl.col("frames").alias("images_file_names"),
        "pair_id",
        "clip_id",
        pl.col("file_name").alias("video"),
        "licence",
        "scene",
        "subcategory",
    )


EXPORT = Export(
    name="trl",
    reader="trl",
    write=write,
    media="frames",
    # The image tokens of LLaVA, Qwen and InternVL.
    placeholders=("<image>", "<|image_pad|>", "<IMG_CONTEXT>"),
)
