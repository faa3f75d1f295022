"""Pairs for trl's own DPOTrainer: conversational preference with the frames of the clip as `images`.

trl 1.16 knows images and no videos: it refuses a prompt with a part for a video, and it ignores a column
`videos` and trains without any picture. So the prompt is text, trl puts the images before it, and `video`
names the source file for people. The folder is an image folder of `datasets` 5.2: `<split>/metadata.parquet`
names the JPEG files of each row in `images_file_names`, and `load_dataset` makes the column `images` of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.hub_card import copy_statistics, hub_card, licence_file
from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows

# Rows of one row group.
_BATCH = 1_000
_ABOUT = """\
One preference pair a row, for trl's `DPOTrainer`: `prompt`, `chosen` and `rejected` are conversations of
text, `images` are uniform frames of the clip in their order, and `video` names the file they come from."""


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `README.md` and `<split>/metadata.parquet`; the frames are there already."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    texts = ("pair_id", "clip_id", "video", "licence", "scene", "subcategory")
    schema = pa.schema(
        [
            ("prompt", turns),
            ("chosen", turns),
            ("rejected", turns),
            ("images_file_names", pa.list_(pa.string())),
        ]
        + [(name, pa.string()) for name in texts]
    )
    for split in rows.splits:
        with pq.ParquetWriter(folder / split / "metadata.parquet", schema) as file:
            some: list[dict[str, Any]] = []
            for row in rows.rows(split):
                some.append(_row(row))
                if len(some) == _BATCH:
                    file.write_table(pa.Table.from_pylist(some, schema))
                    some = []
            if some:
                file.write_table(pa.Table.from_pylist(some, schema))
    # The files are found by the folder alone: a folder name of a person's may look like another split.
    card = hub_card(rows, {split: f"{split}/**" for split in rows.splits}, _ABOUT)
    (folder / "README.md").write_text(card, encoding="utf-8")
    copy_statistics(rows, folder)
    (folder / "LICENSE").write_text(licence_file(rows), encoding="utf-8")


def _row(row: ExportRow) -> dict[str, Any]:
    pair = row.pair
    return {
        "prompt": [{"role": "user", "content": pair.prompt}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "images_file_names": list(row.frames),
        "pair_id": pair.pair_id,
        "clip_id": pair.clip_id,
        "video": row.file_name,
        "licence": row.licence,
        "scene": pair.scene,
        "subcategory": pair.subcategory,
    }


EXPORT = Export(
    name="trl",
    reader="trl",
    write=write,
    media="frames",
    # The image tokens of LLaVA, Qwen and InternVL.
    placeholders=("<image>", "<|image_pad|>", "<IMG_CONTEXT>"),
)
