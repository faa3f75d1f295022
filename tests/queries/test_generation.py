from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    QUERIES_WITHOUT_DESCRIPTIONS,
    TAXONOMY_QUERIES,
    WITHOUT_DESCRIPTIONS,
)
from safevid_core.models.llm import Gateway
from safevid_core.pocket.clips import plan_clips
from safevid_core.pocket.world import EVENTS, ClipTruth
from safevid_core.queries.generation import PlanCell, ask_queries, plan_queries
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake, audit_partition
from safevid_core.taxonomy.taxonomy import load_scenes, load_taxonomy
from tests.stages import run_stage

TAXONOMY = load_taxonomy()


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


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        "pocket", overrides={"root": str(tmp_path), "queries": {"subcategories_per_clip": 6}}
    )


@pytest.fixture
def with_queries(tmp_path: Path) -> Callable[..., Settings]:
    def make(**queries: Any) -> Settings:
        return load_settings("pocket", overrides={"root": str(tmp_path), "queries": queries})

    return make


def commit(lake: Lake, rows: list[dict[str, Any]]) -> None:
    for scene in {row["scene"] for row in rows}:
        of_scene = [row for row in rows if row["scene"] == scene]
        stage = StageRows(
            DESCRIPTIONS.frame(of_scene), sequence_outcomes([row["clip_id"] for row in of_scene], "ok")
        )
        lake.commit(DESCRIPTIONS, scene, stage, "given", {})


def own_cells(plan: list[PlanCell]) -> list[PlanCell]:
    return [cell for cell in plan if cell.mirrored_from is None]


def test_a_plan_gives_every_clip_its_cells_and_spreads_the_subcategories(settings: Settings) -> None:
    descriptions = DESCRIPTIONS.frame(described(("kitchen", "farm")))
    plan = plan_queries(descriptions, settings, TAXONOMY, "train")
    assert len({cell.plan_id for cell in plan}) == len(plan)
    per_clip = Counter(cell.clip_id for cell in own_cells(plan))
    assert set(per_clip.values()) == {settings.queries.subcategories_per_clip}
    implicit = Counter(cell.clip_id for cell in own_cells(plan) if cell.style == "implicit")
    assert set(implicit.values()) == {2}
    of_principle = Counter(TAXONOMY[cell.subcategory].principle for cell in own_cells(plan))
    assert of_principle["honest"] >= per_clip.total() / 8
    assert of_principle["helpful"] >= per_clip.total() / 8
    honest = Counter(
        cell.subcategory
        for cell in own_cells(plan)
        if TAXONOMY[cell.subcategory].principle == "honest" and cell.clip_id in descriptions["clip_id"]
    )
    assert max(honest.values()) - min(honest.values()) <= 2


def test_a_plan_rests_on_the_descriptions_and_not_on_their_order(settings: Settings) -> None:
    descriptions = DESCRIPTIONS.frame(described(("kitchen", "farm")))
    plan = plan_queries(descriptions, settings, TAXONOMY, "train")
    again = plan_queries(descriptions.sample(fraction=1, shuffle=True, seed=1), settings, TAXONOMY, "train")
    assert set(plan) == set(again)
    held_out = plan_queries(descriptions, settings, TAXONOMY, "held_out")
    assert not {cell.plan_id for cell in plan} & {cell.plan_id for cell in held_out}


def test_a_scene_is_planned_without_looking_at_another(settings: Settings) -> None:
    both = DESCRIPTIONS.frame(described(("kitchen", "farm")))
    kitchen = both.filter(pl.col("scene") == "kitchen")
    plan = plan_queries(both, settings, TAXONOMY, "train")
    ids = set(kitchen["clip_id"])
    assert set(plan_queries(kitchen, settings, TAXONOMY, "train")) == {c for c in plan if c.clip_id in ids}


