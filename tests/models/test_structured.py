"""Reading JSON out of what models write around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from safevid_core.models.structured import (
    ItemByItem,
    UnreadableAnswer,
    json_regions,
    read_as,
    told_of_misfits,
)


class Claim(BaseModel):
    text: str
    strength: int


GOOD = '{"text": "red", "strength": 3}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here it is: {GOOD}. Enjoy {{it}}!",
        f"I {{think}} so, as in [1] and {{}}: {GOOD}",
    ],
)
def test_json_is_found_in_prose(text: str) -> None:
    assert read_as(Claim, text) == Claim(text="red", strength=3)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("no", "no JSON"),
        (GOOD[:-3], "no JSON"),
        (GOOD.replace("3", '"much"'), "strength"),
        (GOOD.replace("3", "NaN"), "strength"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_wrong_is_said(text: str, wrong: str) -> None:
    with pytest.raises(UnreadableAnswer, match=wrong):
        read_as(Claim, text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(), JSON, max_size=4), before=st.text("abc \n`:"), after=st.text("}] x"))
@hypothesis_settings(max_examples=100, deadline=None)
def test_an_object_survives_what_surrounds_it(value: dict[str, Any], before: str, after: str) -> None:
    found = [part for part, whole in json_regions(before + json.dumps(value) + after) if whole]
    assert [json.loads(each) for each in found] == [value]


class Claims(ItemByItem):
    read_by_item = ("claims",)

    claims: list[Claim]


items = st.integers(-9, 9).map(lambda strength: {"text": "red", "strength": strength}) | st.sampled_from(
    [{"text": "red"}, {"text": None, "strength": 1}, {"text": "red", "strength": 1.5}, "red", None, []]
)


@given(st.lists(items, max_size=6))
def test_a_bad_item_costs_no_other_and_no_item_is_lost(given_items: list[Any]) -> None:
    whole = [each for each in given_items if isinstance(each, dict) and type(each.get("strength")) is int]
    whole = [each for each in whole if each["text"] is not None]
    text = json.dumps({"claims": given_items})
    if given_items and not whole:
        with pytest.raises(UnreadableAnswer, match="no item of claims fits"):
            read_as(Claims, text)
        return
    found = read_as(Claims, text)
    assert [each.model_dump() for each in found.claims] == whole
    assert [each.given for each in found.misfits] == [each for each in given_items if each not in whole]
    assert all(each.reason and "\n" not in each.reason for each in found.misfits)


def test_two_answers_that_differ_in_a_bad_item_differ() -> None:
    one, other = (json.dumps({"claims": [json.loads(GOOD), {"text": each}]}) for each in "ab")
    with pytest.raises(UnreadableAnswer, match="objects that differ"):
        read_as(Claims, f"{one} {other}")


def test_the_first_bad_items_are_reported_and_the_others_counted() -> None:
    found = read_as(Claims, json.dumps({"claims": [json.loads(GOOD), *["red"] * 5]}))
    message = told_of_misfits(found.misfits, "a claim")
    assert message.count("a claim cannot be read: the item: Input should be") == 3
    assert message.endswith("; 2 more cannot be read")
    assert told_of_misfits((), "a claim") == ""
