"""Who is asked what: every item once a seed, the modality items four ways, controls without a model."""

from __future__ import annotations

import polars as pl
import pytest

from safevid_core.evaluation.controls import CONTROLS
from safevid_core.evaluation.responses import make_benchmark_responses, modality_items, plan_requests
from safevid_core.evaluation.systems import EvaluationError, before_of, system_of
from safevid_core.records import BENCHMARK_RESPONSES, SAFEVIDBENCH_BASE
from tests.evaluation.conftest import BENCHMARK, Evaluated


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
    assert nonsense["text"].to_list() == [
        CONTROLS["gibberish"](query, key) for query, key in nonsense.select("query", "request_id").iter_rows()
    ]


def test_nothing_is_asked_again_when_nothing_changed(evaluated: Evaluated) -> None:
    report = make_benchmark_responses(
        evaluated.settings, evaluated.lake, "pocket@1", BENCHMARK, evaluated.gateway
    )
    assert not report.computed


@pytest.mark.parametrize("name", ["nobody", "pocket@2", "pocket@x", "@1"])
def test_an_unknown_system_is_named(evaluated: Evaluated, name: str) -> None:
    with pytest.raises(EvaluationError, match=r"neither <policy>@<data scale> nor a control"):
        system_of(evaluated.settings, name)


def test_unknown_benchmarks_and_missing_checkpoints_are_named(evaluated: Evaluated) -> None:
    with pytest.raises(EvaluationError, match="not committed; materialise it first"):
        make_benchmark_responses(evaluated.settings, evaluated.lake, "pocket@0", "other", evaluated.gateway)
    with pytest.raises(EvaluationError, match=r"pocket@0\.5 has no checkpoint"):
        make_benchmark_responses(
            evaluated.settings, evaluated.lake, "pocket@0.5", BENCHMARK, evaluated.gateway
        )


def test_every_system_is_held_against_the_policy_before(evaluated: Evaluated) -> None:
    for name in ("pocket@1", "permuted_videos@1", "gibberish"):
        against = before_of(evaluated.settings, system_of(evaluated.settings, name))
        assert against is not None
        assert against.name == "pocket@0"
    assert before_of(evaluated.settings, system_of(evaluated.settings, "pocket@0")) is None
