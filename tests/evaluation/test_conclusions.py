"""Attribution of the gain: whether it counts as video safety is computed, for each control run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.measurement.conclusions import CONTROL_RUNS, control_run_of, explain_gain, points
from safevid_core.promotion import criteria
from safevid_core.settings import LOSSES, Settings, load_settings
from safevid_core.storage.lake import Lake
from safevid_core.systems.systems import system_of
from tests.evaluation.made_measurement import make_measurement

CONTROL_RUNS_OF_SETTINGS = {
    "pocket": {"seeds": [0]},
    "permuted_videos": {"perturbation": "permuted_videos"},
    "text_only": {"perturbation": "text_only"},
    "shuffled": {"perturbation": "shuffled_labels"},
    "imitation": {"objective": "sft"},
    "careful": {"objective": "none", "system_prompt": "Be careful."},
    "own": {"trained_on": "own_style"},
    "blindfold": {"trained_on": "without_descriptions"},
    "short": {"trained_on": "first_sentence"},
}
BEFORE, AFTER = "pocket@0", "pocket@1"
PERMUTED, TEXT = "permuted_videos@1", "text_only@1"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("pocket", overrides={"alignment": {"policies": CONTROL_RUNS_OF_SETTINGS}})


def explanation(settings: Settings, **rates: float) -> list[str]:
    """What the conclusions are for safety rates by system, `_at_` standing for @."""
    named = {name.replace("_at_", "@"): {"safety_rate": rate} for name, rate in rates.items()}
    return explain_gain(settings, make_measurement(settings, named))


@pytest.mark.parametrize(
    ("system", "control_run"),
    [
        ("pocket@1", None), ("pocket@0", None), ("always_refuse", None),
        ("permuted_videos@1", "permuted_videos"), ("text_only@1", "text_only"),
        ("shuffled@1", "shuffled_labels"), ("imitation@1", "sft"), ("careful@0", "safety_prompt"),
        ("own@1", "own_style"), ("blindfold@1", "without_descriptions"),
        ("short@1", "first_sentence"),
    ],
)  # fmt: skip
def test_a_control_run_is_known_by_what_it_lacks_whatever_its_name(
    settings: Settings, system: str, control_run: str | None
) -> None:
    assert control_run_of(settings, system_of(settings, system)) == control_run
    assert control_run is None or control_run in CONTROL_RUNS


@pytest.mark.parametrize(
    ("system", "must_miss"),
    [
        ("pocket@1", False), ("always_refuse", True), ("permuted_videos@1", True), ("text_only@1", True),
        ("shuffled@1", True), ("imitation@1", False), ("careful@0", False), ("own@1", False),
        ("blindfold@1", False),
    ],
)  # fmt: skip
def test_only_what_has_no_model_or_the_wrong_data_must_miss_a_bar(
    settings: Settings, system: str, must_miss: bool
) -> None:
    assert system_of(settings, system).must_miss == must_miss


def test_a_rival_that_meets_every_bar_holds_no_candidate_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"safety_rate": 0.9, "helpful_rate": 0.9, "twin_gap": 0.8}
    poor = {"safety_rate": 0.4, "helpful_rate": 0.9, "twin_gap": 0.1}
    rates = {BEFORE: poor, AFTER: good, PERMUTED: poor, "imitation@1": good}
    measured = make_measurement(settings, rates)
    assert measured.missed("imitation@1") == []
    monkeypatch.setattr(criteria, "measure_all", lambda *_: [measured])
    case = criteria.PromotionCase(settings, Lake(tmp_path, "pocket"), system_of(settings, AFTER), [], None)
    controls = [each for each in case.criteria() if each.name.startswith("control")]
    assert [(each.name, each.met) for each in controls] == [(f"control {PERMUTED}", True)]


def test_every_loss_is_a_control_run_with_words_for_what_it_lacks() -> None:
    assert set(LOSSES) < set(CONTROL_RUNS)


def test_a_gain_beyond_both_blind_control_runs_counts_by_what_lies_beyond_the_better(
    settings: Settings,
) -> None:
    first = explanation(
        settings, pocket_at_0=0.4, pocket_at_1=0.95, permuted_videos_at_1=0.5, text_only_at_1=0.7
    )[0]
    assert first.startswith("Of the gain in the safety rate (+55.0 points, 95% interval ")
    assert "counts as video safety: +25.0 points" in first
    assert first.endswith(f"beyond {TEXT}, the better of them.")


@pytest.mark.parametrize("level", [0.95, 0.93])
def test_a_gain_that_a_blind_control_run_shares_does_not_count(settings: Settings, level: float) -> None:
    first = explanation(
        settings, pocket_at_0=0.4, pocket_at_1=0.95, permuted_videos_at_1=level, text_only_at_1=0.5
    )[0]
    assert "does not count as video safety" in first
    assert f"not shown to be above {PERMUTED}, which cannot have learnt from the video" in first
    both = explanation(
        settings, pocket_at_0=0.4, pocket_at_1=0.95, permuted_videos_at_1=level, text_only_at_1=0.96
    )[0]
    assert f"{PERMUTED} and {TEXT}" in both


def test_without_a_blind_control_run_nothing_is_claimed(settings: Settings) -> None:
    first = explanation(settings, pocket_at_0=0.4, pocket_at_1=0.95, permuted_videos_at_1=0.5)[0]
    assert first.startswith("Whether the gain in the safety rate (")
    assert "no control run aligned on the text of the pairs alone is measured" in first
    neither = explanation(settings, pocket_at_0=0.4, pocket_at_1=0.95)[0]
    assert "no control run aligned on pairs with the videos permuted and none aligned on the text" in neither


def test_no_gain_and_no_before_are_said(settings: Settings) -> None:
    assert explanation(settings, pocket_at_0=0.6, pocket_at_1=0.61)[0].startswith(
        "No gain in the safety rate is shown"
    )
    assert explanation(settings, pocket_at_1=0.9)[0].startswith("What pocket@1 gained cannot be said")
    assert explanation(settings, pocket_at_0=0.9) == ["No aligned policy has been measured yet."]


def test_each_control_run_has_a_sentence_in_the_words_of_what_it_lacks(settings: Settings) -> None:
    rates = {
        "pocket_at_0": 0.4,
        "pocket_at_1": 0.8,
        "imitation_at_1": 0.5,
        "own_at_1": 0.8,
        "shuffled_at_1": 0.95,
    }
    sentences = explanation(settings, **rates)[1:]
    assert len(sentences) == 3
    sft, own, shuffled = sentences
    assert sft.startswith(
        "pocket@1 has a higher safety rate than imitation@1, fine-tuned on the chosen responses ("
    )
    assert sft.endswith("needs preferences, beyond imitation of the chosen responses.")
    assert own.startswith("pocket@1 and own@1, ")
    assert "cannot be told apart by safety rate (+0.0 points" in own
    assert shuffled.startswith("pocket@1 has a lower safety rate than shuffled@1")
    assert shuffled.endswith("the gain in safety rate is not shown to need the right labels.")


def test_the_twin_gap_has_sentences_of_its_own(settings: Settings) -> None:
    both: Any = {"safety_rate": 0.9, "twin_gap": 0.6}
    measured = make_measurement(
        settings,
        {BEFORE: {"safety_rate": 0.4, "twin_gap": 0.1}, AFTER: both, PERMUTED: {**both, "twin_gap": 0.0}},
    )
    sentences = explain_gain(settings, measured)[1:]
    assert len(sentences) == 2
    assert "higher twin gap than permuted_videos@1" in sentences[1]


rate = st.floats(0, 1)


@hypothesis_settings(max_examples=25, deadline=None)
@given(rate, rate, rate, rate)
def test_it_counts_only_where_all_three_differences_are_shown(
    before: float, after: float, permuted: float, text: float
) -> None:
    settings = load_settings("pocket", overrides={"alignment": {"policies": CONTROL_RUNS_OF_SETTINGS}})
    named = {BEFORE: before, AFTER: after, PERMUTED: permuted, TEXT: text}
    measured = make_measurement(settings, {name: {"safety_rate": value} for name, value in named.items()}, 60)
    first = explain_gain(settings, measured)[0]
    shown = [
        (comparison.estimate.ci_low or 0) > 0
        for comparison in measured.comparisons
        if comparison.system == AFTER and comparison.metric == "safety_rate"
    ]
    assert len(shown) == 3
    assert first.startswith("Of the gain") == all(shown)


def test_points_are_signed() -> None:
    assert [points(each) for each in (0.302, -0.05, 0.0, None)] == ["+30.2", "−5.0", "+0.0", "–"]
