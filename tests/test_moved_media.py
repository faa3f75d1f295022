"""A lake or clips that were moved: nothing is made again, and every place that is shown is the new one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from safevid_core.alignment.job import with_places
from safevid_core.audits.description_review import hand_out
from safevid_core.audits.description_sample import draw_sample
from safevid_core.contracts.errors import READ_AGAIN
from safevid_core.contracts.tables import (
    CLIP_MANIFEST,
    DESCRIPTIONS,
    PAIRS,
    RELEASE,
    SIGNAL_DESCRIPTIONS,
    VIDEO_CORPUS,
    VIDEO_REPORT,
)
from safevid_core.datasets.release_folder import read_pairs
from safevid_core.execution.local import LocalRunner
from safevid_core.models.llm import Gateway
from safevid_core.pipeline import build_registry
from safevid_core.pocket.clips import generate_clips
from safevid_core.pocket.sealed import sealed_path
from safevid_core.reporting.videos import REPORT
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Stage, Tools
from safevid_core.storage.lake import Lake
from tests.stages import run_stage

SCENE = "kitchen"


def settings_of(root: Path, clips: Path) -> Settings:
    corpus = {
        "sources": [{"kind": "manifest", "path": str(clips / "manifest.jsonl")}],
        "own_clips": "method",
        "benchmark_fraction": 0.05,
    }
    return load_settings("pocket", overrides={"root": str(root), "corpus": corpus})


def planner_of(settings: Settings) -> Planner:
    """What a run of these settings plans with; it plans nothing that it finds marked."""
    lake = Lake(settings.root, settings.profile)
    return Planner(Tools(settings, lake, build_registry(settings), lambda: Gateway(settings)))


def partitions_of(settings: Settings) -> list[tuple[Stage, str]]:
    """Of the flow: the partitions up to the release and the video report, of one scene."""
    registry = build_registry(settings)
    last = [RELEASE.name, VIDEO_REPORT.name]
    flow = {stage.name for stage, _ in registry.flow(settings)}
    names = [stage.name for stage in registry.upstream(last) if stage.name in flow]
    chosen = registry.select([*names, *last], settings, [SCENE])
    return [(stage, partition) for stage, partitions in chosen for partition in partitions]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `root`, a lake made up to its release and video report, and the `clips` that it is of."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SAFEVID_CLIPS", raising=False)
        generate_clips(
            home / "clips", sealed_path(home), seed=5, scenes=[SCENE], clips_per_scene=4,
            twin_groups_per_scene=1,
        )  # fmt: skip
        settings = settings_of(home / "root", home / "clips")
        planner = planner_of(settings)
        with LocalRunner(planner) as runner:
            for stage, partition in partitions_of(settings):
                assert runner.make(stage, [partition]).lines() == []
        assert planner.tools.lake.read(PAIRS).height >= 2
        hand_out(settings, draw_sample(settings, planner.tools.lake))
        yield home


@pytest.fixture(params=["lake", "clips", "both"])
def moved(request: pytest.FixtureRequest, made: Path, tmp_path: Path) -> Iterator[Settings]:
    """The settings after the lake, the clips or both were moved."""
    places = {"root": made / "root", "clips": made / "clips"}
    before = dict(places)
    for name in {"lake": ["root"], "clips": ["clips"], "both": ["root", "clips"]}[request.param]:
        places[name] = tmp_path / "another place" / name
        places[name].parent.mkdir(exist_ok=True)
        shutil.move(before[name], places[name])
    yield settings_of(places["root"], places["clips"])
    for name, place in before.items():
        if places[name] != place:
            shutil.move(places[name], place)


def test_nothing_is_made_again_and_no_file_is_read_again(moved: Settings) -> None:
    for _ in range(2):  # the first look records the new places, the second finds nothing to record
        planner = planner_of(moved)
        for stage, partition in partitions_of(moved):
            state = planner.state(stage, partition)
            assert (stage.name, state.condition, state.reason) == (stage.name, "fresh", "")
    again = planner_of(moved)
    for stage, partition in partitions_of(moved):
        assert again.state(stage, partition).condition == "fresh"
        assert not again.is_planned(stage, partition), "marked as fresh where it lies now"
    for table in (CLIP_MANIFEST, VIDEO_CORPUS, DESCRIPTIONS, PAIRS, RELEASE, VIDEO_REPORT):
        assert "path" not in planner.tools.lake.read(table).columns


def test_a_copy_of_lake_and_clips_with_times_of_its_own_is_fresh(made: Path, tmp_path: Path) -> None:
    """As `cp -r` makes it: a copy is the same case as a move."""
    shutil.copytree(made, tmp_path / "home", copy_function=shutil.copyfile)
    for path in (tmp_path / "home" / "clips").rglob("*"):
        os.utime(path, (1, 1))
    settings = settings_of(tmp_path / "home" / "root", tmp_path / "home" / "clips")
    planner = planner_of(settings)
    for stage, partition in partitions_of(settings):
        state = planner.state(stage, partition)
        assert (stage.name, state.condition, state.reason) == (stage.name, "fresh", "")


def test_a_media_index_that_was_deleted_is_made_again(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "home")
    settings = settings_of(tmp_path / "home" / "root", tmp_path / "home" / "clips")
    lake = planner_of(settings).tools.lake
    lake.media.database.unlink()
    stage = build_registry(settings)[CLIP_MANIFEST.name]
    assert planner_of(settings).state(stage, "all").condition == "fresh"
    hashes = lake.read(CLIP_MANIFEST)["media_sha256"].to_list()
    assert set(lake.media.paths(hashes)) == set(hashes)


def test_every_place_that_is_shown_is_the_new_one(moved: Settings, made: Path) -> None:
    lake = Lake(moved.root, moved.profile)
    run_stage(moved, lake, "clip_manifest")
    clips = moved.corpus.sources[0].path
    assert clips is not None
    hashes = lake.read(CLIP_MANIFEST)["media_sha256"].to_list()
    paths = lake.media.paths(hashes)
    assert set(paths) == set(hashes)
    assert all(path.is_relative_to(clips.parent) for path in paths.values())

    sheet = hand_out(moved, draw_sample(moved, lake))
    page = sheet.with_suffix(".html").read_text()
    assert str(clips.parent) in page

    kept = lake.folder(RELEASE.name)
    shutil.copytree(kept, kept.with_name("kept"))
    shutil.rmtree(kept)
    try:
        manifest = run_stage(moved, lake, RELEASE.name).manifest
        back = read_pairs(lake.root / manifest.info["path"])
        assert back.height == manifest.rows
        assert manifest.info["version"] == "1.0.0"
        places = with_places(back, lake.media)["path"]
        assert all(Path(path).is_relative_to(clips.parent) for path in places)
    finally:
        shutil.rmtree(kept)
        shutil.move(kept.with_name("kept"), kept)
    report = lake.local_path("reports", REPORT)
    report.unlink()
    assert not run_stage(moved, lake, VIDEO_REPORT.name).computed
    old = str(made / "clips")
    if not str(clips).startswith(old):
        for text in (page, report.read_text(), back.write_json()):
            assert old not in text


def test_a_clip_that_vanished_ends_its_own_row_and_is_looked_for_again(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "home")
    settings = settings_of(tmp_path / "home" / "root", tmp_path / "home" / "clips")
    lake = Lake(settings.root, settings.profile)
    run_stage(settings, lake, "clip_manifest")
    shutil.rmtree(lake.folder(SIGNAL_DESCRIPTIONS.name, SCENE))
    clips = lake.read(VIDEO_CORPUS, SCENE)
    gone = clips.row(0, named=True)
    for place in (made, tmp_path / "home"):
        file = place / "clips" / "media" / gone["file_name"]
        file.rename(file.with_suffix(".away"))
    try:
        first = run_stage(settings, lake, SIGNAL_DESCRIPTIONS.name, SCENE)
        assert first.manifest.rows == clips.height - 1
        (end,) = lake.outcomes(SIGNAL_DESCRIPTIONS.name, SCENE).filter(outcome="failed").to_dicts()
        assert end["input_id"] == gone["clip_id"]
        assert gone["file_name"] in end["reason"]
        assert "put it back" in end["reason"]
        assert end["reason"].endswith(READ_AGAIN)
        assert lake.read(VIDEO_CORPUS, SCENE).equals(clips)
    finally:
        for place in (made, tmp_path / "home"):
            file = place / "clips" / "media" / gone["file_name"]
            file.with_suffix(".away").rename(file)
    again = run_stage(settings, lake, SIGNAL_DESCRIPTIONS.name, SCENE)
    assert again.computed
    assert again.manifest.rows == clips.height
    assert not run_stage(settings, lake, SIGNAL_DESCRIPTIONS.name, SCENE).computed


def test_a_line_of_another_file_is_another_row(made: Path, tmp_path: Path) -> None:
    """Rows follow the bytes: the same names with other bytes are read, and make the manifest anew."""
    shutil.copytree(made, tmp_path / "home")
    settings = settings_of(tmp_path / "home" / "root", tmp_path / "home" / "clips")
    lake = Lake(settings.root, settings.profile)
    assert not run_stage(settings, lake, "clip_manifest").computed
    lines = (tmp_path / "home" / "clips" / "manifest.jsonl").read_text().splitlines()
    one, two = (tmp_path / "home" / "clips" / json.loads(line)["file"] for line in lines[:2])
    shutil.copy(two, one)
    changed = run_stage(settings, lake, "clip_manifest")
    assert changed.computed
    assert changed.manifest.info["files_read"] == 1
