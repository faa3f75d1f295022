"""The sensor asks for a scene as long as anything of it is not current and no run makes it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from safevid_core.pipeline import build_registry
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.storage.lake import Lake
from safevid_dagster.defs import automation
from safevid_dagster.defs.automation import ToMake, changed_scenes_sensor, first_to_make, refresh_scene
from tests.corpus.conftest import embedder_folder  # noqa: F401
from tests.corpus.pictures import moving_picture
from tests.living_runs import make_home
from tests.stages import run_stage, tools_of
from tests.video.clips_for_tests import write_video

Ended = dg.DagsterRunStatus


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(make_home(tmp_path / "dagster"))) as made:
        yield made


@pytest.fixture
def settings(
    tmp_path: Path,
    embedder_folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """Settings by the environment with one source; of the scenes, `park` and `desert` are looked at only."""
    write_video(tmp_path / "clips" / "0.mp4", moving_picture(0))
    write_video(tmp_path / "clips" / "1.mp4", moving_picture(1))
    monkeypatch.delenv("SAFEVID_CLIPS", raising=False)
    monkeypatch.setenv("SAFEVID_ROOT", str(tmp_path / "root"))
    corpus = {
        "sources": [{"kind": "manifest", "path": str(tmp_path / "clips" / "manifest.jsonl")}],
        "embedder": {"model": str(embedder_folder), "frames": 4},
        "min_seconds": 0.2,
        "own_clips": "method",
    }
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"corpus": corpus}))
    monkeypatch.setenv("SAFEVID_SETTINGS", str(file))
    monkeypatch.setattr(automation, "SCENES", dg.StaticPartitionsDefinition(["park", "desert"]))
    return load_settings()


@pytest.fixture
def clips(settings: Settings, tmp_path: Path) -> Callable[..., None]:
    """Makes `park` of some of the two clips."""

    def set_to(*names: str) -> None:
        lines = [json.dumps({"file": f"{name}.mp4", "scene": "park"}) + "\n" for name in names]
        (tmp_path / "clips" / "manifest.jsonl").write_text("".join(lines))
        lake = Lake(settings.root, settings.profile)
        for name in ("clip_manifest", "scene_assignments", "corpus_split"):
            run_stage(settings, lake, name)

    return set_to


def asked(instance: dg.DagsterInstance) -> tuple[dict[str, dg.RunRequest], str]:
    """What the sensor asks for by scene, and why it skips."""
    from safevid_dagster.defs.resources import SafeVid

    context = dg.build_sensor_context(instance=instance, resources={"safevid": SafeVid()})
    result: Any = changed_scenes_sensor(context)
    requests = {request.partition_key: request for request in result.run_requests or []}
    return requests, "" if result.skip_reason is None else result.skip_reason.skip_message


def launched(instance: dg.DagsterInstance, request: dg.RunRequest, *events: str) -> dg.DagsterRun:
    """The request's run, as the sensor daemon makes it, after some events."""

    @dg.job(name=refresh_scene.name)
    def job() -> None: ...

    tags = {**request.tags, "dagster/run_key": str(request.run_key), "dagster/partition": "park"}
    run = instance.create_run_for_job(job, tags=tags)
    for event in events:
        made = dg.DagsterEvent(event_type_value=f"PIPELINE_{event}", job_name=job.name)
        instance.report_dagster_event(made, run.run_id)
    return run


def chain(settings: Settings) -> list[str]:
    """The tables of a scene that the flow of the settings makes, in order."""
    flow = build_registry(settings).flow(settings)
    return [stage.name for stage, _ in flow if stage.partitions.axes == ("scene",)]


def make_whole(settings: Settings, scene: str) -> None:
    lake = Lake(settings.root, settings.profile)
    for name in chain(settings):
        run_stage(settings, lake, name, scene)


def found_in(settings: Settings, scene: str) -> ToMake | None:
    return first_to_make(Planner(tools_of(settings, Lake(settings.root, settings.profile))), scene)


