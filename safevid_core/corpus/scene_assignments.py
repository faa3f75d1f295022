"""Assigns each clip to a scene (section 3.1 of the paper) and finds near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import CLIP_MANIFEST, SCENE_ASSIGNMENTS
from safevid_core.corpus.embeddings import (
    ClipVector,
    OpenClip,
    clip_vectors,
    embedder_files,
    embedder_identity,
)
from safevid_core.corpus.near_copies import copies_of, near_copy_pairs
from safevid_core.settings import CorpusSettings
from safevid_core.stages.stage import Needs, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash
from safevid_core.taxonomy.taxonomy import Scenes, load_scenes

_COLUMNS = (
    "clip_id", "source_id", "media_sha256", "start_s", "end_s", "scene_hint", "twin_group",
)  # fmt: skip


def plan_scene_assignments(tools: Tools, partition: str) -> Plan:
    """Plan to embed every clip and assign it to the scene with the nearest prompts.

    A scene that the manifest names is taken as it is. The margin is the lead of the best scene over the
    second in cosine. A clip with a margin below `corpus.scene_margin` is `undecidable`. A clip with a margin
    below `corpus.low_margin` is flagged.
    """
    settings, lake = tools.settings, tools.lake
    clips = lake.read(CLIP_MANIFEST).select(_COLUMNS)
    scenes = load_scenes(settings)
    corpus = settings.corpus
    inputs = {
        "clips": frame_hash(clips),
        "embedder": embedder_identity(corpus.embedder),
        "scenes": scenes.hash,
        "thresholds": settings_hash([corpus.scene_margin, corpus.low_margin, corpus.near_copy]),
    }

    def make(clip_ids: Sequence[str]) -> StageRows:
        return _assign(lake, corpus, scenes, clips, inputs["embedder"])

    return Plan(inputs, clips["clip_id"].to_list(), make, needs_rows=True)


def scene_vectors(model: OpenClip, scenes: Scenes) -> np.ndarray:
    """The mean direction of each scene's prompts: unit vectors `[scenes, D]`, in the scenes' order."""
    prompts = [prompt for scene in scenes.scenes for prompt in scene.prompts]
    vectors = model.embed_texts(prompts).reshape(len(scenes.scenes), len(scenes.scenes[0].prompts), -1)
    means = vectors.mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _assign(
    lake: Lake, corpus: CorpusSettings, scenes: Scenes, clips: pl.DataFrame, embedder: str
) -> StageRows:
    rows = clips.to_dicts()
    vectors, failures, computed = clip_vectors(lake, corpus.embedder, rows)
    prompts = scene_vectors(OpenClip(corpus.embedder), scenes) if vectors else np.zeros((0, 0))
    outcomes: list[tuple[str, Outcome, str]] = []
    assigned: list[dict[str, Any]] = []
    for clip in rows:
        clip_id = clip["clip_id"]
        if clip_id in failures:
            outcomes.append((clip_id, "failed", failures[clip_id]))
            continue
        outcome, reason, scene = _decide(clip, vectors[clip_id], prompts, scenes, corpus)
        outcomes.append((clip_id, outcome, reason))
        if outcome == "ok":
            assigned.append({**scene, "scenes_hash": scenes.hash, "embedder": embedder})
    _mark_near_copies(assigned, vectors, corpus.near_copy)
    info = {
        "embedded_now": computed,
        "near_copies": sum(row["near_copy_of"] is not None for row in assigned),
        "low_margin": sum(row["low_margin"] for row in assigned),
        "scenes_found": len({row["scene"] for row in assigned}),
    }
    return StageRows(SCENE_ASSIGNMENTS.frame(assigned), outcomes, info)


def _decide(
    clip: dict[str, Any], vector: ClipVector, prompts: np.ndarray, scenes: Scenes, corpus: CorpusSettings
) -> tuple[Outcome, str, dict[str, Any]]:
    """A clip's outcome, reason and row."""
    hint = clip["scene_hint"]
    cosines = prompts @ vector.embedding
    if hint is not None and hint not in scenes.ids:
        known = ", ".join(scenes.ids)
        return "failed", f"scene {hint!r} in the manifest is not one of: {known}; fix the line", {}
    best = scenes.ids.index(hint) if hint is not None else int(np.argmax(cosines))
    # If there is only one scene, the second scene counts as having the least possible cosine, -1.
    margin = float(cosines[best] - np.delete(cosines, best).max(initial=-1.0))
    if hint is None and margin < corpus.scene_margin:
        second = scenes.ids[int(np.argsort(-cosines, kind="stable")[1])]
        lead = f"{scenes.ids[best]} leads {second} by {margin:.3f}"
        return "undecidable", f"{lead}; corpus.scene_margin is {corpus.scene_margin:g}", {}
    row = {
        "clip_id": clip["clip_id"],
        "source_id": clip["source_id"],
        "twin_group": clip["twin_group"],
        "scene": scenes.ids[best],
        "scene_score": float(cosines[best]),
        "scene_margin": margin,
        "low_margin": hint is None and margin < corpus.low_margin,
        "embedding": vector.embedding.tolist(),
    }
    return "ok", "", row


def _mark_near_copies(rows: list[dict[str, Any]], vectors: dict[str, ClipVector], min_cosine: float) -> None:
    if not rows:
        return
    ids = [row["clip_id"] for row in rows]
    embeddings = np.stack([vectors[each].embedding for each in ids])
    thumbnails = np.stack([vectors[each].thumbnails for each in ids])
    pairs = near_copy_pairs(embeddings, thumbnails, min_cosine)
    copies = copies_of(ids, pairs, {row["clip_id"]: row["twin_group"] for row in rows})
    near: dict[str, list[str]] = {clip_id: [] for clip_id in ids}
    for i, j in pairs:
        near[ids[i]].append(ids[j])
        near[ids[j]].append(ids[i])
    for row in rows:
        row["near_copy_of"] = copies.get(row["clip_id"])
        row["near_copies"] = sorted(near[row["clip_id"]])


STAGE = Stage(
    SCENE_ASSIGNMENTS,
    "corpus",
    "The scene of each clip by a video-text embedding, with the margin, and its near-duplicates.",
    plan_scene_assignments,
    reads=("clip_manifest",),
    watches=lambda settings: embedder_files(settings.corpus.embedder),
    needs=Needs(("polars", "pytorch")),
)
