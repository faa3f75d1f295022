"""A taxonomy and scenes of a person's own: what is made from them, and what is stale when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.rows import rows_of
from safevid_core.contracts.tables import (
    CLIP_MANIFEST,
    CORPUS_SPLIT,
    QUERY_PLAN,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    Table,
)
from safevid_core.corpus.embeddings import ClipVector
from safevid_core.corpus.scene_assignments import _Clip, _decide, _SceneOf
from safevid_core.corpus.selection import scene_quotas
from safevid_core.models.llm import Gateway
from safevid_core.pocket.sources import rendered_scenes
from safevid_core.pocket.world import SCENES
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.partitions import BY_LOSS_AND_SCENE, BY_SCENE
from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.entries import TaxonomyError
from safevid_core.taxonomy.taxonomy import SAFETY_FILE, SCENES_FILE, load_scenes, load_taxonomy
from tests.queries import commit, described
from tests.stages import planner_of, run_stage

STAGES = ("query_plan", "taxonomy_queries")


def own(tmp_path: Path, **taxonomy: Any) -> Settings:
    overrides = {
        "root": str(tmp_path / "lake"),
        "taxonomy": taxonomy,
        "queries": {"subcategories_per_clip": 6},
    }
    return load_settings("pocket", overrides=overrides)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of the package's taxonomy."""
    copy = tmp_path / "mine.yaml"
    copy.write_text(SAFETY_FILE.read_text())
    return copy


@pytest.fixture
def scenes_file(tmp_path: Path) -> Path:
    """Three scenes, one of which the rendered world cannot show."""
    some = tmp_path / "places.yaml"
    tree = yaml.safe_load(SCENES_FILE.read_text())
    tree["scenes"] = [{"id": each, "name": f"a {each}"} for each in ("kitchen", "farm", "submarine")]
    some.write_text(yaml.safe_dump(tree))
    return some


def conditions(settings: Settings, lake: Lake) -> dict[str, str]:
    """The state of the query stages, by a planner that trusts marks."""
    planner = planner_of(settings, lake)
    return {name: planner.state(planner.registry[name], "kitchen").condition for name in STAGES}


def hashes(settings: Settings) -> dict[str, str]:
    return {each.id: each.hash for each in load_taxonomy(settings).subcategories}


def hashes_in(lake: Lake, table: Table) -> dict[str, str]:
    """Subcategory -> hash; each has one."""
    rows = lake.read(table).select("subcategory", "taxonomy_hash").unique()
    assert rows["subcategory"].is_unique().all()
    return dict(rows.iter_rows())


def test_rows_hold_the_hash_of_their_subcategory_and_become_stale_when_it_changes(
    tmp_path: Path, file: Path
) -> None:
    settings = own(tmp_path, path=str(file))
    lake = Lake(settings.root, "pocket")
    commit(lake, described(("kitchen",)))
    gateway = Gateway(settings)
    for name in STAGES:
        run_stage(settings, lake, name, "kitchen", gateway)
    before = hashes(settings)
    for table in (QUERY_PLAN, TAXONOMY_QUERIES):
        assert hashes_in(lake, table).items() <= before.items()
    assert set(conditions(settings, lake).values()) == {"fresh"}

    file.write_text("# a comment\n" + file.read_text())
    assert set(conditions(settings, lake).values()) == {"fresh"}, "comments are no content"

    file.write_text(file.read_text().replace("Setting fire to things", "Setting light to things"))
    assert conditions(settings, lake)["query_plan"] == "stale"
    planner = planner_of(settings, lake)
    assert "taxonomy" in planner.state(planner.registry["query_plan"], "kitchen").reason
    for name in STAGES:
        assert run_stage(settings, lake, name, "kitchen", gateway).computed
    edited = {each for each, value in hashes(settings).items() if before[each] != value}
    assert edited == {"arson_and_dangerous_fire"}
    for table in (QUERY_PLAN, TAXONOMY_QUERIES):
        assert edited <= hashes_in(lake, table).keys()
        assert hashes_in(lake, table).items() <= hashes(settings).items()


def test_a_subset_is_all_that_is_asked(tmp_path: Path) -> None:
    settings = own(tmp_path, subcategories=["arson_and_dangerous_fire", "colour_and_appearance"])
    lake = Lake(settings.root, "pocket")
    commit(lake, described(("kitchen",)))
    for name in STAGES:
        run_stage(settings, lake, name, "kitchen")
    assert set(lake.read(TAXONOMY_QUERIES)["subcategory"]) == {
        "arson_and_dangerous_fire",
        "colour_and_appearance",
    }
    outcomes = lake.outcomes("query_plan")
    assert set(outcomes["input_id"]) == {row["clip_id"] for row in described(("kitchen",))}


