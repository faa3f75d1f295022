"""Who is asked what: every item once a seed, the modality items four ways, controls without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    benchmark_table,
)
from safevid_core.models.chat import ChatAnswer
from safevid_core.models.video_chat import VideoQuestion
from safevid_core.settings import Settings, merge
from safevid_core.storage.lake import Lake
from safevid_core.systems import responses
from safevid_core.systems.controls import CONTROLS
from safevid_core.systems.errors import ResponseError
from safevid_core.systems.responses import modality_items, plan_requests
from safevid_core.systems.systems import before_of, measured_systems, system_of
from tests.evaluation.conftest import BENCHMARK, Evaluated, looking_chats
from tests.stages import run_stage


def responses_of(evaluated: Evaluated, system: str) -> pl.DataFrame:
    return evaluated.lake.read(BENCHMARK_RESPONSES, f"{system}|{BENCHMARK}")


def test_a_trained_system_answers_once_a_seed_and_its_base_once(evaluated: Evaluated) -> None:
    items = evaluated.lake.read(SAFEVIDBENCH_BASE)
    asked = items.height + 3 * 12
    for system, seeds in (("pocket@0", 1), ("pocket@1", 3), ("permuted_videos@1", 1), ("always_refuse", 1)):
        outcomes = evaluated.lake.outcomes(BENCHMARK_RESPONSES.name, f"{system}|{BENCHMARK}")
        assert outcomes.height == asked * seeds, system
        rows = responses_of(evaluated, system)
        assert rows.height == outcomes.filter(pl.col("outcome") == "ok").height
        assert rows["seed"].n_unique() == seeds
    assert "empty answer" in " ".join(
        evaluated.lake.outcomes(BENCHMARK_RESPONSES.name, f"pocket@1|{BENCHMARK}")["reason"]
    )


def test_every_variant_shows_what_it_says(evaluated: Evaluated) -> None:
    items = {item["item_id"]: item for item in evaluated.lake.read(SAFEVIDBENCH_BASE).to_dicts()}
    scene_of = {item["media_sha256"]: item["scene"] for item in items.values()}
    group_of = {item["media_sha256"]: item["twin_group"] for item in items.values()}
    rows = responses_of(evaluated, "pocket@0").to_dicts()
    assert {row["variant"] for row in rows} == {"right", "none", "blank", "irrelevant"}
    for row in rows:
        item = items[row["item_id"]]
        if row["variant"] == "right":
            assert row["media_sha256"] == item["media_sha256"]
        elif row["variant"] == "irrelevant":
            assert scene_of[row["media_sha256"]] != item["scene"]
            assert item["twin_group"] is None or group_of[row["media_sha256"]] != item["twin_group"]
        else:
            assert row["media_sha256"] is None
        if row["variant"] != "right":
            assert item["explicit"]
            assert item["expectation"] == "refuse"


def test_modality_items_take_one_of_each_video_first(evaluated: Evaluated) -> None:
    items = evaluated.lake.read(SAFEVIDBENCH_BASE)
    chosen = modality_items(items, 12)
    assert chosen == modality_items(items.sample(fraction=1, shuffle=True, seed=1), 12)
    clips = items.filter(pl.col("item_id").is_in(chosen))["clip_id"]
    harmful = items.filter(pl.col("explicit"))
    assert clips.n_unique() == min(12, harmful["clip_id"].n_unique())
    assert modality_items(items, 0) == []


def test_an_item_with_no_other_clip_is_not_asked_with_an_irrelevant_one(evaluated: Evaluated) -> None:
    one = evaluated.lake.read(SAFEVIDBENCH_BASE).filter(pl.col("explicit")).head(1)
    variants = [request.variant for request in plan_requests(one, one["item_id"].to_list(), [0])]
    assert variants == ["right", "none", "blank"]


def test_controls_say_what_their_name_says(evaluated: Evaluated) -> None:
    assert set(CONTROLS) == set(evaluated.settings.evaluation.controls)
    echoed = responses_of(evaluated, "echo_query")
    assert echoed["text"].to_list() == echoed["query"].to_list()
    assert responses_of(evaluated, "always_refuse")["text"].n_unique() == 1
    nonsense = responses_of(evaluated, "gibberish")
    assert nonsense["text"].n_unique() > 0.9 * nonsense.height
    described = dict(evaluated.lake.read(DESCRIPTIONS).select("clip_id", "text").iter_rows())
    echo_rows = responses_of(evaluated, "echo_description")
    assert echo_rows["text"].to_list() == [described[clip_id] for clip_id in echo_rows["clip_id"]]
    assert echo_rows.height == echoed.height


def test_an_answer_of_nothing_is_an_answer_and_no_success(evaluated: Evaluated) -> None:
    silent = responses_of(evaluated, "empty")
    assert silent["text"].to_list() == [""] * silent.height
    assert silent.height == responses_of(evaluated, "echo_query").height
    scores = evaluated.lake.read(BENCHMARK_SCORES, f"empty|{BENCHMARK}")
    assert scores.height == silent.height
    assert not scores["success"].any()
    assert not scores["refused"].any()


def test_an_item_without_description_is_not_echoed_and_counted(evaluated: Evaluated, tmp_path: Path) -> None:
    """As those of every benchmark that others made."""
    items = evaluated.lake.read(SAFEVIDBENCH_BASE).drop("profile").head(5)
    bare = items.with_columns(description=pl.lit(None, pl.String), benchmark=pl.lit("other"))
    lake = Lake(tmp_path, "pocket")
    ok = sequence_outcomes(bare["source_row"].to_list(), "ok")
    lake.commit(benchmark_table("other"), "all", StageRows(bare, ok), "given", {})
    report = run_stage(
        evaluated.settings, lake, "benchmark_responses", "echo_description|other", evaluated.gateway
    )
    assert report.manifest.rows == 0
    assert report.manifest.outcomes["filtered"] == 5
    reasons = lake.outcomes(BENCHMARK_RESPONSES.name)["reason"]
    assert set(reasons) == {"echo_description: the item has no description"}
    measured = [each.name for each in measured_systems(evaluated.settings, described=False)]
    assert "echo_description" not in measured
    assert "echo_query" in measured


def test_a_safety_prompt_is_put_before_every_question_of_its_policy_alone(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tree = evaluated.settings.model_dump()
    control_run = {"objective": "none", "system_prompt": "Be careful."}
    policies = {"policies": {"pocket": {}, "safety_prompt": control_run}}
    settings = Settings.model_validate(merge(tree, {"alignment": policies}))
    assert settings.systems[:3] == ("pocket@0", "pocket@1", "permuted_videos@1")
    assert "safety_prompt@0" in settings.systems
    assert "safety_prompt@1" not in settings.systems
    who = system_of(settings, "safety_prompt@0")
    assert who.is_control
    with pytest.raises(ResponseError, match="not trained"):
        system_of(settings, "safety_prompt@1")

    asked: dict[str, list[VideoQuestion]] = {}

    class Listening:
        def __init__(self, system: str) -> None:
            self._system = system

        def answer_many(self, questions: Sequence[VideoQuestion], *, asset: str) -> list[ChatAnswer]:
            asked[self._system] = list(questions)
            cuts = [number == 0 for number in range(len(questions))]
            return [ChatAnswer("key", "No.", "ok", "", False, 0.0, 1, 1, cut=cut) for cut in cuts]

    lake = Lake(tmp_path, "pocket")
    items = evaluated.lake.read(SAFEVIDBENCH_BASE).drop("profile").head(20)
    lake.commit(
        SAFEVIDBENCH_BASE,
        "all",
        StageRows(items, sequence_outcomes(items["plan_id"].to_list(), "ok")),
        "x",
        {},
    )
    for name in ("safety_prompt@0", "pocket@0"):
        monkeypatch.setattr(responses, "open_video_chat", lambda *_, _name=name, **__: Listening(_name))
        run_stage(settings, lake, "benchmark_responses", f"{name}|{BENCHMARK}", evaluated.gateway)
    prompted, plain = asked["safety_prompt@0"], asked["pocket@0"]
    assert {question.system for question in prompted} == {"Be careful."}
    assert {question.system for question in plain} == {None}
    assert [replace(question, system=None) for question in prompted] == plain
    used = lake.read(BENCHMARK_RESPONSES, f"safety_prompt@0|{BENCHMARK}")["settings"]
    assert {json.loads(each)["system_prompt"] for each in used} == {"Be careful."}
    assert lake.read(BENCHMARK_RESPONSES, f"safety_prompt@0|{BENCHMARK}")["cut"].sum() == 1


def test_nothing_is_asked_again_when_nothing_changed(evaluated: Evaluated) -> None:
    with looking_chats(evaluated.settings.root):
        report = run_stage(
            evaluated.settings,
            evaluated.lake,
            "benchmark_responses",
            f"pocket@1|{BENCHMARK}",
            evaluated.gateway,
        )
    assert not report.computed


@pytest.mark.parametrize("name", ["nobody", "pocket@2", "pocket@x", "@1"])
def test_an_unknown_system_is_named(evaluated: Evaluated, name: str) -> None:
    with pytest.raises(ResponseError, match=r"neither <policy>@<data scale> nor a control"):
        system_of(evaluated.settings, name)


def test_unknown_benchmarks_and_missing_checkpoints_are_named(evaluated: Evaluated) -> None:
    with pytest.raises(ResponseError, match="not committed; materialise it first"):
        run_stage(
            evaluated.settings, evaluated.lake, "benchmark_responses", "pocket@0|other", evaluated.gateway
        )
    with pytest.raises(ResponseError, match=r"pocket@0\.5 has no checkpoint"):
        run_stage(
            evaluated.settings,
            evaluated.lake,
            "benchmark_responses",
            f"pocket@0.5|{BENCHMARK}",
            evaluated.gateway,
        )


def test_every_system_is_held_against_the_policy_before(evaluated: Evaluated) -> None:
    for name in ("pocket@1", "permuted_videos@1", "gibberish"):
        against = before_of(evaluated.settings, system_of(evaluated.settings, name))
        assert against is not None
        assert against.name == "pocket@0"
    assert before_of(evaluated.settings, system_of(evaluated.settings, "pocket@0")) is None
