"""An intent is read from any row that has some of its columns, and written back as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.intent import (
    ASKS,
    BENIGN,
    EXPECTATIONS,
    HARMFUL,
    INTENT_COLUMNS,
    SAFE,
    UNSAFE_TO_HELP,
    Intent,
)

WORDS = st.text(max_size=20)
INTENTS = st.builds(
    Intent,
    asks=st.sampled_from(ASKS) | st.none(),
    target=WORDS | st.none(),
    premise=WORDS | st.none(),
    premise_holds=st.booleans() | st.none(),
    expectation=st.sampled_from(EXPECTATIONS) | st.none(),
    hazard=WORDS | st.none(),
    criteria=st.lists(WORDS, max_size=6).map(tuple),
)


@given(intent=INTENTS, extra=st.dictionaries(WORDS, WORDS, max_size=3))
def test_an_intent_is_read_as_it_was_written(intent: Intent, extra: dict[str, str]) -> None:
    row = {name: value for name, value in extra.items() if name not in INTENT_COLUMNS}
    assert Intent.of({**row, **intent.columns}) == intent
    assert tuple(intent.columns) == INTENT_COLUMNS


def test_a_row_may_lack_any_column() -> None:
    assert Intent.of({}) == Intent()
    assert Intent.of({"criteria": None, "target": "set a car on fire"}).target == "set a car on fire"


@given(said=st.text(max_size=10) | st.none(), principle=st.text(max_size=10) | st.none())
def test_a_safe_response_is_always_one_of_five(said: str | None, principle: str | None) -> None:
    assert Intent(expectation=said).expected(principle) in EXPECTATIONS


@pytest.mark.parametrize(
    ("principle", "expected"), [("harmless", "refuse"), ("honest", "correct"), ("helpful", "answer")]
)
def test_an_expectation_stands_before_the_principle(principle: str, expected: str) -> None:
    assert Intent().expected(principle) == expected
    assert Intent(expectation="care").expected(principle) == "care"


@pytest.mark.parametrize(
    ("expectation", "premise", "holds", "says"),
    [
        ("correct", "he is a doctor", False, None),
        (
            "correct",
            "he is a doctor",
            None,
            "expects a correction and does not say that the premise is false",
        ),
        ("correct", "he is a doctor", True, "expects a correction of a premise that holds"),
        ("correct", None, None, "expects a correction and names no false premise"),
        ("correct", " ", None, "expects a correction and names no false premise"),
        ("answer", "he is a doctor", False, "expects a plain answer to a query whose premise is false"),
        ("answer", "he is a doctor", True, None),
        ("answer", "he is a doctor", None, None),
        ("refuse", "he is a doctor", False, None),
        ("rebut", "he is a doctor", False, None),
        ("care", "he is a doctor", None, None),
        ("refuse", None, None, None),
        ("answer", None, False, "says whether a premise holds and names none"),
        ("correct", None, False, "says whether a premise holds and names none"),
        (None, None, None, None),
    ],
)
def test_what_an_expectation_implies_of_the_premise(
    expectation: str | None, premise: str | None, holds: bool | None, says: str | None
) -> None:
    intent = Intent(expectation=expectation, premise=premise, premise_holds=holds)
    assert intent.contradiction() == says


@given(INTENTS)
def test_only_a_premise_contradicts_an_expectation_and_without_a_video_less_does(intent: Intent) -> None:
    without = Intent(expectation=intent.expectation)
    assert (without.contradiction() is None) == (intent.expectation != "correct")
    assert not (intent.contradiction() is None and intent.contradiction(known=False) is not None)
    if intent.contradiction() is None and intent.expectation == "correct":
        assert (bool(intent.premise), intent.premise_holds) == (True, False)


def test_nobody_knows_whether_a_premise_holds_beside_a_video_without_description() -> None:
    intent = Intent(expectation="correct", premise="he is a doctor")
    assert intent.contradiction() is not None
    assert intent.contradiction(known=False) is None


def test_every_expectation_counts_as_safe_or_as_benign() -> None:
    assert set(SAFE) | set(BENIGN) == set(EXPECTATIONS)
    assert not set(SAFE) & set(BENIGN)
    assert set(HARMFUL) < set(UNSAFE_TO_HELP) < set(SAFE)
