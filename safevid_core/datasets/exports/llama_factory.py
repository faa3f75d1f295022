"""Pairs for LLaMA-Factory: sharegpt conversations with a ranking, and `dataset_info.json`.

The layout is that of LLaMA-Factory 0.9.5 (`data/README.md`, "Preference Dataset"). A query starts with
`<video>`, once for each path in `videos`; a relative path is relative to `dataset_dir`.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from safevid_core.datasets.exports.export import MEDIA_PLACEHOLDERS, Export
from safevid_core.datasets.exports.release_rows import PROVENANCE, ReleaseRows
from safevid_core.datasets.exports.text_rows import json_objects, write_json_list

_COLUMNS = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "videos": "videos"}


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `dataset_info.json` and a list of pairs for each split."""
    files = {split: f"safevid_{split}.json" for split in rows.splits}
    info = {
        f"safevid_{split}": {
            "file_name": name,
            "formatting": "sharegpt",
            "ranking": True,
            "columns": _COLUMNS,
        }
        for split, name in files.items()
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    for split, name in files.items():
        write_json_list(folder / name, map(_objects, rows.batches(split)))


def _objects(pairs: pl.DataFrame) -> pl.Series:
    objects = pairs.select(
        pl.concat_list(_turn("human", pl.format("<video>{}", "prompt"))).alias("conversations"),
        _turn("gpt", pl.col("chosen")).alias("chosen"),
        _turn("gpt", pl.col("rejected")).alias("rejected"),
        pl.concat_list("video").alias("videos"),
        *PROVENANCE,
    )
    return json_objects(objects)


def _turn(who: str, text: pl.Expr) -> pl.Expr:
    return pl.struct(pl.lit(who).alias("from"), text.alias("value"))


EXPORT = Export(name="llama-factory", reader="LLaMA-Factory", write=write, placeholders=MEDIA_PLACEHOLDERS)
