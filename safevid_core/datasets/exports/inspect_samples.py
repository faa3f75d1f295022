"""Queries with their videos as samples of inspect_ai: JSON lines that its `json_dataset` reads.

A sample asks what the pair asks. Its target is the chosen response, and its metadata holds the rejected one,
the policy and the criteria of a safe response.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.release_rows import ReleaseRows
from safevid_core.datasets.exports.text_rows import write_splits

# The video formats of inspect_ai's `ContentVideo`.
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mpeg": "mpeg", ".mpg": "mpeg"}
_METADATA = (
    "clip_id", "media_sha256", "start_s", "end_s", "scene", "principle", "dimension", "subcategory", "style",
    *INTENT_COLUMNS, "policy", "rejected", "margin", "source_id", "licence",
)  # fmt: skip


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>.jsonl` for each split."""
    write_splits(rows, folder, _samples)


def _samples(pairs: pl.DataFrame) -> pl.Series:
    suffix = pl.col("video").str.to_lowercase().str.extract(r"(\.[^./]*)$")
    # The two parts have different keys, which no column of lists can hold.
    parts = pairs.select(
        _json(type=pl.lit("video"), video=pl.col("video"), format=suffix.replace_strict(_FORMATS)).alias(
            "video"
        ),
        _json(type=pl.lit("text"), text=pl.col("prompt")).alias("text"),
        _json(id=pl.col("pair_id"), target=pl.col("chosen"), metadata=pl.struct(_METADATA)).alias("rest"),
    )
    head = (pl.lit('{"input":[{"role":"user","content":['), "video", pl.lit(","), "text", pl.lit("]}],"))
    return parts.select(pl.concat_str(*head, pl.col("rest").str.slice(1)).alias("json"))["json"]


def _json(**keys: pl.Expr) -> pl.Expr:
    return pl.struct(*(value.alias(key) for key, value in keys.items())).struct.json_encode()


EXPORT = Export(name="inspect", reader="inspect_ai", write=write, suffixes=tuple(_FORMATS))
