"""The cluster of a clip: values about clips of one cluster are not independent, and an interval says so."""

from __future__ import annotations

import polars as pl


def with_clusters(clips: pl.DataFrame) -> pl.DataFrame:
    """The rows with one more column, `cluster`: the twin group of a clip, else its source video.

    Args:
        clips: Columns `clip_id, source_id, twin_group`. A clip without a source is a source of its own.
    """
    source = pl.coalesce("source_id", "clip_id")
    return clips.with_columns(
        cluster=pl.coalesce(pl.format("twins {}", "twin_group"), pl.format("source {}", source))
    )
