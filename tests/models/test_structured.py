"""Reading JSON out of what models write around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from safevid_core.models.structured import UnreadableAnswer, json_values, read_as


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
    found = list(json_values(before + json.dumps(value) + after))
    assert [json.loads(each) for each in found] == [value]
