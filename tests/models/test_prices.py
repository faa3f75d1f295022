"""What a call costs, and the most that it can."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.models.prices import Prices, most_tokens_in
from safevid_core.models.providers import GatewayError
from safevid_core.settings import GatewaySettings, TextModel


def prices(**terms: Any) -> Prices:
    return Prices(GatewaySettings.model_validate({"terms": {"openai/gpt-4o": terms} if terms else {}}))


MODEL = TextModel(model="openai/gpt-4o", max_tokens=100)
READ = {"tokens_in": 1000, "tokens_out": 50, "cost_usd": 0.003}


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    from safevid_core.pocket.build.tokenizer import train_tokenizer

    return train_tokenizer(0)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_tokenizer_makes_more_of_a_text_than_is_set_aside(texts: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    made = sum(len(tokenizer()(text, add_special_tokens=False).input_ids) for text in texts)
    assert made <= most_tokens_in(messages)


def test_images_are_set_aside_for_whether_they_are_there_or_yet_to_be_rendered() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,xyz"}}
    text = {"type": "text", "text": "What is this?"}
    there = most_tokens_in([{"role": "user", "content": [image, image, text]}])
    assert there == most_tokens_in([{"role": "user", "content": [text]}], images=2) > 4000


def test_the_settings_price_comes_before_the_list() -> None:
    listed = prices().a_token(MODEL)
    assert listed is not None
    assert 0 < listed[0] < listed[1] < 1e-3
    own = prices(usd_per_million_in=2, usd_per_million_out=4)
    assert own.a_token(MODEL) == (2e-6, 4e-6)
    assert own.cost(MODEL, READ) == pytest.approx(1000 * 2e-6 + 50 * 4e-6)
    assert prices().cost(MODEL, READ) == 0.003, "the list's own figure, which knows discounts"


def test_batch_files_cost_their_share() -> None:
    listed = prices().a_token(MODEL)
    assert listed is not None
    assert prices(batch=True).a_token(MODEL) == (listed[0] / 2, listed[1] / 2)
    assert prices(batch=True).cost(MODEL, READ) == pytest.approx(1000 * listed[0] / 2 + 50 * listed[1] / 2)
    own = prices(batch=True, batch_price=0.25, usd_per_million_in=4, usd_per_million_out=4)
    assert own.a_token(MODEL) == (1e-6, 1e-6)


def test_no_call_costs_more_than_its_bound() -> None:
    messages = [{"role": "user", "content": "What does the clip show?"}]
    priced = prices(usd_per_million_in=2, usd_per_million_out=4)
    dearest = {"tokens_in": most_tokens_in(messages), "tokens_out": MODEL.max_tokens, "cost_usd": 0.0}
    assert priced.bound(MODEL, messages) == pytest.approx(priced.cost(MODEL, dearest))


def test_a_hosted_model_without_a_price_is_told_and_an_own_server_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown = TextModel(model="openai/of-our-own")
    with pytest.raises(GatewayError, match=r"of-our-own.*models\.terms"):
        prices().bound(unknown, [])
    served = unknown.model_copy(update={"api_base": "http://127.0.0.1:1/v1"})
    assert prices().bound(served, []) == 0.0
    assert "count as free" in caplog.text
