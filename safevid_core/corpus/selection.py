"""Selects the video corpus: the clips of each scene nearest to its centroid, up to a quota (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import CLIP_MANIFEST, CORPUS_SPLIT, SCENE_ASSIGNMENTS, VIDEO_CORPUS
from safevid_core.settings import Settings
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, LakeError, frame_hash, settings_hash
from safevid_core.taxonomy.entries import TaxonomyError
from safevid_core.taxonomy.taxonomy import Scenes, load_scenes

_FROM_MANIFEST = (
    "clip_id", "media_sha256", "start_s", "end_s", "duration_s", "fps", "width", "height", "origin",
    "file_name", "licence", "use",
)  # fmt: skip
# The split of a clip that is described and reported on, and is in neither the training data nor a benchmark.
DESCRIBED = "described"


def plan_video_corpus(tools: Tools, scene: str) -> Plan:
    """Plan to select one scene's clips.

    Near-duplicates are left out. Clips nearer to the centroid come first. A twin group is selected whole or
    not at all.

    Raises:
        KeyError: If `scene` is not a scene of the settings.
        TaxonomyError: If the lake holds the corpus of a scene that the settings no longer have.
    """
    _refuse_lost_scenes(tools.lake, load_scenes(tools.settings))
    quota = _quota(tools.settings, scene)
    clips = _clips_of(tools.lake, scene)

    def make(clip_ids: Sequence[str]) -> StageRows:
        return _select(clips, quota)

    return Plan(_inputs(clips, quota), clips["clip_id"].to_list(), make)


def expected_clips(tools: Tools, scene: str) -> tuple[int, int]:
    """The number of clips of a scene's corpus, and the number of training clips among them.

    The numbers are exact if the corpus is committed. Otherwise they are upper bounds: the quota, and the
    number of clips assigned to the scene if that is known.
    """
    if tools.lake.manifest(VIDEO_CORPUS.name, scene) is not None:
        splits = tools.lake.scan(VIDEO_CORPUS, [scene]).select("split").collect()["split"]
        return splits.len(), int((splits == "train").sum())
    clips = _quota(tools.settings, scene)
    if tools.lake.manifest(SCENE_ASSIGNMENTS.name) is not None:
        clips = min(clips, _assigned(tools.lake, scene).select(pl.len()).collect().item())
    return clips, round((1 - tools.settings.corpus.benchmark_fraction) * clips)


STAGE = Stage(
    VIDEO_CORPUS,
    "corpus",
    "The clips nearest to each scene's centroid, near-duplicates removed first.",
    plan_video_corpus,
    reads=("clip_manifest", "scene_assignments", "corpus_split"),
    partitions=BY_SCENE,
    forecast=lambda tools, scene, rows: Forecast(expected_clips(tools, scene)[0]),
)


def _refuse_lost_scenes(lake: Lake, scenes: Scenes) -> None:
    """Raise an error if the lake holds a scene that the settings no longer have.

    Later stages read all committed scenes, so its rows would be in every release.
    """
    lost = [scene for scene in lake.partitions(VIDEO_CORPUS.name) if scene not in scenes.ids]
    if lost:
        raise TaxonomyError(
            f"the lake holds video_corpus of {', '.join(sorted(lost)[:3])}, which the scenes (version "
            f"{scenes.version}) do not have; put the scene back, or set `root` to another folder"
        )


def _quota(settings: Settings, scene: str) -> int:
    scenes = load_scenes(settings)
    return scene_quotas(settings.corpus.target_clips, scenes.ids)[scenes[scene].id]


def _inputs(clips: pl.DataFrame, quota: int) -> dict[str, str]:
    return {"clips": frame_hash(clips), "quota": settings_hash(quota)}


def scene_quotas(total: int, scenes: Sequence[str]) -> dict[str, int]:
    """Scene -> its share of `total`. The first scenes get one more if the shares are not equal."""
    share, left = divmod(total, len(scenes))
    return {scene: share + (place < left) for place, scene in enumerate(scenes)}


def _assigned(lake: Lake, scene: str) -> pl.LazyFrame:
    return lake.scan(SCENE_ASSIGNMENTS).filter(pl.col("scene") == scene)


def _clips_of(lake: Lake, scene: str) -> pl.DataFrame:
    """The scene's assigned clips in the order of clip id, with the columns that the selection needs.

    Raises:
        LakeError: If `corpus_split` is of an earlier version.
    """
    wanted = ("clip_id", "source_id", "scene", "twin_group", "low_margin", "embedding")
    split = lake.scan(CORPUS_SPLIT)
    if "near_copy_of" not in split.collect_schema().names():
        raise LakeError("corpus_split is of an earlier version; materialise it again first")
    aside = lake.outcomes(CORPUS_SPLIT.name).lazy().filter(pl.col("outcome") == "filtered")
    return (
        _assigned(lake, scene)
        .select(wanted)
        .join(split.select("clip_id", "split", "near_copy_of"), on="clip_id", how="left")
        .join(aside.select(clip_id="input_id", set_aside="reason"), on="clip_id", how="left")
        .join(lake.scan(CLIP_MANIFEST).select(_FROM_MANIFEST), on="clip_id", how="left")
        .sort("clip_id")
        .collect()
    )


def _select(clips: pl.DataFrame, quota: int) -> StageRows:
    outcomes: list[tuple[str, Outcome, str]] = []
    clips = clips.with_columns(
        why_not=pl.coalesce("set_aside", pl.format("near-duplicate of {}", "near_copy_of")),
        stale=pl.when(pl.col("split").is_null())
        .then(pl.lit(CORPUS_SPLIT.name))
        .when(pl.col("media_sha256").is_null())
        .then(pl.lit(CLIP_MANIFEST.name)),
    )
    for clip_id, why_not, stale in clips.select("clip_id", "why_not", "stale").iter_rows():
        if why_not is not None:
            outcomes.append((clip_id, "filtered", why_not))
        elif stale is not None:
            outcomes.append((clip_id, "failed", f"not in {stale}; make {stale} again"))
    usable = clips.filter(pl.col("why_not").is_null() & pl.col("stale").is_null())
    is_described = pl.col("use").eq_missing("describe")
    eligible = usable.filter(~is_described)
    described = usable.filter(is_described).with_columns(split=pl.lit(DESCRIBED))
    clips = pl.concat([eligible, described])
    clips = clips.with_columns(centroid_cosine=_cosines_to_centroid(clips["embedding"], eligible.height))
    cosines = dict(clips.select("clip_id", "centroid_cosine").iter_rows())
    twins = dict(eligible.select("clip_id", "twin_group").iter_rows())
    chosen = [*_choose(twins, cosines, quota), *described["clip_id"]]
    ranks = pl.DataFrame({"clip_id": chosen}, {"clip_id": pl.String}).with_row_index("rank", offset=1)
    rows = clips.join(ranks, on="clip_id").select(VIDEO_CORPUS.schema.names()).cast(VIDEO_CORPUS.schema)
    kept = set(chosen)
    outcomes += [
        (clip_id, "ok", "") if clip_id in kept else (clip_id, "filtered", "beyond the scene's quota")
        for clip_id in clips["clip_id"]
    ]
    info = {
        "quota": quota,
        "eligible": eligible.height,
        "selected": rows.height - described.height,
        "described_only": described.height,
    }
    return StageRows(rows, outcomes, info)


def _cosines_to_centroid(embeddings: pl.Series, of: int) -> pl.Series:
    """The cosine of each embedding to the mean of the first `of` embeddings, or of all if `of` is 0.

    The cosine is rounded to 6 decimals, so that equal clips have equal values.
    """
    if embeddings.is_empty():
        return pl.Series(dtype=pl.Float64)
    vectors = np.array(embeddings.to_list(), dtype=np.float64)
    centroid = vectors[: of or None].mean(axis=0)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(centroid)
    return pl.Series(np.round(vectors @ centroid / np.maximum(norms, 1e-12), 6))


def _choose(twins: Mapping[str, str | None], cosines: Mapping[str, float], quota: int) -> list[str]:
    """The selected clip ids, nearest first. A twin group has the place of its nearest member.

    Args:
        twins: Clip -> its twin group.
    """
    units: dict[str, list[str]] = {}
    for clip_id, group in twins.items():
        units.setdefault(f"clip {clip_id}" if group is None else f"twins {group}", []).append(clip_id)
    ordered = [sorted(unit, key=lambda each: (-cosines[each], each)) for unit in units.values()]
    chosen: list[str] = []
    for unit in sorted(ordered, key=lambda unit: (-cosines[unit[0]], unit[0])):
        if len(chosen) + len(unit) <= quota:
            chosen += unit
    return chosen