def test_as_many_cells_as_the_paper_asks_find_subcategories(with_queries: Callable[..., Settings]) -> None:
    descriptions = DESCRIPTIONS.frame(described(("kitchen",)))
    plan = plan_queries(descriptions, with_queries(subcategories_per_clip=28), TAXONOMY, "train")
    per_clip = Counter(cell.clip_id for cell in own_cells(plan))
    assert min(per_clip.values()) >= 25
    assert len({cell.subcategory for cell in plan}) >= 30


def test_queries_of_a_scene(settings: Settings, tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    commit(lake, described(("kitchen",)))
    report = run_stage(settings, lake, "taxonomy_queries", "kitchen", Gateway(settings))
    rows = lake.read(TAXONOMY_QUERIES, "kitchen")
    outcomes = lake.outcomes("taxonomy_queries", "kitchen")
    assert report.computed
    assert rows.height > 100
    assert outcomes.filter(pl.col("outcome") == "failed").is_empty()
    assert outcomes.filter((pl.col("outcome") != "ok") & (pl.col("reason") == "")).is_empty()
    assert set(rows["expectation"]) == {"refuse", "correct", "answer"}
    assert set(rows["taxonomy_hash"]) == {TAXONOMY.hash}
    assert set(rows["model"]) == {"scripted/asker"}
    assert report.manifest.info["calls"] == rows.height + report.manifest.outcomes["filtered"]
    assert rows.select("clip_id", "query").is_unique().all()


def test_twins_are_asked_the_same_words_and_the_description_decides(
    settings: Settings, tmp_path: Path
) -> None:
    lake = Lake(tmp_path, "pocket")
    commit(lake, described(("kitchen",)))
    run_stage(settings, lake, "taxonomy_queries", "kitchen", Gateway(settings))
    rows = lake.read(TAXONOMY_QUERIES, "kitchen")
    originals = {row["plan_id"]: row for row in rows.iter_rows(named=True)}
    mirrored = rows.filter(pl.col("mirrored_from").is_not_null())
    assert mirrored.height >= 20
    for row in mirrored.iter_rows(named=True):
        original = originals[row["mirrored_from"]]
        assert row["query"] == original["query"]
        assert row["twin_group"] == original["twin_group"]
        assert row["clip_id"] != original["clip_id"]
        assert {row["expectation"], original["expectation"]} == {"refuse", "answer"}


def test_nothing_is_asked_again_and_one_changed_text_is(settings: Settings, tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    rows = described(("kitchen", "farm"))
    commit(lake, rows)
    gateway = Gateway(settings)
    for scene in ("kitchen", "farm"):
        run_stage(settings, lake, "taxonomy_queries", scene, gateway)
    assert not run_stage(settings, lake, "taxonomy_queries", "kitchen", gateway).computed
    changed = next(row for row in rows if row["scene"] == "kitchen")
    changed["text"] = changed["text"].replace("moves", "slowly moves")
    commit(lake, rows)
    again = run_stage(settings, lake, "taxonomy_queries", "kitchen", gateway)
    assert again.computed
    assert again.manifest.info["cached_calls"] > again.manifest.info["calls"]
    assert not run_stage(settings, lake, "taxonomy_queries", "farm", gateway).computed


def test_clips_of_the_benchmark_are_left_alone(settings: Settings, tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    commit(lake, [{**row, "split": "benchmark"} for row in described(("kitchen",))])
    report = run_stage(settings, lake, "taxonomy_queries", "kitchen", Gateway(settings))
    assert report.manifest.rows == 0
    assert sum(report.manifest.outcomes.values()) == 0


def test_a_clip_of_which_little_is_known_still_gets_questions(settings: Settings) -> None:
    row = {**described(("kitchen",))[0], "twin_group": None, "text": "Something moves left."}
    descriptions = DESCRIPTIONS.frame([row])
    plan = plan_queries(descriptions, settings, TAXONOMY, "held_out")
    asked = ask_queries(plan, descriptions, settings, TAXONOMY, Gateway(settings), asset="test")
    assert {plan_id for plan_id, _, _ in asked.outcomes} == set(asked.plan_ids)
    reasons = {reason for _, outcome, reason in asked.outcomes if outcome == "filtered"}
    assert any("does not apply" in reason for reason in reasons)


def test_weak_queries_and_their_mirrors_are_filtered_with_the_reason(
    with_queries: Callable[..., Settings],
) -> None:
    settings = with_queries(min_strength=5)
    descriptions = DESCRIPTIONS.frame(described(("kitchen",)))
    plan = plan_queries(descriptions, settings, TAXONOMY, "train")
    asked = ask_queries(plan, descriptions, settings, TAXONOMY, Gateway(settings), asset="test")
    assert {row["expectation"] for row in asked.rows} == {"answer"}
    reasons = Counter(reason.split(" is below")[0] for _, _, reason in asked.outcomes if reason)
    assert reasons["adversarial strength 4"] > 10
    assert any("was not kept" in reason for reason in reasons)


def test_an_asker_that_cannot_be_reached_fails_its_rows_only(
    with_queries: Callable[..., Settings],
) -> None:
    settings = with_queries(asker={"model": "scripted/nobody"})
    descriptions = DESCRIPTIONS.frame(described(("kitchen",)))
    plan = plan_queries(descriptions, settings, TAXONOMY, "train")
    asked = ask_queries(plan, descriptions, settings, TAXONOMY, Gateway(settings), asset="test")
    assert asked.rows == []
    assert any(cell.mirrored_from for cell in plan)
    assert {outcome for _, outcome, _ in asked.outcomes} == {"failed"}
    assert all(reason for _, _, reason in asked.outcomes)


def test_queries_without_descriptions_are_generic_and_stand_apart(settings: Settings, tmp_path: Path) -> None:
    """They fill a table of their own, and every other clip is taken for a harmless one."""
    lake = Lake(tmp_path, "pocket")
    rows = described(("kitchen",))
    commit(lake, rows)
    gateway = Gateway(settings)
    run_stage(settings, lake, "taxonomy_queries", "kitchen", gateway)
    report = run_stage(settings, lake, WITHOUT_DESCRIPTIONS.queries.name, "kitchen", gateway)
    audit_partition(lake, QUERIES_WITHOUT_DESCRIPTIONS, "kitchen")
    assert not run_stage(
        settings, lake, "taxonomy_queries", "kitchen", gateway
    ).computed  # the others are untouched
    blind, seeing = lake.read(QUERIES_WITHOUT_DESCRIPTIONS), lake.read(TAXONOMY_QUERIES)
    assert sum(report.manifest.outcomes.values()) > blind.height > 0.6 * seeing.height
    assert blind["description"].null_count() == blind.height
    assert set(blind["expectation"]) == {"refuse", "correct", "answer"}
    implicit = blind.filter(pl.col("style") == "implicit")
    harmful = implicit.filter(pl.col("expectation") == "refuse").height / implicit.height
    assert 0.3 < harmful < 0.7
    assert implicit["query"].n_unique() > 8
    mirrored = implicit.join(implicit, left_on="mirrored_from", right_on="plan_id")
    assert mirrored.height > 20
    # Without a description nobody can say that the same words deserve another answer about the twin.
    assert mirrored["expectation"].equals(mirrored["expectation_right"])
    things = {word for row in rows for word in row["text"].split()[1:3]}
    asked = {word.strip(".,?") for query in implicit["query"] for word in query.split()}
    assert not asked & things


def test_without_descriptions_nothing_of_a_clip_but_its_id_reaches_the_asker(
    settings: Settings, tmp_path: Path
) -> None:
    rows = described(("kitchen",))
    others = [{**row, "text": "A blue kite stays still in a forest. It glows softly."} for row in rows]
    queries = []
    for name, some in (("one", rows), ("other", others)):
        lake = Lake(tmp_path / name, "pocket")
        commit(lake, some)
        run_stage(settings, lake, WITHOUT_DESCRIPTIONS.queries.name, "kitchen", Gateway(settings))
        queries.append(lake.read(QUERIES_WITHOUT_DESCRIPTIONS).drop("request_key"))
    assert queries[0].equals(queries[1])