def test_a_subcategory_that_went_is_named_until_the_plan_is_made_again(tmp_path: Path) -> None:
    """Estimates and reports read the stale plan without an error."""
    both = own(tmp_path, subcategories=["arson_and_dangerous_fire", "colour_and_appearance"])
    lake = Lake(both.root, "pocket")
    commit(lake, described(("kitchen",)))
    run_stage(both, lake, "query_plan", "kitchen")
    one = own(tmp_path, subcategories=["colour_and_appearance"])
    planner = planner_of(one, lake)
    for questions in planner.plan(planner.registry["taxonomy_queries"], "kitchen").questions:
        assert questions.keys is not None
        questions.keys()
    run_stage(one, lake, "taxonomy_queries", "kitchen")
    gone = lake.outcomes("taxonomy_queries").filter(pl.col("outcome") == "filtered")["reason"].unique()
    assert gone.to_list() == [
        "subcategory arson_and_dangerous_fire is not in the taxonomy, version 2; make the query plan again"
    ]


def test_partitions_quotas_and_rendered_clips_follow_the_scenes(tmp_path: Path, scenes_file: Path) -> None:
    settings = own(tmp_path, scenes_path=str(scenes_file))
    assert BY_SCENE.names(settings) == ["kitchen", "farm", "submarine"]
    assert len(BY_LOSS_AND_SCENE.names(settings)) % 3 == 0
    assert scene_quotas(10, load_scenes(settings).ids) == {"kitchen": 4, "farm": 3, "submarine": 3}
    assert rendered_scenes(settings) == ["kitchen", "farm"]
    assert set(rendered_scenes(load_settings("pocket"))) == set(SCENES)
    scenes_file.write_text(scenes_file.read_text().replace("submarine", "barn"))
    assert BY_SCENE.names(settings) == ["kitchen", "farm", "barn"], "the file is read again"


def test_one_scene_is_enough(tmp_path: Path, scenes_file: Path) -> None:
    """No other scene can come near, so that the margin is never too small."""
    import numpy as np

    scenes_file.write_text(
        'version: "1"\nsource: own\ntemplates: ["{name}"]\nscenes: [{id: lab, name: a lab}]\n'
    )
    settings = own(tmp_path, scenes_path=str(scenes_file))
    vector = np.zeros(4)
    vector[0] = 1.0
    clips = CLIP_MANIFEST.frame([{"clip_id": "c", "media_sha256": "0f", "source_id": "s"}])
    (clip,) = rows_of(clips, _Clip)
    found = _decide(
        clip, ClipVector(vector, np.zeros((1, 1))), -vector[None], load_scenes(settings), settings.corpus
    )
    assert isinstance(found, _SceneOf)
    assert found.scene == "lab"


def test_a_scene_that_holds_clips_cannot_be_taken_away(tmp_path: Path, scenes_file: Path) -> None:
    settings = own(tmp_path, scenes_path=str(scenes_file))
    lake = Lake(settings.root, "pocket")
    corpus = StageRows(VIDEO_CORPUS.frame([{"clip_id": "c1"}]), sequence_outcomes(["c1"], "ok"))
    split = CORPUS_SPLIT.frame([])
    lake.commit(CORPUS_SPLIT, "all", StageRows(split), "given", {})
    lake.commit(VIDEO_CORPUS, "kitchen", corpus, "given", {})
    stage = planner_of(settings, lake).registry[VIDEO_CORPUS.name]
    assert "quota" in planner_of(settings, lake).plan(stage, "farm").inputs
    lake.commit(VIDEO_CORPUS, "beach", corpus, "given", {})
    with pytest.raises(TaxonomyError, match="the lake holds video_corpus of beach") as raised:
        planner_of(settings, lake).plan(stage, "farm")
    assert "set `root` to another folder" in str(raised.value)


def test_a_relative_path_starts_at_the_settings_file(tmp_path: Path, file: Path) -> None:
    mine = tmp_path / "settings.yaml"
    mine.write_text("taxonomy: {path: mine.yaml}\n")
    assert load_settings("pocket", mine).taxonomy.path == file
