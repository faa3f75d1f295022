"""The code location: cheap to load, and exactly the assets that are promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.pipeline import build_registry
from safevid_core.taxonomy.taxonomy import load_scenes
from tests.stages import commit_empty

PROJECT = Path(__file__).parents[1]

ASSETS = {
    "pocket_clips", "clip_manifest", "scene_assignments", "corpus_split", "video_corpus",
    "llava_next_video_descriptions", "qwen2_5_vl_descriptions", "internvl2_5_descriptions",
    "signal_descriptions", "descriptions", "taxonomy_queries", "safevid_350k_pairs",
    "safevid_350k_release", "dpo_checkpoint", "safevidbench_base", "benchmark_responses",
    "benchmark_scores", "scorecard", "description_fidelity_audit", "detail_loss_audit", "temporal_audit",
    "taxonomy_drift_audit", "query_robustness_audit", "judge_validation", "vlbreakbench_base",
    "safevidbench_challenge", "promotion_decision", "own_style_answers", "queries_without_descriptions",
    "pairs_without_descriptions", "preference_style_audit", "lossy_descriptions", "lossy_queries",
    "lossy_pairs",
    "vlbreakbench_challenge", "mm_safetybench", "video_safetybench", "strongreject", "xstest",
    "mmbench_video", "video_report", "model_estimate", "model_bill", "query_plan", "lossy_query_plan",
    "query_plan_without_descriptions", "safevidbench_plan", "pair_validation", "pair_allocation",
    "pair_yield", "pair_noise",
}  # fmt: skip
# These make no table.
TABLELESS = {"model_estimate", "model_bill"}

LOAD = """
import json, sys
import dagster as dg
from safevid_dagster.definitions import defs
repository = defs().get_repository_def()
graph = repository.asset_graph
print(json.dumps({
    "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
    "heavy": sorted({"torch", "transformers", "trl", "open_clip", "litellm", "peft"} & set(sys.modules)),
    "scene_partitions": len(graph.get(dg.AssetKey("descriptions")).partitions_def.get_partition_keys()),
    "schedules": {s.name: s.default_status.value for s in repository.schedule_defs},
    "sensors": {s.name: s.default_status.value for s in repository.sensor_defs},
    "jobs": sorted(repository.job_names),
    "blocking": sorted(
        f"{key.asset_key.to_user_string()}:{key.name}"
        for key in graph.asset_check_keys if graph.get(key).blocking
    ),
}))
"""


def load(**environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_graph_is_what_the_architecture_says() -> None:
    found = load()
    assert set(found["assets"]) == ASSETS
    assert found["heavy"] == []
    assert found["scene_partitions"] == 30
    assert found["schedules"] == {"weekly_refresh": "STOPPED"}
    assert found["sensors"]["changed_scenes"] == "STOPPED"
    conserved = {name.split(":")[0] for name in found["blocking"] if name.endswith("accounted_for")}
    assert conserved == ASSETS - TABLELESS
    assert "safevidbench_base:train_and_benchmark_never_meet" in found["blocking"]
    refusing = {
        name.split(":")[0] for name in found["blocking"] if name.endswith("no_subcategory_is_refused")
    }
    assert refusing == {
        "query_plan", "query_plan_without_descriptions", "lossy_query_plan",
        "taxonomy_queries", "queries_without_descriptions", "lossy_queries",
        "safevid_350k_pairs", "pairs_without_descriptions", "lossy_pairs",
    }  # fmt: skip
    assert "safevid_350k_release:every_scene_is_there" in found["blocking"]
    compared = {
        name.split(":")[0] for name in found["blocking"] if name.endswith("no_pair_repeats_a_benchmark")
    }
    assert compared == {"safevid_350k_release", "safevidbench_base", "safevidbench_challenge", *OUTSIDE}


def test_the_paper_profile_has_the_same_assets() -> None:
    assert set(load(SAFEVID_PROFILE="paper")["assets"]) == ASSETS


def test_importing_the_core_is_cheap_and_bare() -> None:
    source = (
        "import sys, safevid_core; print([m for m in ('torch', 'dagster', 'polars') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_control_run_of_a_loss_is_made_over_its_own_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    from safevid_core.settings import load_settings
    from safevid_core.storage.lake import Lake
    from safevid_dagster.running import Steps

    monkeypatch.setenv("SAFEVID_ROOT", str(tmp_path))
    control_runs = {"policies": {"short": {"trained_on": "first_sentence"}}}
    settings = load_settings("pocket", overrides={"root": str(tmp_path), "alignment": control_runs})
    lossy = [step for step in build_registry(settings).flow(settings) if step[0].name.startswith("lossy_")]
    names = ["lossy_descriptions", "lossy_query_plan", "lossy_queries", "lossy_pairs"]
    assert [stage.name for stage, _ in lossy] == names
    pocket = load_settings("pocket")
    assert not any(step[0].name.startswith("lossy_") for step in build_registry(pocket).flow(pocket))
    stage, partitions = lossy[0]
    commit_empty(Lake(tmp_path, "pocket"), stage.reads, load_scenes().ids)
    with dg.DagsterInstance.ephemeral() as instance:
        assert Steps(settings, instance).run(stage, partitions).succeeded
    made = Lake(tmp_path, "pocket").partitions("lossy_descriptions")
    assert len(made) == 30
    assert {name.split("|")[0] for name in made} == {"first_sentence"}


def test_systems_at_other_scales_can_be_measured_and_are_in_no_run_of_the_demo() -> None:
    import dagster as dg

    from safevid_dagster.defs.partitions import definition_of, key_of, partition_of, ranges_of, settings

    stage, partitions = next(
        step for step in build_registry(settings).flow(settings) if step[0].name == "benchmark_scores"
    )
    every = definition_of(stage.partitions.axes)
    run = []
    for some in ranges_of(stage, partitions, settings):
        between = dg.PartitionKeyRange(str(key_of(stage, some[0])), str(key_of(stage, some[-1])))
        run += [partition_of(stage, key) for key in every.get_partition_keys_in_range(between)]
    assert sorted(run) == sorted(partitions)
    systems = {stage.partitions.values(name)["system"] for name in stage.partitions.names(settings)}
    assert {"pocket@0.1", "pocket@0.2", "pocket@0.5"} <= systems - set(settings.systems)


def test_queries_wait_for_people_where_the_settings_require_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    from safevid_core.settings import load_settings
    from safevid_core.storage.lake import Lake
    from safevid_dagster.defs.assets import registry
    from safevid_dagster.defs.partitions import SCENES
    from safevid_dagster.running import Steps

    monkeypatch.setenv("SAFEVID_ROOT", str(tmp_path))
    plan, scenes = registry["query_plan"], SCENES.get_partition_keys()
    commit_empty(Lake(tmp_path, "pocket"), ["descriptions"], scenes)
    with dg.DagsterInstance.ephemeral() as instance:
        assert Steps(load_settings(), instance).run(plan, scenes).succeeded
        monkeypatch.setenv("SAFEVID_DESCRIPTIONS__AUDIT__REQUIRED", "true")
        held = Steps(load_settings(), instance).run(plan, scenes)
    assert not held.succeeded
    assert "query_plan: there is no description to write queries from" in held.text
    assert "audit.required" not in held.text, "no advice to switch off the gate where nothing was described"
