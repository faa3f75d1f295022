"""Descriptions, plans and the query stages for tests of queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import DESCRIPTIONS, QUERY_PLAN
from safevid_core.execution.local import StageReport
from safevid_core.models.llm import Gateway
from safevid_core.pocket.clips import plan_clips
from safevid_core.pocket.world import EVENTS, ClipTruth
from safevid_core.queries.cells import CLIP_COLUMNS, Phrasing, PlanCell
from safevid_core.queries.plan import plan_cells_of
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.taxonomy import load_scenes
from tests.stages import run_stage, tools_of


def settings_at(root: Path, *, taxonomy: dict[str, Any] | None = None, **queries: Any) -> Settings:
    """Pocket settings; keywords are query settings."""
    overrides: dict[str, Any] = {"root": str(root), "queries": {"subcategories_per_clip": 6, **queries}}
    if taxonomy is not None:
        overrides["taxonomy"] = taxonomy
    return load_settings("pocket", overrides=overrides)


def text_of(truth: ClipTruth) -> str:
    moves = "stays still" if truth.motion == "still" else f"moves {truth.motion}"
    place = load_scenes()[truth.scene].name
    return f"A {truth.colour} {truth.object} {moves} in {place}. It {EVENTS[truth.event]}."


def described(scenes: tuple[str, ...], seed: int = 0) -> list[dict[str, Any]]:
    """Rows of `descriptions` as exact describers would give them."""
    return [
        {
            "clip_id": clip.name,
            "source_id": clip.source_id,
            "scene": clip.truth.scene,
            "split": "train",
            "twin_group": clip.twin_group,
            "media_sha256": clip.name * 4,
            "start_s": 0.0,
            "end_s": 2.0,
            "text": text_of(clip.truth),
        }
        for clip in plan_clips(seed, scenes)
    ]


def planned(rows: list[dict[str, Any]], settings: Settings, phrasing: Phrasing = "train") -> list[PlanCell]:
    """The plan of some rows of `descriptions`."""
    clips = DESCRIPTIONS.frame(rows).select(CLIP_COLUMNS)
    tools = tools_of(settings, Lake(settings.root, "pocket"), Gateway(settings))
    plan = plan_cells_of(tools, clips, QUERY_PLAN, phrasing)
    made = plan.make(plan.units)
    columns = ("clip_id", "subcategory", "style", "benign", "phrasing", "ground", "mirrored_from")
    return [PlanCell(*row) for row in made.rows.select(columns).iter_rows()]


def commit(lake: Lake, rows: Sequence[dict[str, Any]]) -> None:
    """Commit descriptions, a partition a scene."""
    for scene in {row["scene"] for row in rows}:
        of_scene = [row for row in rows if row["scene"] == scene]
        stage = StageRows(
            DESCRIPTIONS.frame(of_scene), sequence_outcomes([row["clip_id"] for row in of_scene], "ok")
        )
        lake.commit(DESCRIPTIONS, scene, stage, "given", {})


def make_queries(
    settings: Settings, lake: Lake, scene: str = "kitchen", gateway: Gateway | None = None
) -> tuple[StageReport, StageReport]:
    """The plan and the queries of a scene, both after a run."""
    gateway = gateway or Gateway(settings)
    return (
        run_stage(settings, lake, "query_plan", scene, gateway),
        run_stage(settings, lake, "taxonomy_queries", scene, gateway),
    )
