"""Assigns each clip to a scene (section 3.1 of the paper) and finds near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import ClipSpan, rows_of
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


@dataclass(frozen=True, slots=True)
class _Clip(ClipSpan):
    """A clip of the manifest, with the scene that the manifest names."""

    source_id: str | None
    scene_hint: str | None
    twin_group: str | None


@dataclass(frozen=True, slots=True)
class _SceneOf:
    """The scene of a clip: its cosine, the lead over the second scene, and whether the lead is flagged."""

    scene: str
    scene_score: float
    scene_margin: float
    low_margin: bool


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
    rows = rows_of(clips, _Clip)
    vectors, failures, computed = clip_vectors(lake, corpus.embedder, rows)
    prompts = scene_vectors(OpenClip(corpus.embedder), scenes) if vectors else np.zeros((0, 0))
    outcomes: list[tuple[str, Outcome, str]] = []
    assigned: list[tuple[_Clip, _SceneOf]] = []
    for clip in rows:
        if clip.clip_id in failures:
            outcomes.append((clip.clip_id, "failed", failures[clip.clip_id]))
            continue
        found = _decide(clip, vectors[clip.clip_id], prompts, scenes, corpus)
        if isinstance(found, _SceneOf):
            outcomes.append((clip.clip_id, "ok", ""))
            assigned.append((clip, found))
        else:
            outcomes.append((clip.clip_id, *found))
    copies, near = _near_copies([clip for clip, _ in assigned], vectors, corpus.near_copy)
    made = [
        {
            "clip_id": clip.clip_id,
            "source_id": clip.source_id,
            "twin_group": clip.twin_group,
            **asdict(scene),
            "near_copy_of": copies.get(clip.clip_id),
            "near_copies": sorted(near[clip.clip_id]),
            "embedding": vectors[clip.clip_id].embedding.tolist(),
            "embedder": embedder,
            "scenes_hash": scenes.hash,
        }
        for clip, scene in assigned
    ]
    info = {
        "embedded_now": computed,
        "near_copies": len(copies),
        "low_margin": sum(scene.low_margin for _, scene in assigned),
        "scenes_found": len({scene.scene for _, scene in assigned}),
    }
    return StageRows(SCENE_ASSIGNMENTS.frame(made), outcomes, info)


def _decide(
    clip: _Clip, vector: ClipVector, prompts: np.ndarray, scenes: Scenes, corpus: CorpusSettings
) -> _SceneOf | tuple[Outcome, str]:
    """A clip's scene, or the outcome and the reason of a clip that gets none."""
    hint = clip.scene_hint
    cosines = prompts @ vector.embedding
    if hint is not None and hint not in scenes.ids:
        known = ", ".join(scenes.ids)
        return "failed", f"scene {hint!r} in the manifest is not one of: {known}; fix the line"
    best = scenes.ids.index(hint) if hint is not None else int(np.argmax(cosines))
    # If there is only one scene, the second scene counts as having the least possible cosine, -1.
    margin = float(cosines[best] - np.delete(cosines, best).max(initial=-1.0))
    if hint is None and margin < corpus.scene_margin:
        second = scenes.ids[int(np.argsort(-cosines, kind="stable")[1])]
        lead = f"{scenes.ids[best]} leads {second} by {margin:.3f}"
        return "undecidable", f"{lead}; corpus.scene_margin is {corpus.scene_margin:g}"
    low = hint is None and margin < corpus.low_margin
    return _SceneOf(scenes.ids[best], float(cosines[best]), margin, low)


def _near_copies(
    clips: Sequence[_Clip], vectors: Mapping[str, ClipVector], min_cosine: float
) -> tuple[Mapping[str, str], Mapping[str, list[str]]]:
    """Clip -> the first clip of its group of near-duplicates, and clip -> all its near-duplicates."""
    ids = [clip.clip_id for clip in clips]
    near: dict[str, list[str]] = {clip_id: [] for clip_id in ids}
    if not ids:
        return {}, near
    embeddings = np.stack([vectors[each].embedding for each in ids])
    thumbnails = np.stack([vectors[each].thumbnails for each in ids])
    pairs = near_copy_pairs(embeddings, thumbnails, min_cosine)
    for i, j in pairs:
        near[ids[i]].append(ids[j])
        near[ids[j]].append(ids[i])
    return copies_of(ids, pairs, {clip.clip_id: clip.twin_group for clip in clips}), near


STAGE = Stage(
    SCENE_ASSIGNMENTS,
    "corpus",
    "The scene of each clip by a video-text embedding, with the margin, and its near-duplicates.",
    plan_scene_assignments,
    reads=("clip_manifest",),
    watches=lambda settings: embedder_files(settings.corpus.embedder),
    needs=Needs(("polars", "pytorch")),
)
