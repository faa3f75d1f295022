"""Stores beside each adapter the clips that it was trained on, and reads them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.contracts.tables import (
    CORPUS_SPLIT,
    DECIDED_SIDES,
    LOSSY_PAIRS,
    PAIRS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    RELEASE,
)
from safevid_core.storage.lake import Lake
from safevid_core.storage.release_folders import read_columns

FILE_NAME = "training_clips.jsonl"
CLIP_SCHEMA = pl.Schema(
    {
        "clip_id": pl.String, "source_id": pl.String, "media_sha256": pl.String, "start_s": pl.Float64,
        "end_s": pl.Float64, "twin_group": pl.String, "group_id": pl.String,
    }
)  # fmt: skip
_OF_PAIR = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")


def write_training_clips(lake: Lake, folder: Path, pairs: pl.DataFrame) -> None:
    """Write the clips that an adapter was trained on into its folder.

    Args:
        pairs: Rows with `clip_id, media_sha256, start_s, end_s, twin_group`.
    """
    clips = with_source_and_group(lake, pairs.select(_OF_PAIR).unique())
    clips.sort("clip_id", "media_sha256").write_ndjson(folder / FILE_NAME)


def read_training_clips(folder: Path) -> pl.DataFrame | None:
    """The clips that the adapter in a folder was trained on. None if the folder has no record of them."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    if not path.stat().st_size:
        return pl.DataFrame(schema=CLIP_SCHEMA)
    return pl.read_ndjson(path, schema=CLIP_SCHEMA)


def with_source_and_group(lake: Lake, clips: pl.DataFrame) -> pl.DataFrame:
    """Clips with their source video and the group whose side was decided. Null if no side was decided.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s, twin_group`.
    """
    sides = [
        lake.scan(table).select("clip_id", "source_id", "group_id").collect()
        for table in (DECIDED_SIDES, CORPUS_SPLIT)
    ]
    decided = pl.concat(sides).unique("clip_id", keep="first", maintain_order=True)
    return clips.join(decided, on="clip_id", how="left").select(CLIP_SCHEMA.names())


def pairs_ever_made(lake: Lake) -> pl.DataFrame:
    """The pair ids and clips of all pairs in the lake's tables and in its stored releases."""
    columns = ("pair_id", *_OF_PAIR)
    found = [
        lake.scan(table).select(columns).collect()
        for table in (PAIRS, RELEASE, PAIRS_WITHOUT_DESCRIPTIONS, LOSSY_PAIRS)
    ]
    schema = found[0].schema
    for address in lake.directories("release"):
        found.append(read_columns(lake.local_directory(address), schema))
    return pl.concat(found).unique(columns, maintain_order=True)
