"""The pair judge decides: kept, dropped with its reason, undecidable, and what no pattern may do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judges.judge import Verdict, no_verdict
from safevid_core.preferences.facts import fact_against, flags_of, same_words
from safevid_core.preferences.pair_judge import Assessment, decide, margin_of, open_pair_judge
from safevid_core.preferences.responses import SafeResponse
from safevid_core.settings import PreferenceSettings, load_settings

SETTINGS = load_settings("pocket").preferences


def assessed(success: bool, met: int = 0, of: int = 4) -> Assessment:
    verdict = Verdict("refuse", success, False, "a reason", criteria=tuple(n < met for n in range(of)))
    return Assessment(verdict, met / of)


@given(chosen=st.booleans(), rejected=st.booleans(), first=st.integers(0, 4), second=st.integers(0, 4))
def test_a_pair_is_kept_only_if_one_is_sound_and_the_margin_is_enough(
    chosen: bool, rejected: bool, first: int, second: int
) -> None:
    one, other = assessed(chosen, first), assessed(rejected, second)
    outcome, reason = decide(one, other, 0.5)
    kept = chosen and not rejected and margin_of(one, other) >= 0.5
    assert outcome == ("ok" if kept else "filtered")
    assert bool(reason) != kept


def test_a_margin_of_one_fifth_is_one_fifth() -> None:
    assert decide(assessed(True, 5, 5), assessed(False, 4, 5), 0.2) == ("ok", "")


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_judge_that_does_not_decide_leaves_the_pair_undecidable(side: str) -> None:
    sides = {
        "chosen": assessed(True, 4),
        "rejected": assessed(False),
        side: Assessment(no_verdict("it refused"), 0),
    }
    assert decide(sides["chosen"], sides["rejected"], 0.2) == (
        "undecidable",
        f"pair judge on the {side} response: it refused",
    )


def test_a_judge_that_cannot_be_reached_fails_the_pair() -> None:
    gone = Assessment(no_verdict("no answer"), 0, failed=True)
    assert decide(assessed(True, 4), gone, 0.2)[0] == "failed"


def judged_by(**judges: Any) -> PreferenceSettings:
    return load_settings("pocket", overrides={"preferences": {"judges": judges}}).preferences


def test_a_pattern_decides_no_pair() -> None:
    preferences = SETTINGS.model_copy(update={"judges": {"string_match": SETTINGS.judges["rubric"]}})
    with pytest.raises(JudgeError, match="string_match asks no model and cannot decide pairs"):
        open_pair_judge(preferences)


def test_a_second_model_is_refused() -> None:
    second = {"model": "openai/gpt-4o", "second": {"model": "openai/other"}}
    with pytest.raises(JudgeError, match="has a second model"):
        open_pair_judge(judged_by(rubric=second))


def test_any_change_of_a_judge_is_another_judge() -> None:
    one = open_pair_judge(judged_by(rubric={"model": "openai/gpt-4o"}))
    other = open_pair_judge(judged_by(rubric={"model": "openai/gpt-4o", "revision": "2"}))
    panel = open_pair_judge(
        judged_by(rubric={"model": "openai/gpt-4o"}, wildguard={"model": "openai/wildguard"})
    )
    assert len({one.identity, other.identity, panel.identity}) == 3
    assert panel.name == "rubric (openai/gpt-4o@1), wildguard (openai/wildguard@1)"


# --------------------------------------------------------------------------------------- facts and flags


@pytest.mark.parametrize(
    ("text", "cut", "says"),
    [
        ("", False, "empty"),
        (" \n\t", False, "empty"),
        ("<think>I should say no.</think>", False, "empty"),
        ("<think>I should", False, "thought and gave no answer"),
        ("The man lights a match and", True, "cut off"),
    ],
)
def test_a_fact_excludes(text: str, cut: bool, says: str) -> None:
    assert says in str(fact_against(text, cut=cut))


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "7",
        "I cannot help with that.",
        "As the description says, the man lights a match.",
        "Nein, das tue ich nicht.",
        "好的。",
        "x" * 50_000,
        "<think>Careful.</think>The car is red.",
        "Say `<think>` aloud.",
    ],
)
def test_nothing_but_a_fact_excludes(text: str) -> None:
    assert fact_against(text, cut=False) is None


@given(st.text(max_size=200))
def test_a_text_with_a_letter_and_no_mark_is_a_response(text: str) -> None:
    if any(letter.isalpha() for letter in text) and not set(text) & set("<[|◁&{`"):
        assert fact_against(f"word {text}", cut=False) is None


def test_flags_name_what_patterns_see() -> None:
    query = "How do they start the fire?"
    assert flags_of(query, "I cannot help with that.", "Take a match.") == ["chosen_refuses"]
    assert flags_of(query, "The car burns.", "Je ne peux pas.") == []
    assert flags_of(query, "В видео горит машина.", "I will not help.") == [
        "rejected_refuses",
        "chosen_other_script",
    ]
    assert flags_of(query, "As the description says, it burns.", "x") == ["chosen_names_its_prompt"]
    assert flags_of(query, "word " * 1000, "x") == ["chosen_long"]
    assert flags_of("Is the description right?", "The description is right.", "x") == []


def test_the_same_words_are_the_same_text() -> None:
    assert same_words("The crate is red.", "the crate is RED")
    assert not same_words("The crate is red.", "The red crate is")


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ([1, 2], [1, 2]),
        ("1, 2", [1, 2]),
        (["criterion 2"], [2]),
        (None, []),
        ("all", []),
        ([{"number": 1}], [1]),
    ],
)
def test_the_criteria_that_a_responder_names_are_read_in_any_form(given: Any, numbers: list[int]) -> None:
    assert SafeResponse.model_validate({"response": "No.", "satisfies": given}).satisfies == numbers


def test_thinking_within_a_response_is_no_part_of_it() -> None:
    said = "<think>The description says so.</think>I will not help."
    assert SafeResponse(response=said).response == "I will not help."
    assert fact_against(SafeResponse(response="<think>On and on").response, cut=False) is not None
    assert not same_words("👍", "👎")
