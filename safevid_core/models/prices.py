"""What a call costs, and the most that it can: by one price, the settings' own or else litellm's list."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from safevid_core.models.chat import ChatRequest
from safevid_core.models.providers import GatewayError, Usage, listed_price_of, load_litellm, usage_of
from safevid_core.settings import GatewaySettings, ModelTerms, TextModel

# The most tokens that a provider counts for one image of any size, by the model's name; the first that is
# found counts. By the providers' pages on vision: tiles of OpenAI's (a base and eight tiles) and patches.
_IMAGE_TOKENS = tuple(
    (re.compile(pattern), tokens)
    for pattern, tokens in (
        (r"gpt-4o-mini", 2_833 + 8 * 5_667),
        (r"gpt-(5\.[4-9]|[6-9]).*(mini|nano)", 24_600),
        (r"gpt-(5\.[4-9]|[6-9])", 10_000),
        (r"qwen|qvq", 16_386),
        (r"llama", 6_500),
    )
)
_TOKENS_AN_IMAGE = 5_000  # of other models: the most are Claude's 4,784
_TOKENS_A_MESSAGE = 16
_LOG = logging.getLogger(__name__)


class Prices:
    """USD a token of each model under some settings."""

    def __init__(self, models: GatewaySettings) -> None:
        self._terms = models.terms
        self._providers = models.providers
        # Of a model that cost more than was set aside: how many times more, at worst.
        self._overrun: dict[str, float] = {}
        # A model of no known price -> what its server says that it is, which has one.
        self._alias: dict[str, str] = {}

    def terms(self, model: TextModel) -> ModelTerms:
        return self._terms.get(model.model, _NO_TERMS)

    def a_token(self, model: TextModel) -> tuple[float, float] | None:
        """USD for a token read and a token written, batch files reckoned in; None where nobody knows."""
        terms = self.terms(model)
        share = terms.batch_price if terms.batch else 1.0
        if terms.usd_per_million_in is not None or terms.usd_per_million_out is not None:
            paid_in, paid_out = terms.usd_per_million_in or 0.0, terms.usd_per_million_out or 0.0
            return share * paid_in / 1e6, share * paid_out / 1e6
        listed = _listed(model.model, self._providers)
        return None if listed is None else (share * listed[0], share * listed[1])

    def cost(self, request: ChatRequest, response: Any) -> float:
        """What an answered call cost, in USD.

        By the price that its bound goes by; less where litellm knows a discount for this model, such as
        for cached tokens. An answer that does not say what it took cost what was set aside for it.
        """
        model, usage = request.model, usage_of(response)
        price = self.a_token(model)
        if price is None:
            if alias := listed_price_of(response):
                self._alias[model.model] = alias
            return 0.0
        bound = self.bound(request)
        if usage is None:
            return bound
        cost = price[0] * usage.tokens_in + price[1] * usage.tokens_out
        cost = min(cost, self._discounted(model, usage, cost))
        if cost > bound > 0:
            self._overrun[model.model] = self._overrun.get(model.model, 1.0) * cost / bound
            _LOG.warning("%s: a call cost %.4f USD, and %.4f was set aside", model.model, cost, bound)
        return cost

    def bound(self, request: ChatRequest) -> float:
        """The most that a call can cost, in USD.

        Raises:
            GatewayError: If nobody knows the price of a hosted model. One behind an `api_base` of its own
                counts as free, with a warning, until it says that it is a model with a price.
        """
        model = request.model
        price = self.a_token(model)
        if price is not None:
            tokens_in = most_tokens_in(request.messages, request.images, self._tokens_an_image(model))
            bound = price[0] * tokens_in + price[1] * model.max_tokens
            return bound * self._overrun.get(model.model, 1.0)
        if model.api_base is None:
            raise GatewayError(
                f"{model.model} is in no price list, so no budget holds; give its prices under models.terms"
            )
        if alias := self._alias.get(model.model):
            raise GatewayError(
                f"{model.model} is in no price list and its server says that it is {alias}, which costs "
                "money, so no budget holds; give its prices under models.terms (0 if it is free)"
            )
        _warn_of_unknown_price(model.model)
        return 0.0

    def _tokens_an_image(self, model: TextModel) -> int:
        own = self.terms(model).tokens_per_image
        return own if own is not None else tokens_an_image(model.model)

    def _discounted(self, model: TextModel, usage: Usage, full: float) -> float:
        terms = self.terms(model)
        if terms.usd_per_million_in is not None or terms.usd_per_million_out is not None:
            return full
        try:
            paid = load_litellm().cost_per_token(
                model=model.model,
                prompt_tokens=usage.tokens_in,
                completion_tokens=usage.tokens_out,
                usage_object=usage.counted,
            )
        except Exception:  # as for a model that is not in its list
            return full
        return (terms.batch_price if terms.batch else 1.0) * float(sum(paid))


_NO_TERMS = ModelTerms.model_validate({})


def tokens_an_image(model: str) -> int:
    """The most tokens that one image counts for a model, by its name."""
    found = (tokens for pattern, tokens in _IMAGE_TOKENS if pattern.search(model.lower()))
    return next(found, _TOKENS_AN_IMAGE)


def most_tokens_in(messages: list[dict[str, Any]], images: int = 0, per_image: int = _TOKENS_AN_IMAGE) -> int:
    """More tokens than any tokenizer makes of the messages: it makes at most one of each byte."""
    text = sum(len(part.encode("utf-8", "replace")) for part in _texts(messages))
    shown = sum(
        part.get("type") == "image_url"
        for message in messages
        if not isinstance(message.get("content"), str)
        for part in message.get("content") or ()
    )
    return text + per_image * (images + shown) + _TOKENS_A_MESSAGE * len(messages)


def likely_tokens(messages: list[dict[str, Any]], images: int, model: TextModel) -> int:
    """Tokens in and out that a call is likely to take, for limits a minute; four bytes make a token."""
    text = sum(len(part) for part in _texts(messages))
    return text // 4 + 1_000 * images + _TOKENS_A_MESSAGE * len(messages) + model.max_tokens


@lru_cache(maxsize=256)
def _listed(model: str, providers: tuple[str, ...]) -> tuple[float, float] | None:
    """By litellm's list, to which provider modules may have added; the dearest where a price has steps."""
    litellm = load_litellm()
    try:
        paid_in, paid_out = litellm.cost_per_token(
            model=model, prompt_tokens=1_000_000, completion_tokens=1_000_000
        )
        thinking = litellm.get_model_info(model).get("output_cost_per_reasoning_token") or 0.0
    except Exception:  # litellm raises a bare one for a model that is not in its list
        return None
    return float(paid_in) / 1e6, max(float(paid_out) / 1e6, float(thinking))


@lru_cache(maxsize=256)
def _warn_of_unknown_price(model: str) -> None:
    _LOG.warning("%s has no known price: its calls count as free under the budget", model)


def _texts(messages: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        else:
            yield from (str(part["text"]) for part in content or () if part.get("type") == "text")
