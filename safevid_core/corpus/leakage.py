"""Finds what training clips and benchmark clips share: a source video, a file, a near-duplicate or a twin."""

from __future__ import annotations

import polars as pl

from safevid_core.contracts.tables import (
    CORPUS_SPLIT,
    DECIDED_SIDES,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    SCENE_ASSIGNMENTS,
    Table,
)
from safevid_core.corpus.trained import CLIP_SCHEMA, with_source_and_group
from safevid_core.storage.lake import WHOLE, Lake

# Benchmarks whose releases are made from clips of the corpus.
OF_CLIPS = (SAFEVIDBENCH_BASE, SAFEVIDBENCH_CHALLENGE)

# What two clips can share, in words -> its column. A column that a frame lacks is not compared.
_SHARED = {
    "the source video": "source_id",
    "the bytes of the file": "media_sha256",
    "the twin group": "twin_group",
    "the near-duplicate group": "_copy_group",
    "the split group": "group_id",
}
_SHARES_SCHEMA = {"clip_id": pl.String, "clip_id_benchmark": pl.String, "what": pl.String, "which": pl.String}


def leaks(train: pl.DataFrame, benchmark: pl.DataFrame) -> list[str]:
    """One line for each thing that a training clip shares with a benchmark clip. Empty if they share nothing.

    Args:
        train: Rows with `clip_id` and any of `source_id, media_sha256, twin_group, near_copy_of, near_copies,
            group_id`.
        benchmark: The same.
    """
    return [
        f"train clip {one} and benchmark clip {other} share {what} {which!r}"
        for one, other, what, which in shares(train, benchmark).iter_rows()
    ]


def shares(train: pl.DataFrame, benchmark: pl.DataFrame) -> pl.DataFrame:
    """What training clips share with benchmark clips: columns `clip_id, clip_id_benchmark, what, which`.

    If several benchmark clips share the same thing with a training clip, the row names the first of them.
    """
    sides = [_with_copy_group(side) for side in (train, benchmark)]
    found = [pl.DataFrame(schema=_SHARES_SCHEMA), _near(*sides)]
    for words, column in _SHARED.items():
        if not all(column in side.columns for side in sides):
            continue
        one, other = (side.select("clip_id", column).drop_nulls().unique() for side in sides)
        first = other.group_by(column).agg(pl.col("clip_id").min().alias("clip_id_benchmark"))
        both = one.join(first, on=column).sort("clip_id", column)
        found.append(
            both.select(
                "clip_id", "clip_id_benchmark", pl.lit(words).alias("what"), pl.col(column).alias("which")
            )
        )
    return pl.concat(found)


def with_ties(lake: Lake, clips: pl.DataFrame) -> pl.DataFrame:
    """Clips with the columns that :func:`leaks` compares, as far as the lake knows them.

    A clip that is no longer in the corpus keeps what was recorded of it.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s, twin_group`, and optionally `source_id` and
            `group_id`.
    """
    recorded = with_source_and_group(
        lake, clips.select("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
    )
    if "group_id" in clips.columns:
        recorded = clips.select(CLIP_SCHEMA.names())
    assigned = lake.scan(SCENE_ASSIGNMENTS)
    columns = assigned.collect_schema().names()
    wanted = [name for name in ("near_copy_of", "near_copies") if name in columns]
    near = assigned.select("clip_id", *wanted).collect()
    if "near_copies" in wanted:
        # The pairs are exact. A group may be connected only through a clip that was set aside.
        near = near.with_columns(near_copy_of=pl.when(pl.col("near_copies").is_null()).then("near_copy_of"))
    # Each clip is compared twice: as it was recorded, and as the manifest has it now.
    now = assigned.select("clip_id", "source_id", "twin_group").collect()
    again = recorded.drop("source_id", "twin_group").join(now, on="clip_id").select(recorded.columns)
    return pl.concat([recorded, again]).unique().join(near, on="clip_id", how="left")


def held_out(lake: Lake, clips: pl.DataFrame) -> dict[str, str]:
    """Clip id -> why no policy may train on the clip: it is on the benchmark side, or related to a release.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s, twin_group`.
    """
    columns = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
    sides = [lake.scan(table).select("clip_id", "split").collect() for table in (DECIDED_SIDES, CORPUS_SPLIT)]
    benchmark = (
        pl.concat(sides).unique("clip_id", keep="first", maintain_order=True).filter(split="benchmark")
    )
    found = dict.fromkeys(
        set(clips["clip_id"]) & set(benchmark["clip_id"]), "its clip is on the side benchmark"
    )
    mine = None
    for table in OF_CLIPS:
        items = lake.scan(table, [WHOLE]).select(*columns, "release").collect()
        if items.is_empty():
            continue
        mine = with_ties(lake, clips.select(columns).unique()) if mine is None else mine
        for clip, other, what, _ in shares(mine, with_ties(lake, items)).iter_rows():
            where = f"{table.name} (release {items['release'][0]})"
            found[clip] = f"its clip shares {what} with clip {other} of {where}"
    return found


def items_of(lake: Lake, benchmark: Table) -> pl.DataFrame:
    """The clips of the release in use, with the columns that :func:`with_ties` takes."""
    columns = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
    return lake.scan(benchmark, [WHOLE]).select(columns).unique().collect()


def _near(train: pl.DataFrame, benchmark: pl.DataFrame) -> pl.DataFrame:
    """Training clips that are near-duplicates of a benchmark clip, by the record of either clip."""
    found = []
    ids = [side.select("clip_id").unique() for side in (train, benchmark)]
    for side, other, names in (
        (train, ids[1], ("clip_id", "clip_id_benchmark")),
        (benchmark, ids[0], ("clip_id_benchmark", "clip_id")),
    ):
        if "near_copies" not in side.columns:
            continue
        pairs = side.select("clip_id", "near_copies").explode("near_copies").drop_nulls()
        both = pairs.join(other, left_on="near_copies", right_on="clip_id", how="semi")
        found.append(
            both.rename({"clip_id": names[0], "near_copies": names[1]}).select("clip_id", "clip_id_benchmark")
        )
    if not found:
        return pl.DataFrame(schema=_SHARES_SCHEMA)
    first = pl.concat(found).group_by("clip_id").agg(pl.col("clip_id_benchmark").min()).sort("clip_id")
    return first.with_columns(what=pl.lit("the pictures"), which=pl.col("clip_id_benchmark"))


def _with_copy_group(side: pl.DataFrame) -> pl.DataFrame:
    """The rows with the column `_copy_group`: the clip that the row's clip copies, or the clip itself."""
    if "near_copy_of" not in side.columns:
        return side.with_columns(pl.col("clip_id").alias("_copy_group"))
    return side.with_columns(pl.coalesce("near_copy_of", "clip_id").alias("_copy_group"))
