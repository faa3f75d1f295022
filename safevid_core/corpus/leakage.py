"""Whether train and benchmark share anything: a source video, a near copy, or a twin."""

from __future__ import annotations

import polars as pl

# What two clips can share -> the columns that tell, of which those present in both frames are compared.
_SHARED = {
    "the source video": "source_id",
    "the bytes of the file": "media_sha256",
    "the twin group": "twin_group",
    "the near-copy group": "_copy_group",
    "the split group": "group_id",
}


def leaks(train: pl.DataFrame, benchmark: pl.DataFrame) -> list[str]:
    """One line for each train clip that shares something with a benchmark clip; none is as it should be.

    Args:
        train: Rows with `clip_id` and any of `source_id, media_sha256, twin_group, near_copy_of, group_id`.
        benchmark: The same.
    """
    sides = [_with_copy_group(side) for side in (train, benchmark)]
    found = []
    for words, column in _SHARED.items():
        if not all(column in side.columns for side in sides):
            continue
        one, other = (side.select("clip_id", column).drop_nulls().unique() for side in sides)
        both = one.join(other, on=column, suffix="_benchmark").sort("clip_id", "clip_id_benchmark")
        for row in both.iter_rows(named=True):
            found.append(
                f"train clip {row['clip_id']} and benchmark clip {row['clip_id_benchmark']} share {words} "
                f"{row[column]!r}"
            )
    return found


def _with_copy_group(side: pl.DataFrame) -> pl.DataFrame:
    """A clip belongs to the group of the clip that it copies, or to its own."""
    if "near_copy_of" not in side.columns:
        return side.with_columns(pl.col("clip_id").alias("_copy_group"))
    return side.with_columns(pl.coalesce("near_copy_of", "clip_id").alias("_copy_group"))
