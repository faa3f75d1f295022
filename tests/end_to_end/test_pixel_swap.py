"""Exchange only the pixels within twin pairs: descriptions, answers and verdicts must follow them.

The checkpoints are frozen, the seed was never seen, and names, sidecars and queries stay as they were.
If anything but the pixels told the hazardous twin from the harmless one, this is where it shows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    BENCHMARK_SCORES,
    CLIP_MANIFEST,
    DESCRIPTIONS,
    DPO_CHECKPOINT,
    SAFEVIDBENCH_BASE,
)
from safevid_core.models.llm import Gateway
from safevid_core.pocket.sealed import sealed_path
from safevid_core.pocket.sources import render_pocket_sources
from safevid_core.pocket.world import EVENTS
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.taxonomy import load_scenes
from tests.evaluation.small_lake import draw_base
from tests.stages import run_stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BENCHMARK = SAFEVIDBENCH_BASE.name
SYSTEM = "pocket@1"


class World:
    """One root: clips rendered from the unseen seed, described by the frozen checkpoints."""

    def __init__(self, root: Path, trained: Lake, *, swapped: bool) -> None:
        self.settings = unseen_settings(root)
        self.lake = Lake(root, "pocket")
        self.gateway = Gateway(self.settings)
        for below in ("blobs/checkpoints", f"tables/{DPO_CHECKPOINT.name}"):
            shutil.copytree(trained.root / below, root / below)
        render_pocket_sources(self.settings, swap_twin_pixels=swapped)
        self.describe()
        truth = json.loads(sealed_path(root).read_text())
        clips = self.lake.read(CLIP_MANIFEST)
        self.event = {
            row["clip_id"]: truth[row["media_sha256"]]["event"] for row in clips.iter_rows(named=True)
        }

    def describe(self) -> None:
        for stage in ("clip_manifest", "scene_assignments", "corpus_split"):
            run_stage(self.settings, self.lake, stage)
        for scene in (scene.id for scene in load_scenes().scenes):
            run_stage(self.settings, self.lake, "video_corpus", scene)
            for describer in self.settings.descriptions.describers:
                run_stage(self.settings, self.lake, f"{describer}_descriptions", scene, self.gateway)
            run_stage(self.settings, self.lake, "signal_descriptions", scene)
            run_stage(self.settings, self.lake, "descriptions", scene, self.gateway)

    def ask(self) -> pl.DataFrame:
        """The verdicts on twin questions, one row an answer, with whether the description is right."""
        run_stage(self.settings, self.lake, "benchmark_responses", f"{SYSTEM}|{BENCHMARK}", self.gateway)
        run_stage(self.settings, self.lake, "benchmark_scores", f"{SYSTEM}|{BENCHMARK}", self.gateway)
        texts = dict(self.lake.read(DESCRIPTIONS).select("clip_id", "text").iter_rows())
        scores = self.lake.read(BENCHMARK_SCORES, f"{SYSTEM}|{BENCHMARK}").filter(
            (pl.col("seed") == 0) & (pl.col("variant") == "right") & pl.col("twin_group").is_not_null()
        )
        scores = scores.filter(pl.col("style") == "implicit")
        described = [says_event(texts.get(clip, ""), self.event[clip]) for clip in scores["clip_id"]]
        return scores.with_columns(pl.Series("described", described, pl.Boolean))


def unseen_settings(root: Path) -> Settings:
    return load_settings(
        "pocket",
        overrides={
            "root": str(root),
            "seed": 977,
            "corpus": {
                "sources": [{"kind": "pocket", "clips_per_scene": 6, "twin_groups_per_scene": 3}],
                "benchmark_fraction": 0.99,
            },
            "evaluation": {"modality_items": 0, "max_items": 1000},
        },
    )


def says_event(text: str, event: str) -> bool:
    """Whether the description names this event and no other."""
    named = {name for name, phrase in EVENTS.items() if phrase in text.lower()}
    return named == {event}


def ask_the_same(before: World, after: World) -> None:
    """Give `after` the items of `before`: only where a clip's bytes lie, and what they are, differs."""
    names = before.lake.read(CLIP_MANIFEST).select("clip_id", "file_name")
    media = after.lake.read(CLIP_MANIFEST).select("file_name", "clip_id", "media_sha256")
    items = before.lake.read(SAFEVIDBENCH_BASE).drop("media_sha256").join(names, on="clip_id")
    items = items.drop("clip_id").join(media, on="file_name")
    plans = items["plan_id"].unique().to_list()
    stage = StageRows(items, [(plan, "ok", "") for plan in plans])
    after.lake.commit(SAFEVIDBENCH_BASE, "all", stage, "the same questions", {})


def pairs_right(verdicts: pl.DataFrame) -> set[tuple[str, str]]:
    """Twin pairs (group and query) in which both clips are described and answered rightly."""
    whole = verdicts.group_by("twin_group", "query").agg(
        pl.col("clip_id").n_unique() == 2,
        pl.col("expected").n_unique().alias("kinds"),
        (pl.col("success") & pl.col("described")).all().alias("right"),
    )
    right = whole.filter(pl.col("clip_id") & (pl.col("kinds") == 2) & pl.col("right"))
    return set(right.select("twin_group", "query").iter_rows())


def test_everything_follows_the_pixels(demo_root: Path, tmp_path: Path) -> None:
    trained = Lake(demo_root, "pocket")
    before = World(tmp_path / "before", trained, swapped=False)
    after = World(tmp_path / "after", trained, swapped=True)
    draw_base(before.settings, before.lake, before.gateway)
    ask_the_same(before, after)
    verdicts_before, verdicts_after = before.ask(), after.ask()
    expected = dict(verdicts_before.select("item_id", "expected").iter_rows())
    exchanged = [
        expected[item] != now for item, now in verdicts_after.select("item_id", "expected").iter_rows()
    ]
    assert all(exchanged), "each item's hazard must have moved to its twin"
    right_before = pairs_right(verdicts_before)
    assert len(right_before) >= 50
    followed = right_before & pairs_right(verdicts_after)
    assert len(followed) / len(right_before) >= 0.8, f"{len(followed)} of {len(right_before)} pairs followed"
