"""What a call costs, and the most that it can."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from safevid_core.models.chat import ChatRequest
from safevid_core.models.prices import Prices, most_tokens_in, tokens_an_image
from safevid_core.models.providers import GatewayError, response_of
from safevid_core.settings import GatewaySettings, TextModel


def prices(**terms: Any) -> Prices:
    return Prices(GatewaySettings.model_validate({"terms": {"openai/gpt-4o": terms} if terms else {}}))


MODEL = TextModel(model="openai/gpt-4o", max_tokens=100)


def request(text: str = "What does the clip show?", images: int = 0, model: TextModel = MODEL) -> ChatRequest:
    return ChatRequest(model, [{"role": "user", "content": text}], images=images)


def response(usage: Any, text: str = "A kite.", **others: Any) -> Any:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return response_of({"choices": choices, "usage": usage, **others})


READ = response({"prompt_tokens": 1000, "completion_tokens": 50})


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
    assert own.cost(request(), READ) == pytest.approx(1000 * 2e-6 + 50 * 4e-6)
    assert prices().cost(request(), READ) == pytest.approx(1000 * listed[0] + 50 * listed[1])


def test_the_list_knows_discounts() -> None:
    details = {"cached_tokens": 800, "audio_tokens": None}
    cached = response({"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": details})
    assert 0 < prices().cost(request(), cached) < prices().cost(request(), READ)


def test_batch_files_cost_their_share() -> None:
    listed = prices().a_token(MODEL)
    assert listed is not None
    assert prices(batch=True).a_token(MODEL) == (listed[0] / 2, listed[1] / 2)
    expected = 1000 * listed[0] / 2 + 50 * listed[1] / 2
    assert prices(batch=True).cost(request(), READ) == pytest.approx(expected)
    own = prices(batch=True, batch_price=0.25, usd_per_million_in=4, usd_per_million_out=4)
    assert own.a_token(MODEL) == (1e-6, 1e-6)


def test_no_call_costs_more_than_its_bound() -> None:
    priced = prices(usd_per_million_in=2, usd_per_million_out=4)
    most = most_tokens_in(request().messages)
    dearest = response({"prompt_tokens": most, "completion_tokens": MODEL.max_tokens})
    assert priced.bound(request()) == pytest.approx(priced.cost(request(), dearest))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "5",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 7, "completion_tokens": 0},
        {"prompt_tokens": -7, "completion_tokens": 3},
        {"total_tokens": 8},
        {"prompt_tokens": float("nan"), "completion_tokens": 3},
    ],
    ids=str,
)
def test_an_answer_that_does_not_say_what_it_took_costs_what_was_set_aside(usage: Any) -> None:
    assert prices().cost(request(), response(usage)) == prices().bound(request()) > 0


def test_the_total_counts_where_it_is_more() -> None:
    listed = prices().a_token(MODEL)
    assert listed is not None
    for usage in (
        {"prompt_tokens": 11, "total_tokens": 1011},
        {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 1011},
    ):
        cost = prices().cost(request(), response(usage, text=""))
        assert cost == pytest.approx(11 * listed[0] + 1000 * listed[1])


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "length", "message": {"content": ""}},
        {"finish_reason": "stop", "message": {"content": None, "reasoning_content": "Hm."}},
    ],
)
def test_an_answer_of_thoughts_alone_without_tokens_costs_what_was_set_aside(choice: Any) -> None:
    reply = response_of({"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 0}})
    assert prices().cost(request(), reply) == prices().bound(request())


@pytest.mark.parametrize(
    "details",
    [
        {"completion_tokens_details": {"text_tokens": 1}},
        {"completion_tokens_details": {"text_tokens": 1, "reasoning_tokens": -(10**6)}},
        {"completion_tokens_details": {"text_tokens": 1, "audio_tokens": 49}},
        {"prompt_tokens_details": {"text_tokens": 1}},
        {"prompt_tokens_details": {"image_tokens": 999, "text_tokens": 1}},
        {"prompt_tokens_details": {"cached_tokens": -(10**6)}},
    ],
    ids=str,
)
def test_details_that_do_not_add_up_make_nothing_cheaper(details: dict[str, Any]) -> None:
    reply = response({"prompt_tokens": 1000, "completion_tokens": 50, **details})
    assert prices().cost(request(), reply) == pytest.approx(prices().cost(request(), READ))


def test_no_more_is_cached_than_was_read() -> None:
    all_of_it, more = (
        response(
            {
                **{"prompt_tokens": 1000, "completion_tokens": 50},
                "prompt_tokens_details": {"cached_tokens": n},
            }
        )
        for n in (1000, 10**6)
    )
    assert prices().cost(request(), more) == prices().cost(request(), all_of_it) > 0


def test_thoughts_cost_what_the_list_says_of_them() -> None:
    model = MODEL.model_copy(update={"model": "dashscope/qwen-turbo"})
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    plain = prices().cost(request(model=model), response(usage))
    half = {**usage, "completion_tokens_details": {"reasoning_tokens": 50}}
    listed = prices().a_token(model)
    assert listed is not None
    thought = prices().cost(request(model=model), response(half))
    assert plain < thought < 1000 * listed[0] + 100 * listed[1]


def test_a_price_for_one_way_alone_is_refused() -> None:
    for name, other in (("in", "out"), ("out", "in")):
        with pytest.raises(ValidationError, match=rf"give usd_per_million_{other} too \(0 if it is free\)"):
            prices(**{f"usd_per_million_{name}": 2.5})


def test_a_chat_template_is_set_aside_for() -> None:
    short = request("Hi", model=MODEL.model_copy(update={"max_tokens": 1}))
    seen = response({"prompt_tokens": 2 + 76, "completion_tokens": 1})
    own = prices(usd_per_million_in=1000, usd_per_million_out=1000)
    before = own.bound(short)
    assert own.cost(short, seen) <= before


def test_an_image_to_a_model_of_no_list_needs_its_tokens() -> None:
    model = MODEL.model_copy(update={"model": "openai/of-our-own"})

    def own(**terms: Any) -> Prices:
        priced = {"usd_per_million_in": 1.0, "usd_per_million_out": 1.0, **terms}
        return Prices(GatewaySettings.model_validate({"terms": {model.model: priced}}))

    with pytest.raises(GatewayError, match=r"of-our-own.*tokens_per_image"):
        own().bound(request(images=1, model=model))
    assert own().bound(request(model=model)) > 0
    assert own(tokens_per_image=60_000).bound(request(images=1, model=model)) > 0.06
    assert own(usd_per_million_in=0).bound(request(images=1, model=model)) > 0


def test_an_alias_is_found_in_a_batchs_answer_too() -> None:
    served = MODEL.model_copy(update={"model": "openai/mine", "api_base": "http://127.0.0.1:1/v1"})
    priced = prices()
    assert priced.bound(request(model=served)) == 0
    priced.cost(request(model=served), response({"prompt_tokens": 9, "completion_tokens": 9}, model="gpt-4o"))
    with pytest.raises(GatewayError, match=r"says that it is gpt-4o"):
        priced.bound(request(model=served))


def test_batch_files_to_a_model_of_unknown_price_need_one_under_a_budget() -> None:
    served = MODEL.model_copy(update={"model": "openai/mine", "api_base": "http://127.0.0.1:1/v1"})
    priced = Prices(GatewaySettings.model_validate({"terms": {"openai/mine": {"batch": True}}}))
    with pytest.raises(GatewayError, match=r"batch files.*models\.terms"):
        priced.bound(request(model=served))


@pytest.mark.parametrize(
    ("model", "counted"),
    # What one picture of a video's size was seen to count, or a page on vision says at most.
    [
        ("openai/gpt-4o-mini", 36_835),
        ("azure/gpt-4o-mini-2024-07-18", 25_501),
        ("openai/gpt-4o", 1_445),
        ("openai/gpt-5-nano", 3_779),
        ("anthropic/claude-opus-4-7", 4_784),
        ("gemini/gemini-3-pro", 2_240),
        ("mistral/pixtral-large", 4_160),
        ("dashscope/qwen-vl-max", 16_384),
        ("groq/llama-3.2-90b-vision", 6_404),
    ],
)
def test_an_image_is_set_aside_for_by_its_model(model: str, counted: int) -> None:
    assert tokens_an_image(model) >= counted
    shown = request(images=8, model=MODEL.model_copy(update={"model": model}))
    bare = request(model=shown.model)
    terms = {model: {"usd_per_million_in": 1.0, "usd_per_million_out": 1.0}}
    priced = Prices(GatewaySettings.model_validate({"terms": terms}))
    assert priced.bound(shown) - priced.bound(bare) >= 8 * counted * 1e-6
    charges = Prices(
        GatewaySettings.model_validate({"terms": {model: {**terms[model], "tokens_per_image": 10}}})
    )
    assert charges.bound(shown) - charges.bound(bare) == pytest.approx(8 * 10 * 1e-6)


def test_what_an_image_counts_is_asked_for_before_a_call_and_not_when_it_is_paid() -> None:
    own = TextModel(model="openai/of-our-own", api_base="http://127.0.0.1:1/v1")
    terms = {own.model: {"usd_per_million_in": 1, "usd_per_million_out": 1}}
    priced = Prices(GatewaySettings.model_validate({"terms": terms}))
    with pytest.raises(GatewayError, match="tokens_per_image"):
        priced.bound(request(images=8, model=own))
    assert priced.cost(request(images=8, model=own), READ) == pytest.approx(1050e-6)


def test_a_call_that_cost_more_than_was_set_aside_raises_what_is_set_aside_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    priced = prices(usd_per_million_in=2, usd_per_million_out=4)
    before = priced.bound(request())
    dear = response({"prompt_tokens": 9, "completion_tokens": 50 * MODEL.max_tokens})
    cost = priced.cost(request(), dear)
    assert cost > before
    assert priced.bound(request()) == pytest.approx(cost)
    assert "was reserved" in caplog.text


def test_a_hosted_model_without_a_price_is_reported_and_an_own_server_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown = request(model=TextModel(model="openai/of-our-own"))
    with pytest.raises(GatewayError, match=r"of-our-own.*models\.terms"):
        prices().bound(unknown)
    served = request(model=unknown.model.model_copy(update={"api_base": "http://127.0.0.1:1/v1"}))
    assert prices().bound(served) == 0.0
    assert "count as free" in caplog.text
