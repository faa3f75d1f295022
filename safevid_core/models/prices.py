"""Cost of a call and its upper bound. Both use the price in the settings, or else litellm's price list."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from safevid_core.models.chat import ChatRequest
from safevid_core.models.providers import GatewayError, Usage, load_litellm, usage_of
from safevid_core.settings import GatewaySettings, ModelTerms, TextModel

# Maximum number of tokens that a provider counts for one image, by the model's name. The first pattern that
# matches counts. Source: the providers' pages on vision. OpenAI counts a base and eight tiles, or patches.
_IMAGE_TOKENS = tuple(
    (re.compile(pattern), tokens)
    for pattern, tokens in (
        (r"gpt-4o-mini", 2_833 + 8 * 5_667),
        (r"gpt-(5\.[4-9]|[6-9]).*(mini|nano)", 24_600),
        (r"gpt-(5\.[4-9]|[6-9])", 10_000),
        (r"qwen|qvq", 16_386),
        (r"llama", 6_500),
        (r"gpt-|chatgpt|claude|gemini|pixtral|mistral", 5_000),
    )
)
_TOKENS_AN_IMAGE = 5_000  # for all other models
_TOKENS_A_MESSAGE = 16
_TOKENS_A_TEMPLATE = 256  # tokens that a chat template adds; the template of gpt-oss adds 76
_LOG = logging.getLogger(__name__)


class Prices:
    """Prices per token of each model under some settings."""

    def __init__(self, models: GatewaySettings) -> None:
        self._terms = models.terms
        self._providers = models.providers
        # Model whose calls cost more than was reserved -> factor on its bound from then on.
        self._overrun: dict[str, float] = {}
        # Model without a known price -> the model with a price that its server reports.
        self._alias: dict[str, str] = {}
        # Models without a known price in a run with a budget, until one question to each is answered.
        self._untried: dict[str, asyncio.Lock] = {}
        self._tried: set[str] = set()

    def terms(self, model: TextModel) -> ModelTerms:
        """Return the model's entry in `models.terms`, or the default."""
        return self._terms.get(model.model, _NO_TERMS)

    def a_token(self, model: TextModel) -> tuple[float, float] | None:
        """Return USD per input token and per output token, with the batch discount. None if unknown."""
        terms = self.terms(model)
        share = terms.batch_price if terms.batch else 1.0
        if terms.usd_per_million_in is not None and terms.usd_per_million_out is not None:
            return share * terms.usd_per_million_in / 1e6, share * terms.usd_per_million_out / 1e6
        listed = _listed(model.model, self._providers)
        return None if listed is None else (share * listed[0], share * listed[1])

    def cost(self, request: ChatRequest, response: Any) -> float:
        """Return the cost of an answered call, in USD.

        The price is that of :meth:`bound`, less a discount that litellm knows, such as for cached tokens. If
        the reply does not report its usage, the cost is the bound.
        """
        model, usage = request.model, usage_of(response)
        price = self.a_token(model)
        if price is None:
            if alias := self._listed_name(model, response):
                self._alias[model.model] = alias
            self._tried.add(model.model)
            self._untried.pop(model.model, None)
            return 0.0
        bound = self._most(request, price)
        if usage is None:
            return bound
        cost = price[0] * usage.tokens_in + price[1] * usage.tokens_out
        cost = min(cost, self._discounted(model, usage, cost))
        if cost > bound > 0:
            self._overrun[model.model] = self._overrun.get(model.model, 1.0) * cost / bound
            _LOG.warning("%s: a call cost %.4f USD, and %.4f was reserved", model.model, cost, bound)
        return cost

    def bound(self, request: ChatRequest) -> float:
        """Return the upper bound of a call's cost, in USD.

        A model behind its own `api_base` without a known price counts as free, with a warning.

        Raises:
            GatewayError: If the price of a hosted model is unknown, if the tokens of an image are unknown for
                a model that costs money, or if a server without a known price reports a model with a price.
                For batch files the price must be known beforehand, because that report would come too late.
        """
        model = request.model
        price = self.a_token(model)
        if price is not None:
            if price[0] and _images(request):
                self._refuse_unknown_images(model)
            return self._most(request, price)
        if model.api_base is None:
            raise GatewayError(
                f"{model.model} is in no price list, so no budget holds; give its prices under models.terms"
            )
        self._refuse_alias(model)
        if self.terms(model).batch:
            raise GatewayError(
                f"{model.model} is in no price list, so no budget holds for its batch files; give its prices "
                "under models.terms (0 if it is free)"
            )
        if model.model not in self._tried:
            self._untried.setdefault(model.model, asyncio.Lock())
        _warn_of_unknown_price(model.model)
        return 0.0

    @asynccontextmanager
    async def one_first(self, model: TextModel) -> AsyncIterator[None]:
        """Limit a model without a known price to one question at a time, until its first answer.

        The first answer reports which model the server runs. Without a budget there is no such limit.

        Raises:
            GatewayError: If the server reports a model with a price.
        """
        untried = self._untried.get(model.model)
        if untried is not None:
            async with untried:
                if model.model in self._untried:
                    yield
                    return
            self._refuse_alias(model)
        yield

    def _refuse_alias(self, model: TextModel) -> None:
        if alias := self._alias.get(model.model):
            raise GatewayError(
                f"{model.model} is in no price list and its server says that it is {alias}, which costs "
                "money, so no budget holds; give its prices under models.terms (0 if it is free)"
            )

    def _listed_name(self, model: TextModel, response: Any) -> str:
        """Return the model that the server reports, if litellm's list has a price of it. Else empty."""
        provider = model.model.partition("/")[0]
        name = str(getattr(response, "model", None) or "").removeprefix(f"{provider}/")
        return name if name and any(_listed(name, self._providers) or ()) else ""

    def _most(self, request: ChatRequest, price: tuple[float, float]) -> float:
        model = request.model
        own = self.terms(model).tokens_per_image
        per_image = own if own is not None else tokens_an_image(model.model)
        tokens_in = most_tokens_in(request.messages, request.images, per_image)
        bound = price[0] * tokens_in + price[1] * model.max_tokens
        return bound * self._overrun.get(model.model, 1.0)

    def _refuse_unknown_images(self, model: TextModel) -> None:
        if self.terms(model).tokens_per_image is not None or _is_known(model.model):
            return
        if _listed(model.model, self._providers) is None:
            raise GatewayError(
                f"{model.model} is in no list, so the tokens of an image are unknown and no budget holds; "
                "give its tokens_per_image under models.terms"
            )

    def _discounted(self, model: TextModel, usage: Usage, full: float) -> float:
        terms = self.terms(model)
        if terms.usd_per_million_in is not None:
            return full
        try:
            litellm = load_litellm()
            paid = litellm.cost_per_token(
                model=model.model,
                prompt_tokens=usage.tokens_in,
                completion_tokens=usage.tokens_out,
                usage_object=_counted(litellm, usage),
            )
        except Exception:  # litellm raises one for a model that is not in its list
            return full
        return (terms.batch_price if terms.batch else 1.0) * float(sum(paid))


