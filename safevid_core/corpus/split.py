"""The train/benchmark split: whole groups, by a hash that never changes."""

from __future__ import annotations

import polars as pl

from safevid_core.corpus.near_copies import Groups
from safevid_core.lake import WHOLE, Lake, StageReport, frame_hash, run_stage, settings_hash
from safevid_core.records import (
    CLIP_MANIFEST,
    CORPUS_SPLIT,
    SCENE_ASSIGNMENTS,
    StageRows,
    content_id,
    sequence_outcomes,
)
from safevid_core.settings import Settings


def make_corpus_split(settings: Settings, lake: Lake) -> StageReport:
    """Put every assigned clip on one side, together with its source video, near copies and twins."""
    media = lake.scan(CLIP_MANIFEST).select("clip_id", "media_sha256").collect()
    clips = (
        lake.scan(SCENE_ASSIGNMENTS)
        .select("clip_id", "source_id", "twin_group", "near_copy_of")
        .collect()
        .join(media, on="clip_id", how="left", maintain_order="left")
    )
    fraction = settings.corpus.benchmark_fraction
    ids = clips["clip_id"].to_list()

    def compute() -> StageRows:
        groups = group_ids(clips)
        rows = [
            {
                "clip_id": clip["clip_id"],
                "source_id": clip["source_id"],
                "group_id": groups[clip["clip_id"]],
                "split": side_of(groups[clip["clip_id"]], fraction),
            }
            for clip in clips.iter_rows(named=True)
        ]
        info = {"groups": len(set(groups.values()))}
        return StageRows(CORPUS_SPLIT.frame(rows), sequence_outcomes(ids, "ok"), info)

    inputs = {"clips": frame_hash(clips), "benchmark_fraction": settings_hash(fraction)}
    return run_stage(lake, CORPUS_SPLIT, WHOLE, inputs, ids, compute)


def group_ids(clips: pl.DataFrame) -> dict[str, str]:
    """Clip id -> the id of its group: what shares a source video, a file, a near copy or a twin group.

    Args:
        clips: Columns `clip_id, source_id, media_sha256, twin_group, near_copy_of`.
    """
    groups = Groups()
    for clip in clips.iter_rows(named=True):
        # "a source" sorts first, so that a source's id stands for its group wherever the rest is unchanged.
        source = ("a source", clip["source_id"])
        groups.join(source, ("clip", clip["clip_id"]))
        for kind, column in (("clip", "near_copy_of"), ("media", "media_sha256"), ("twins", "twin_group")):
            if clip[column] is not None:
                groups.join(source, (kind, clip[column]))
    return {
        clip_id: content_id("group", *groups.find(("clip", clip_id)))  # type: ignore[misc]
        for clip_id in clips["clip_id"].to_list()
    }


def side_of(group_id: str, benchmark_fraction: float) -> str:
    """`benchmark` for that share of all groups, by a hash of the group's id alone; else `train`."""
    place = int(content_id("split", group_id, length=12), 16) / 16**12
    return "benchmark" if place < benchmark_fraction else "train"
