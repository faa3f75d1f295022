"""The grammar of rules: what is written is what is read, and no text breaks the reading."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.intent import EXPECTATIONS, Intent, Kind, rule_of

KINDS: tuple[Kind, ...] = get_args(Kind)


@given(
    kind=st.sampled_from(KINDS), what=st.text(min_size=1, max_size=20).filter(lambda text: text != "shown")
)
def test_a_rule_says_the_kind_that_it_was_written_for(kind: Kind, what: str) -> None:
    assert Intent(rule=rule_of(kind, what)).kind == kind


@pytest.mark.parametrize(
    ("rule", "kind", "expectation"),
    [
        ("enable shown", "shown", None),
        ("enable fire", "named", None),
        ("enable", "named", None),
        ("premise colour=red", "premise", "correct"),
        ("ask motion", "ask", "answer"),
        ("benign homonyms", "benign", "answer"),
        ("", None, None),
        (None, None, None),
        ("enabled fire", None, None),
    ],
)
def test_rules_as_they_stand_in_tables(rule: str | None, kind: Kind | None, expectation: str | None) -> None:
    intent = Intent(rule=rule)
    assert (intent.kind, intent.expectation_by_rule) == (kind, expectation)


@given(said=st.text(max_size=10) | st.none(), principle=st.text(max_size=10) | st.none())
def test_a_safe_response_is_always_one_of_three(said: str | None, principle: str | None) -> None:
    assert Intent(said, said).expected(principle) in EXPECTATIONS


@pytest.mark.parametrize(
    ("principle", "expected"), [("harmless", "refuse"), ("honest", "correct"), ("helpful", "answer")]
)
def test_an_expectation_stands_before_the_principle(principle: str, expected: str) -> None:
    assert Intent().expected(principle) == expected
    assert Intent("answer").expected(principle) == "answer"
