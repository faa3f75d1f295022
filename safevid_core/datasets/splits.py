"""The source video of each pair, and the split, train or validation, that it is in.

A hash of the video's *group* decides the split: one source video with its near-duplicates and twins, as
`corpus_split` wrote it down. So a video never changes its split from one release to the next, whichever other
videos come or go. If `datasets.validation_share` is raised, videos move from train to validation only.
"""

from __future__ import annotations

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import VIDEO_CORPUS
from safevid_core.corpus.trained import with_source_and_group
from safevid_core.storage.lake import Lake

TRAIN, VALIDATION = SPLITS = ("train", "validation")
UNKNOWN = "unknown"
_OF_CLIP = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")


def split_of(group: str, share: float, seed: int = 0) -> str:
    """The split of a group of source videos: `validation` for a share of all groups."""
    place = int(content_id("validation", seed, group, length=12), 16) / 16**12
    return VALIDATION if place < share else TRAIN


def sources_of(lake: Lake, pairs: pl.DataFrame) -> pl.DataFrame:
    """What the lake knows of the clips of some pairs.

    Args:
        pairs: Columns `clip_id, media_sha256, start_s, end_s, twin_group`.

    Returns:
        One row for each clip: `clip_id`, `source_id` (the clip's id if no source video is known), `group`
        (the source video if no side was decided), `licence` (`unknown` if none is recorded), sorted by
        `clip_id`.
    """
    clips = with_source_and_group(lake, pairs.select(_OF_CLIP).unique("clip_id", keep="first"))
    known = lake.scan(VIDEO_CORPUS).select("clip_id", pl.col("source_id").alias("source"), "licence")
    return (
        clips.join(known.collect().unique("clip_id", keep="first"), on="clip_id", how="left")
        .with_columns(source_id=pl.coalesce("source", "source_id", "clip_id"))
        .select(
            "clip_id",
            "source_id",
            pl.coalesce("group_id", "source_id").alias("group"),
            pl.col("licence").fill_null(UNKNOWN),
        )
        .sort("clip_id")
    )


def with_splits(pairs: pl.DataFrame, sources: pl.DataFrame, share: float, seed: int = 0) -> pl.DataFrame:
    """Pairs with `source_id`, `split` and `licence` of their clips.

    Args:
        sources: Of :func:`sources_of`.
        share: Share of the groups of source videos whose pairs are for validation, from 0 to below 1.
        seed: Another seed draws other videos. The release itself uses 0.
    """
    splits = {group: split_of(group, share, seed) for group in sources["group"].unique()}
    told = sources.with_columns(split=pl.col("group").replace_strict(splits, return_dtype=pl.String))
    return pairs.with_columns(
        pl.col("clip_id").replace_strict(told["clip_id"], told[name], return_dtype=pl.String).alias(name)
        for name in ("source_id", "split", "licence")
    )
