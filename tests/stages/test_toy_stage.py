"""A stage of ten lines, in a module that the settings name, appears wherever the method is told of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safevid_core.estimates import estimate
from safevid_core.pipeline import build_registry
from safevid_core.reporting.flow import read_flow
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.taxonomy import load_scenes
from safevid_dagster.defs.automation import first_to_make
from tests.stages import commit_empty, run_stage, tools_of

PROJECT = Path(__file__).parents[2]

STAGE = """
import polars as pl
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import DESCRIPTIONS, Table
from safevid_core.estimates import BUDGET
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Forecast, Plan, Questions, Stage
from safevid_core.storage.lake import frame_hash

TABLE = Table("word_counts", "clip_id", "clip_id", pl.Schema({"clip_id": pl.String, "words": pl.Int64}))

def plan(tools, scene):
    texts = tools.lake.read(DESCRIPTIONS, scene).select("clip_id", "text").sort("clip_id")
    def make(clip_ids):
        rows = [{"clip_id": clip, "words": len(text.split())} for clip, text in texts.iter_rows()]
        return StageRows(TABLE.frame(rows), sequence_outcomes(clip_ids, "ok"))
    asked = Questions(tools.settings.descriptions.reconciler, texts.height)
    return Plan({"texts": frame_hash(texts)}, texts["clip_id"].to_list(), make, (asked,))

def forecast(tools, scene, rows):
    clips = rows("descriptions", scene)
    return Forecast(clips, (Questions(tools.settings.descriptions.reconciler, clips),))

STAGES = (Stage(TABLE, "audits", "Words of each description.", plan, ("descriptions",), partitions=BY_SCENE,
                forecast=forecast, asks=True, gates=(BUDGET,)),)
"""

LOAD = """
import json
import dagster as dg
from safevid_dagster.definitions import defs
repository = defs().get_repository_def()
node = repository.asset_graph.get(dg.AssetKey("word_counts"))
job = repository.get_job("refresh_scene")
print(json.dumps({
    "reads": [key.to_user_string() for key in node.parent_keys],
    "scenes": len(node.partitions_def.get_partition_keys()),
    "says": node.description,
    "refreshed": "word_counts" in {
        key.to_user_string() for key in job.asset_layer.executable_asset_keys
    },
}))
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    (tmp_path / "word_counting.py").write_text(STAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield load_settings("pocket", overrides={"root": str(tmp_path / "root"), "stages": ["word_counting"]})
    sys.modules.pop("word_counting", None)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.root, "pocket")


def test_the_demo_makes_it_after_what_it_reads(settings: Settings) -> None:
    flow = {stage.name: partitions for stage, partitions in build_registry(settings).flow(settings)}
    names = list(flow)
    assert flow["word_counts"] == list(load_scenes().ids)
    assert names.index("descriptions") < names.index("word_counts") < names.index("scorecard")


def test_dagster_has_an_asset_of_it(settings: Settings, tmp_path: Path) -> None:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(tmp_path)]),
        "SAFEVID_STAGES": '["word_counting"]',
        "SAFEVID_ROOT": str(settings.root),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "reads": ["descriptions"],
        "scenes": 30,
        "says": "Words of each description.",
        "refreshed": True,
    }


def test_estimates_count_its_questions(settings: Settings, lake: Lake) -> None:
    (row,) = estimate(Planner(tools_of(settings, lake)), ["word_counts"], ["sky"])
    model = settings.descriptions.reconciler.model
    assert (row.asset, row.model, row.cost_usd) == ("word_counts", model, 0.0)
    assert 0 < row.calls < row.planned


def test_the_scorecard_tells_of_it_among_the_audits(settings: Settings, lake: Lake) -> None:
    commit_empty(lake, ["descriptions"], ["sky"])
    run_stage(settings, lake, "word_counts", "sky")
    registry = build_registry(settings)
    assert "word_counts" in registry["scorecard"].reads
    phases = {stage.asset: stage.phase for stage in read_flow(lake, registry).stages}
    assert phases == {"descriptions": "Descriptions", "word_counts": "Audits"}


def test_the_sensor_asks_for_a_scene_that_lacks_it_alone(settings: Settings, lake: Lake) -> None:
    commit_empty(lake, ["clip_manifest", "scene_assignments", "corpus_split"], ["all"])
    registry = build_registry(settings)
    chain = [stage.name for stage, _ in registry.flow(settings) if stage.partitions.axes == ("scene",)]
    for name in chain:
        if name != "word_counts":
            run_stage(settings, lake, name, "sky")
    found = first_to_make(Planner(tools_of(settings, lake)), "sky")
    assert found is not None
    assert str(found) == "word_counts[sky] is to be made"
    run_stage(settings, lake, "word_counts", "sky")
    assert first_to_make(Planner(tools_of(settings, lake)), "sky") is None


def test_a_change_of_its_module_makes_its_marks_void(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    from safevid_core.stages import planner as planner_module

    build_registry(settings)
    code_text = planner_module._code_text.__wrapped__
    before = code_text(("word_counting",))
    (tmp_path / "word_counting.py").write_text(STAGE + "\n# Counts as before.\n")
    assert code_text(("word_counting",)) != before
