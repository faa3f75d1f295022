"""Reads the pairs in the folder of a release.

A folder of a release holds Parquet shards, one folder for each split, and `release.json`::

    release.json
    README.md
    kept_out.parquet
    train/pairs-00000.parquet, train/pairs-00001.parquet, ...
    validation/pairs-00000.parquet, ...

A folder of an earlier version holds the same pairs as JSON lines in `pairs.jsonl`.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

RECORD = "release.json"
LINES = "pairs.jsonl"


def shards_of(folder: Path) -> list[Path]:
    """The Parquet shards of a release, in the order of their names."""
    return sorted(folder.glob("*/pairs-*.parquet"))


def read_columns(folder: Path, schema: pl.Schema) -> pl.DataFrame:
    """Some columns of the pairs of a release, of either form. Empty if the folder holds no pairs.

    Args:
        schema: The columns, none of which holds a text of a pair. A column that the files lack is null.
    """
    empty = pl.DataFrame(schema=schema)
    shards = shards_of(folder)
    if shards:
        scan = pl.scan_parquet(shards, glob=False)
        there = scan.collect_schema().names()
        missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in there]
        return scan.with_columns(missing).select(schema.names()).collect().cast(schema)
    lines = folder / LINES
    if lines.is_file() and lines.stat().st_size:
        return pl.read_ndjson(lines, schema=schema).drop_nulls("pair_id")
    return empty
