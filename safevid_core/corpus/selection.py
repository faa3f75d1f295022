"""The video corpus: for each scene the clips nearest to its centroid, up to its quota (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from safevid_core.lake import Lake, StageReport, frame_hash, run_stage, settings_hash, stage_fingerprint
from safevid_core.records import (
    CLIP_MANIFEST,
    CORPUS_SPLIT,
    SCENE_ASSIGNMENTS,
    VIDEO_CORPUS,
    Outcome,
    StageRows,
)
from safevid_core.settings import Settings
from safevid_core.taxonomy.taxonomy import load_scenes

_FROM_MANIFEST = (
    "clip_id", "path", "media_sha256", "start_s", "end_s", "duration_s", "fps", "width", "height", "origin",
    "file_name", "licence",
)  # fmt: skip


def make_video_corpus(settings: Settings, lake: Lake, scene: str) -> StageReport:
    """Select one scene's clips: no near copies, nearest to the centroid first, twin groups whole.

    Raises:
        KeyError: If `scene` is none of the scene categories.
    """
    quota = _quota(settings, scene)
    clips = _clips_of(lake, scene)
    return run_stage(
        lake,
        VIDEO_CORPUS,
        scene,
        _inputs(clips, quota),
        clips["clip_id"].to_list(),
        lambda: _select(clips, quota),
    )


def changed_scenes(settings: Settings, lake: Lake) -> dict[str, str]:
    """Scenes whose committed corpus is no longer what their clips would give, with the new fingerprint."""
    changed = {}
    for scene in load_scenes().ids:
        fingerprint = stage_fingerprint(
            lake, VIDEO_CORPUS, _inputs(_clips_of(lake, scene), _quota(settings, scene))
        )
        current = lake.manifest(VIDEO_CORPUS.name, scene)
        if current is None or current.fingerprint != fingerprint:
            changed[scene] = fingerprint
    return changed


def _quota(settings: Settings, scene: str) -> int:
    scenes = load_scenes()
    return scene_quotas(settings.corpus.target_clips, scenes.ids)[scenes[scene].id]


def _inputs(clips: pl.DataFrame, quota: int) -> dict[str, str]:
    return {"clips": frame_hash(clips), "quota": settings_hash(quota)}


def scene_quotas(total: int, scenes: Sequence[str]) -> dict[str, int]:
    """`total` shared out evenly, the remainder one each to the first scenes."""
    share, left = divmod(total, len(scenes))
    return {scene: share + (place < left) for place, scene in enumerate(scenes)}


def _clips_of(lake: Lake, scene: str) -> pl.DataFrame:
    """The scene's assigned clips with all that selection and the corpus rows need, by clip id."""
    assigned = lake.scan(SCENE_ASSIGNMENTS).filter(pl.col("scene") == scene)
    wanted = ("clip_id", "source_id", "scene", "twin_group", "low_margin", "near_copy_of", "embedding")
    return (
        assigned.select(wanted)
        .join(lake.scan(CORPUS_SPLIT).select("clip_id", "split"), on="clip_id", how="left")
        .join(lake.scan(CLIP_MANIFEST).select(_FROM_MANIFEST), on="clip_id", how="left")
        .sort("clip_id")
        .collect()
    )


def _select(clips: pl.DataFrame, quota: int) -> StageRows:
    outcomes: dict[str, tuple[Outcome, str]] = {}
    eligible = []
    for clip in clips.iter_rows(named=True):
        if clip["near_copy_of"] is not None:
            outcomes[clip["clip_id"]] = ("filtered", f"near copy of {clip['near_copy_of']}")
        elif clip["split"] is None or clip["path"] is None:
            stale = "corpus_split" if clip["split"] is None else "clip_manifest"
            outcomes[clip["clip_id"]] = ("failed", f"not in {stale}; make {stale} again")
        else:
            eligible.append(clip)
    cosines = _cosines_to_centroid(eligible)
    chosen = _choose(eligible, cosines, quota)
    rank = {clip_id: place for place, clip_id in enumerate(chosen, start=1)}
    for clip in eligible:
        kept = clip["clip_id"] in rank
        outcomes[clip["clip_id"]] = ("ok", "") if kept else ("filtered", "beyond the scene's quota")
    rows = [
        {
            **{name: clip[name] for name in VIDEO_CORPUS.schema if name in clip},
            "centroid_cosine": cosines[clip["clip_id"]],
            "rank": rank[clip["clip_id"]],
        }
        for clip in eligible
        if clip["clip_id"] in rank
    ]
    info = {"quota": quota, "eligible": len(eligible), "selected": len(rows)}
    return StageRows(VIDEO_CORPUS.frame(rows), [(each, *outcomes[each]) for each in outcomes], info)


def _cosines_to_centroid(clips: list[dict[str, Any]]) -> dict[str, float]:
    """Each clip's cosine to the mean direction of all of them, to 6 decimals: ties are then exact."""
    if not clips:
        return {}
    vectors = np.array([clip["embedding"] for clip in clips], dtype=np.float64)
    centroid = vectors.mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(centroid)
    values = np.round(vectors @ centroid / np.maximum(norms, 1e-12), 6)
    return {clip["clip_id"]: float(value) for clip, value in zip(clips, values, strict=True)}


def _choose(clips: list[dict[str, Any]], cosines: dict[str, float], quota: int) -> list[str]:
    """Clip ids in the order of choice; a twin group stands where its best member does, all or none of it."""
    units: dict[str, list[str]] = {}
    for clip in clips:
        key = f"twins {clip['twin_group']}" if clip["twin_group"] is not None else f"clip {clip['clip_id']}"
        units.setdefault(key, []).append(clip["clip_id"])
    ordered = [sorted(unit, key=lambda each: (-cosines[each], each)) for unit in units.values()]
    chosen: list[str] = []
    for unit in sorted(ordered, key=lambda unit: (-cosines[unit[0]], unit[0])):
        if len(chosen) + len(unit) <= quota:
            chosen += unit
    return chosen