def test_nothing_is_asked_for_before_there_are_sources(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert asked(instance) == ({}, "corpus_split is not made yet; run the job refresh_sources first")


def test_a_scene_is_asked_for_until_its_last_table_is_current(
    settings: Settings, instance: dg.DagsterInstance, clips: Callable[..., None]
) -> None:
    clips("0")
    lake, names = Lake(settings.root, settings.profile), chain(settings)
    assert names[0] == "video_corpus"
    assert {"descriptions", "taxonomy_queries", "safevid_350k_pairs"} <= set(names)
    keys = set()
    for name in names:
        found = found_in(settings, "desert")
        assert found is not None
        assert found.stage.name == name
        keys.add(asked(instance)[0]["desert"].run_key)
        run_stage(settings, lake, name, "desert")
    assert len(keys) == len(names)
    assert found_in(settings, "desert") is None
    assert "desert" not in asked(instance)[0]


def test_current_scenes_are_skipped_with_a_reason(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, clips: Any
) -> None:
    clips("0")
    monkeypatch.setattr(automation, "SCENES", dg.StaticPartitionsDefinition(["desert"]))
    make_whole(settings, "desert")
    assert asked(instance) == ({}, "1 scenes are current")


def test_two_evaluations_at_once_share_their_keys(instance: dg.DagsterInstance, clips: Any) -> None:
    clips("0")
    first, second = asked(instance)[0], asked(instance)[0]
    assert {r.run_key for r in first.values()} == {r.run_key for r in second.values()}


@pytest.mark.parametrize("events", [(), ("START",), ("START", "CANCELING")])
def test_no_second_run_while_one_is_under_way(
    instance: dg.DagsterInstance, clips: Any, events: tuple[str, ...], settings: Settings
) -> None:
    clips("0")
    make_whole(settings, "desert")
    run = launched(instance, asked(instance)[0]["park"], *events)
    assert asked(instance) == ({}, f"1 scenes are current; park: run {run.run_id} is under way")


def test_a_run_over_a_range_of_scenes_is_under_way_for_each(instance: dg.DagsterInstance, clips: Any) -> None:
    clips("0")

    @dg.job
    def backfill() -> None: ...

    span = {automation.FIRST: "park", automation.LAST: "desert"}
    instance.create_run_for_job(backfill, tags=span)
    requests, why = asked(instance)
    assert requests == {}
    assert why.count("is under way") == 2


@pytest.mark.parametrize("end", ["FAILURE", "CANCELED", "SUCCESS"])
def test_a_scene_left_as_it_was_is_asked_for_again_and_then_less_often(
    instance: dg.DagsterInstance, clips: Any, settings: Settings, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips("0")
    make_whole(settings, "desert")
    # Half done: its corpus is there, its descriptions are not.
    run_stage(settings, Lake(settings.root, settings.profile), "video_corpus", "park")
    first = asked(instance)[0]["park"]
    assert found_in(settings, "park") is not None
    launched(instance, first, "START", end)
    second = asked(instance)[0]["park"]
    assert second.run_key != first.run_key
    last = launched(instance, second, "START", end)
    if end == "SUCCESS":
        return  # the table is not there at all: asked for at once
    requests, why = asked(instance)
    assert requests == {}
    assert f"two runs left it so, the last of them {last.run_id} ({end}); asked again in 30 min" in why
    later = time.time() + 30 * 60 + 1
    monkeypatch.setattr(automation.time, "time", lambda: later)
    third = asked(instance)[0]["park"]
    assert third.run_key not in {first.run_key, second.run_key}
    monkeypatch.undo()


def test_inputs_that_change_or_return_are_asked_for_at_once(instance: dg.DagsterInstance, clips: Any) -> None:
    keys = []
    for names in (["0"], ["0", "1"], ["0"], ["0", "1"]):
        clips(*names)
        request = asked(instance)[0]["park"]
        keys.append(request.run_key)
        launched(instance, request, "START", "SUCCESS")
    assert len(set(keys)) == 4


def test_a_killed_run_is_not_under_way_for_ever(
    instance: dg.DagsterInstance, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips("0")
    run = launched(instance, asked(instance)[0]["park"], "START")
    assert "park" not in asked(instance)[0]
    later = time.time() + 3600
    monkeypatch.setattr(automation.time, "time", lambda: later)
    assert "park" in asked(instance)[0]
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == Ended.FAILURE


def test_the_job_makes_the_whole_chain() -> None:
    from safevid_dagster.definitions import defs

    made = {
        key.to_user_string() for key in defs().get_job_def("refresh_scene").asset_layer.executable_asset_keys
    }
    assert set(chain(load_settings("pocket"))) <= made
