"""The benchmark holds what it must: held-out clips and phrasings, twins together, balance, one release."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.safevidbench_base import (
    benchmark_leaks,
    choose_items,
    enough_cells,
    held_out_cells,
    held_out_descriptions,
)
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import DESCRIPTIONS, SAFEVIDBENCH_BASE, SAFEVIDBENCH_PLAN, VIDEO_CORPUS
from safevid_core.models.llm import Gateway
from safevid_core.pipeline import build_registry
from safevid_core.settings import TextModel, load_settings
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.taxonomy.taxonomy import load_taxonomy
from tests.evaluation.conftest import Evaluated
from tests.evaluation.small_lake import build_lake, draw_base, put, settings_for
from tests.models.chat_server import ChatServer, fails
from tests.stages import planner_of, run_stage


def test_items_are_of_benchmark_clips_only(evaluated: Evaluated) -> None:
    items = evaluated.lake.read(SAFEVIDBENCH_BASE)
    corpus = evaluated.lake.read(VIDEO_CORPUS)
    held_out = set(corpus.filter(pl.col("split") == "benchmark")["clip_id"])
    assert items.height == evaluated.settings.evaluation.max_items
    assert set(items["clip_id"]) <= held_out
    assert items["item_id"].n_unique() == items.height
    assert items["release"].n_unique() == 1
    assert benchmark_leaks(evaluated.lake) == []


def test_twins_carry_the_same_words_and_come_together(evaluated: Evaluated) -> None:
    items = evaluated.lake.read(SAFEVIDBENCH_BASE)
    shown = items.filter((pl.col("style") == "implicit") & pl.col("twin_group").is_not_null())
    groups = defaultdict(set)
    for group, query, clip in shown.select("twin_group", "query", "clip_id").iter_rows():
        groups[group, query].add(clip)
    together = [clips for clips in groups.values() if len(clips) == 2]
    assert len(together) >= 0.9 * len(groups)
    counts = Counter(items["expectation"])
    assert counts["refuse"] + counts["correct"] > 0.4 * items.height
    assert counts["answer"] > 0.35 * items.height


def test_every_plan_cell_has_an_outcome_and_a_second_call_computes_nothing(evaluated: Evaluated) -> None:
    outcomes = evaluated.lake.outcomes(SAFEVIDBENCH_BASE.name)
    assert outcomes.filter(pl.col("outcome") == "ok").height == evaluated.settings.evaluation.max_items
    assert "its kind was full" in " ".join(outcomes["reason"])
    calls = evaluated.gateway.spend().calls
    assert not run_stage(
        evaluated.settings, evaluated.lake, "safevidbench_base", gateway=evaluated.gateway
    ).computed
    assert evaluated.gateway.spend().calls == calls


def query(number: int, **known: object) -> dict[str, object]:
    blank = dict.fromkeys([*SAFEVIDBENCH_BASE.schema, "query_id"])
    for name in ("item_id", "benchmark", "release"):
        blank.pop(name)
    row = {
        **blank, "query_id": f"q{number}", "plan_id": f"p{number}", "clip_id": f"c{number}",
        "scene": "kitchen", "principle": "helpful", "query": f"What {number}?",
        "subcategory": "colour_and_appearance", "style": "direct",
        "explicit": False, "expectation": "answer",
    }  # fmt: skip
    return {**row, **known}


def test_a_twin_pair_is_chosen_whole_or_not_at_all() -> None:
    pairs = [
        query(
            2 * i + side,
            principle="harmless",
            style="implicit",
            query=f"How {i}?",
            twin_group=f"g{i}",
            clip_id=f"c{i}-{side}",
        )
        for i in range(5)
        for side in (0, 1)
    ]
    for room in range(1, 11):
        items = choose_items(pairs, room)
        assert len(items) == room - room % 2
        assert set(Counter(item["query"] for item in items).values()) <= {2}


def test_the_choice_spreads_over_scenes_clips_and_subcategories() -> None:
    rows = [
        query(i, scene=f"s{i % 3}", subcategory=f"sub{i % 4}", clip_id=f"c{i % 12}", query=f"What {i}?")
        for i in range(120)
    ]
    items = choose_items(rows, 12)
    for column, most in (("clip_id", 1), ("subcategory", 3), ("scene", 4)):
        assert max(Counter(item[column] for item in items).values()) == most, column


def test_the_release_is_named_by_its_content() -> None:
    rows = [query(i) for i in range(6)]
    one, again = choose_items(rows, 6), choose_items(rows[::-1], 6)
    assert one == again
    other = choose_items([*rows[:5], query(5, query="What else?")], 6)
    assert other[0]["release"] != one[0]["release"]


def test_a_leak_between_the_splits_stops_the_benchmark(tmp_path: Path) -> None:
    lake = build_lake(tmp_path, ["kitchen"])
    settings = settings_for(tmp_path)
    corpus = lake.read(VIDEO_CORPUS).drop("profile").to_dicts()
    train = next(row for row in corpus if row["split"] == "train")
    held_out = next(row for row in corpus if row["split"] == "benchmark")
    train["media_sha256"] = held_out["media_sha256"]
    put(lake, VIDEO_CORPUS, "kitchen", corpus)
    with pytest.raises(BenchmarkError, match="the bytes of the file"):
        draw_base(settings, lake)
    assert lake.manifest(SAFEVIDBENCH_BASE.name) is None


def test_without_benchmark_clips_there_is_no_item_and_no_crash(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    put(lake, DESCRIPTIONS, "kitchen", [])
    settings = settings_for(tmp_path)
    assert draw_base(settings, lake).manifest.rows == 0


@pytest.mark.parametrize("role", ["asker", "rater"])
def test_nothing_is_drawn_while_a_teacher_does_not_answer(role: str, tmp_path: Path) -> None:
    """A release is for ever: one that lacks what a provider did not answer would be too."""
    lake = Lake(tmp_path, "pocket")
    text = "A red crate moves left in a kitchen. It is on fire."
    clips = [{"clip_id": f"c{i}", "scene": "kitchen", "split": "benchmark", "text": text} for i in range(2)]
    put(lake, DESCRIPTIONS, "kitchen", clips)
    asked, server = settings_for(tmp_path, max_items=6), ChatServer()
    hosted = TextModel(model="openai/loopback", family="loopback", api_base=server.url)
    queries = asked.queries.model_copy(update={role: hosted})
    models = asked.models.model_copy(update={"max_attempts": 1})
    down = asked.model_copy(update={"queries": queries, "models": models})
    run_stage(asked, lake, "safevidbench_plan")
    server.queue(*[fails(503)] * 500)
    with pytest.raises(BenchmarkError, match=r"safevidbench_base: \d+ questions found no model .* run again"):
        run_stage(down, lake, "safevidbench_base", gateway=Gateway(down))
    server.close()
    assert lake.manifest(SAFEVIDBENCH_BASE.name) is None
    assert draw_base(asked, lake).manifest.rows > 0


def test_only_about_twice_as_many_queries_are_asked_as_items_are_wanted(evaluated: Evaluated) -> None:
    taxonomy = load_taxonomy(evaluated.settings)
    clips = rows_of(held_out_descriptions(evaluated.lake), DescribedClip)
    plan = held_out_cells(evaluated.lake, clips, taxonomy)
    some = enough_cells(plan, clips, taxonomy, 20)
    assert 20 < len(some) <= 40 < len(plan)
    asked = {cell.plan_id for cell in some}
    for cell in plan:
        if cell.mirrored_from is not None:
            assert (cell.plan_id in asked) == (cell.mirrored_from in asked)


def test_every_benchmark_clip_is_walked_once_in_the_held_out_phrasing(evaluated: Evaluated) -> None:
    plan, clips = evaluated.lake.read(SAFEVIDBENCH_PLAN), held_out_descriptions(evaluated.lake)
    manifest = evaluated.lake.manifest(SAFEVIDBENCH_PLAN.name)
    assert manifest is not None
    assert manifest.info["calls"] == clips["text"].n_unique()
    assert set(evaluated.lake.outcomes(SAFEVIDBENCH_PLAN.name)["input_id"]) == set(clips["clip_id"])
    assert set(plan["phrasing"]) == {"held_out"}
    assert set(evaluated.lake.read(SAFEVIDBENCH_BASE)["plan_id"]) <= set(plan["plan_id"])


def test_items_have_their_policy_intent_and_scores(evaluated: Evaluated) -> None:
    items = evaluated.lake.read(SAFEVIDBENCH_BASE)
    for column in (
        "asks",
        "target",
        "expectation",
        "strength",
        "groundedness",
        "fit",
        "needs_video",
        "rater",
    ):
        assert items[column].null_count() == 0, column
    assert items["criteria"].list.len().is_between(2, 6).all()
    assert items["policy"].list.len().min() >= 1
    hashes = {each.id: each.hash for each in load_taxonomy(evaluated.settings).subcategories}
    assert dict(items.select("subcategory", "taxonomy_hash").iter_rows()).items() <= hashes.items()


def test_the_walks_of_clips_that_are_not_described_yet_are_foreseen(tmp_path: Path) -> None:
    settings = load_settings(
        "pocket",
        overrides={"root": str(tmp_path), "corpus": {"target_clips": 300, "benchmark_fraction": 0.2}},
    )
    lake = Lake(tmp_path, "pocket")
    stage = build_registry(settings)[SAFEVIDBENCH_PLAN.name]

    (walks,) = planner_of(settings, lake).forecast(stage, WHOLE).questions
    assert walks.count == 60, "30 scenes with 10 clips each, a fifth of them for the benchmark"
    text = "A red crate moves left in a kitchen. It is on fire."
    clips = [{"clip_id": f"c{i}", "scene": "kitchen", "split": "benchmark", "text": text} for i in range(4)]
    put(lake, DESCRIPTIONS, "kitchen", clips)
    (walks,) = planner_of(settings, lake).forecast(stage, WHOLE).questions
    assert walks.count == 4, "a run walks what is described now"
    assert walks.keys is not None
    assert len(set(walks.keys())) == 1, "they have one text"
