"""What a call costs: by the settings' own prices, or else by litellm's price list."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from safevid_core.models.providers import GatewayError, load_litellm
from safevid_core.settings import GatewaySettings, ModelTerms, TextModel

# More than any provider counts for one image of a video's size.
_TOKENS_AN_IMAGE = 3_000
_TOKENS_A_MESSAGE = 16
_LOG = logging.getLogger(__name__)


class Prices:
    """USD a token of each model under some settings."""

    def __init__(self, models: GatewaySettings) -> None:
        self._terms = models.terms
        self._providers = models.providers

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

    def cost(self, model: TextModel, read: Mapping[str, Any]) -> float:
        """What an answered call cost. litellm's own figure stands where it has one: it knows discounts."""
        terms = self.terms(model)
        own = terms.usd_per_million_in is not None or terms.usd_per_million_out is not None
        if not own and not terms.batch:
            return float(read["cost_usd"])
        price = self.a_token(model) or (0.0, 0.0)
        return price[0] * int(read["tokens_in"]) + price[1] * int(read["tokens_out"])

    def bound(self, model: TextModel, messages: list[dict[str, Any]], images: int = 0) -> float:
        """The most that a call can cost, in USD.

        Raises:
            GatewayError: If nobody knows the price of a hosted model. One behind an `api_base` of its own
                counts as free, with a warning.
        """
        price = self.a_token(model)
        if price is not None:
            return price[0] * most_tokens_in(messages, images) + price[1] * model.max_tokens
        if model.api_base is None:
            raise GatewayError(
                f"{model.model} is in no price list, so no budget holds; give its prices under models.terms"
            )
        _warn_of_unknown_price(model.model)
        return 0.0


_NO_TERMS = ModelTerms.model_validate({})


def most_tokens_in(messages: list[dict[str, Any]], images: int = 0) -> int:
    """More tokens than any tokenizer makes of the messages: it makes at most one of each byte."""
    text = sum(len(part.encode("utf-8", "replace")) for part in _texts(messages))
    shown = sum(
        part.get("type") == "image_url"
        for message in messages
        if not isinstance(message.get("content"), str)
        for part in message.get("content") or ()
    )
    return text + _TOKENS_AN_IMAGE * (images + shown) + _TOKENS_A_MESSAGE * len(messages)


def likely_tokens(messages: list[dict[str, Any]], images: int, model: TextModel) -> int:
    """Tokens in and out that a call is likely to take, for limits a minute; four bytes make a token."""
    text = sum(len(part) for part in _texts(messages))
    return text // 4 + 1_000 * images + _TOKENS_A_MESSAGE * len(messages) + model.max_tokens


@lru_cache(maxsize=256)
def _listed(model: str, providers: tuple[str, ...]) -> tuple[float, float] | None:
    """By litellm's price list, to which the provider modules may have added."""
    try:
        paid_in, paid_out = load_litellm().cost_per_token(
            model=model, prompt_tokens=1_000_000, completion_tokens=1_000_000
        )
    except Exception:  # litellm raises a bare one for a model that is not in its list
        return None
    return float(paid_in) / 1e6, float(paid_out) / 1e6


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
