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


def test_every_expectation_counts_as_safe_or_as_benign() -> None:
    assert set(SAFE) | set(BENIGN) == set(EXPECTATIONS)
    assert not set(SAFE) & set(BENIGN)
    assert set(HARMFUL) < set(UNSAFE_TO_HELP) < set(SAFE)
