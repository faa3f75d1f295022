"""Clips, their scenes, their side of the split, and the curated corpus."""

import dagster as dg

from safevid_core.corpus.clip_manifest import make_clip_manifest
from safevid_core.corpus.scene_assignments import make_scene_assignments
from safevid_core.corpus.selection import make_video_corpus
from safevid_core.corpus.split import make_corpus_split
from safevid_core.pocket.sources import render_pocket_sources
from safevid_core.records import CLIP_MANIFEST, CORPUS_SPLIT, SCENE_ASSIGNMENTS, VIDEO_CORPUS
from safevid_dagster.defs.checks import conserves
from safevid_dagster.defs.partitions import SCENES
from safevid_dagster.defs.resources import SafeVid


@dg.asset(group_name="corpus", kinds={"python"})
def pocket_clips(safevid: SafeVid) -> dg.MaterializeResult:
    """Clips rendered for every source of kind `pocket`; nothing where the settings name none."""
    return dg.MaterializeResult(metadata=render_pocket_sources(safevid.settings))


@dg.asset(
    group_name="corpus", kinds={"polars"}, deps=[pocket_clips], check_specs=[conserves("clip_manifest")]
)
def clip_manifest(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Every clip of every source: identity, span, container facts, licence."""
    return safevid.whole(context, CLIP_MANIFEST, lambda: make_clip_manifest(safevid.settings, safevid.lake))


@dg.asset(
    group_name="corpus",
    kinds={"polars", "pytorch"},
    deps=[clip_manifest],
    check_specs=[conserves("scene_assignments")],
)
def scene_assignments(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """The scene category of each clip by a video-text embedding, with its margin; near copies named."""
    return safevid.whole(
        context, SCENE_ASSIGNMENTS, lambda: make_scene_assignments(safevid.settings, safevid.lake)
    )


@dg.asset(
    group_name="corpus",
    kinds={"polars"},
    deps=[scene_assignments],
    check_specs=[conserves("corpus_split")],
)
def corpus_split(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Train or benchmark, for ever, by source video, near copy and twin group."""
    return safevid.whole(context, CORPUS_SPLIT, lambda: make_corpus_split(safevid.settings, safevid.lake))


@dg.asset(
    group_name="corpus",
    kinds={"polars"},
    deps=[clip_manifest, scene_assignments, corpus_split],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("video_corpus")],
)
def video_corpus(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """The clips nearest to each scene's centroid, near copies removed first."""
    return safevid.partitions(
        context,
        VIDEO_CORPUS,
        lambda scene: make_video_corpus(safevid.settings, safevid.lake, scene),
    )