_NO_TERMS = ModelTerms.model_validate({})


def _counted(litellm: Any, usage: Usage) -> Any:
    # Each detail needs its counterpart: with `reasoning_tokens` alone litellm would charge for these only.
    written = {"reasoning_tokens": usage.thought, "text_tokens": usage.tokens_out - usage.thought}
    return litellm.Usage(
        prompt_tokens=usage.tokens_in,
        completion_tokens=usage.tokens_out,
        total_tokens=usage.tokens_in + usage.tokens_out,
        prompt_tokens_details={"cached_tokens": usage.cached} if usage.cached else None,
        completion_tokens_details=written if usage.thought else None,
    )


def tokens_an_image(model: str) -> int:
    """Return the maximum number of tokens that one image counts for a model, by its name."""
    found = (tokens for pattern, tokens in _IMAGE_TOKENS if pattern.search(model.lower()))
    return next(found, _TOKENS_AN_IMAGE)


def _is_known(model: str) -> bool:
    return any(pattern.search(model.lower()) for pattern, _ in _IMAGE_TOKENS)


def most_tokens_in(messages: list[dict[str, Any]], images: int = 0, per_image: int = _TOKENS_AN_IMAGE) -> int:
    """Return an upper bound of the tokens of some messages. A tokenizer makes at most one token of each byte.

    Args:
        messages: Chat messages.
        images: Number of further images. Defaults to 0.
        per_image: Tokens of an image. Defaults to 5,000.
    """
    text = sum(len(part.encode("utf-8", "replace")) for part in _texts(messages))
    around = _TOKENS_A_TEMPLATE + _TOKENS_A_MESSAGE * len(messages)
    return text + per_image * (images + _shown(messages)) + around


def _images(request: ChatRequest) -> int:
    return request.images + _shown(request.messages)


def _shown(messages: Iterable[Mapping[str, Any]]) -> int:
    return sum(
        part.get("type") == "image_url"
        for message in messages
        if not isinstance(message.get("content"), str)
        for part in message.get("content") or ()
    )


def likely_tokens(messages: list[dict[str, Any]], images: int, model: TextModel) -> int:
    """Return an estimate of a call's input and output tokens, for the rate limits, at 4 bytes per token."""
    text = sum(len(part) for part in _texts(messages))
    return text // 4 + 1_000 * images + _TOKENS_A_MESSAGE * len(messages) + model.max_tokens


@lru_cache(maxsize=256)
def _listed(model: str, providers: tuple[str, ...]) -> tuple[float, float] | None:
    """Return USD per input and per output token from litellm's list. None if the model is not in it.

    Provider modules may add to the list. Of a stepped price the highest counts.
    """
    litellm = load_litellm()
    try:
        paid_in, paid_out = litellm.cost_per_token(
            model=model, prompt_tokens=1_000_000, completion_tokens=1_000_000
        )
        thinking = litellm.get_model_info(model).get("output_cost_per_reasoning_token") or 0.0
    except Exception:  # litellm raises a plain Exception for a model that is not in its list
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
