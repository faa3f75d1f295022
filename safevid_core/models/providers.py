"""Text model providers through litellm: one call, and what became of it.

Nothing here knows the ledger. A call gives a response that :func:`read_response` reads, or raises an
error that :func:`fault_of` sorts into what is worth another try and what is not.
"""

from __future__ import annotations

import ast
import asyncio
import email.utils
import importlib
import logging
import math
import os
import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from safevid_core.models.filters import (
    is_broken_off,
    is_cut,
    is_filter_error,
    is_filter_stop,
    is_filtered_body,
)
from safevid_core.settings import Settings, TextModel

PROVIDER_REFUSAL = "provider_refusal"
LONGEST_WAIT_S = 120.0  # a provider that asks for more is left alone instead
_BACKOFF_S = 0.5
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
_KEYS_IN_USE: set[str] = set()
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "openai")


class GatewayError(RuntimeError):
    """A gateway that cannot ask at all: a missing key, an unknown provider module."""


async def complete(model: TextModel, messages: list[dict[str, Any]], timeout_s: float) -> Any:
    """One call, sent once; litellm's response or its error."""
    litellm = load_litellm()
    _skip_callbacks()
    # An answer that drips without end passes litellm's own timeout, which is a read's.
    async with asyncio.timeout(timeout_s * 1.1 + 1):
        try:
            return await litellm.acompletion(
                model=model.model,
                messages=messages,
                temperature=model.temperature,
                max_tokens=model.max_tokens,
                api_base=model.api_base,
                api_key=api_key(model),
                timeout=timeout_s,
                num_retries=0,
                max_retries=0,
            )
        except Exception as error:
            body = _answer_within(error)
            if body is None:
                raise
            return response_of(body)


# How litellm 1.106 words a 200 whose form it does not know, with the body behind it.
_NOT_ITS_FORM = "Invalid response object"
_BODY = ("\n\nreceived_args={'response_object': ", ", 'model_response_object': ")


def _answer_within(error: Exception) -> dict[str, Any] | None:
    """The body of an answer that came and was paid for, though litellm raises an error with status 500.

    None for every other error; empty where the body is not to be had.
    """
    said = str(error)
    if _NOT_ITS_FORM not in said:
        return None
    _, found, behind = said.partition(_BODY[0])
    try:
        body = ast.literal_eval(behind.rpartition(_BODY[1])[0]) if found else {}
    except (ValueError, SyntaxError):
        return {}
    return body if isinstance(body, dict) else {}


def response_of(body: Mapping[str, Any]) -> Any:
    """litellm's response of a chat completion's body: of whatever form, what is read of it here is kept."""
    from litellm import ModelResponse
    from litellm.litellm_core_utils.llm_response_utils.convert_dict_to_response import (
        convert_to_model_response_object,
    )

    choices = body.get("choices")
    plain = {
        "id": str(body.get("id") or ""),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": str(body.get("model") or ""),
        "choices": [
            _plain_choice(choice)
            for choice in (choices if isinstance(choices, list) else ())
            if isinstance(choice, Mapping)
        ],
        "usage": _plain_usage(body.get("usage")),
    }
    if not plain["choices"]:
        return ModelResponse(choices=[], usage=plain["usage"], model=plain["model"])
    return convert_to_model_response_object(response_object=plain, model_response_object=ModelResponse())


def _plain_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    texts = {name: message[name] for name in ("refusal",) if isinstance(message.get(name), str)}
    reasons = ("finish_reason", "native_finish_reason")
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text_of(message.get("content")), **texts},
        **{name: choice[name] for name in reasons if isinstance(choice.get(name), str)},
    }


def _plain_usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, Mapping):
        return None
    counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    if not all(isinstance(count, (int, float)) and math.isfinite(count) for count in counts.values()):
        return None
    whole = {name: math.ceil(count) for name, count in counts.items()}  # type: ignore[arg-type]
    details = {
        name: {kind: count for kind, count in told.items() if isinstance(count, int)}
        for name in ("prompt_tokens_details", "completion_tokens_details")
        if isinstance(told := usage.get(name), Mapping)
    }
    return {**whole, "total_tokens": sum(whole.values()), **details}


def headers_of(response: Any) -> Mapping[str, str]:
    """A response's HTTP headers by lower-case name; empty where it came by no HTTP."""
    return (getattr(response, "_hidden_params", None) or {}).get("headers") or {}


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a provider says an answer took.

    Attributes:
        counted: litellm's own object, which tells cached tokens and the like apart.
    """

    tokens_in: int
    tokens_out: int
    counted: Any = None


def usage_of(response: Any) -> Usage | None:
    """What an answer took; None where the provider does not say, or says what cannot be."""
    usage = getattr(response, "usage", None)
    try:
        found = Usage(int(usage.prompt_tokens), int(usage.completion_tokens), usage)  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        return None
    # litellm 1.106 writes zeros for a usage that is missing.
    wrote = any(text_of(choice.message.content) for choice in response.choices)
    return found if found.tokens_in > 0 and found.tokens_out >= wrote else None


def listed_price_of(response: Any) -> str:
    """The model that the provider says it is, where litellm's price list has it; else empty."""
    hidden = getattr(response, "_hidden_params", None) or {}
    return str(getattr(response, "model", "") or "") if hidden.get("response_cost") else ""


def read_response(response: Any) -> dict[str, Any]:
    """What of an answer the ledger keeps, but for what it cost."""
    usage = usage_of(response) or Usage(0, 0)
    read: dict[str, Any] = {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
    if not response.choices:
        return {**read, "outcome": "failed", "reason": "the answer holds no choice"}
    choice = response.choices[0]
    text = text_of(choice.message.content)
    finish = _finish_of(choice)
    read |= {"text": text, "finish_reason": finish}
    filtered = is_filter_stop(finish) or is_filtered_body(getattr(response, "model_extra", None) or {})
    if filtered or (not text and _says_no(choice.message)):
        return {**read, "outcome": "undecidable", "reason": PROVIDER_REFUSAL}
    if not (text or "").strip():
        return {**read, "outcome": "failed", "reason": f"empty answer (finish reason {finish or 'none'})"}
    if is_broken_off(finish) or _own_fields(choice).get("error"):
        return {**read, "outcome": "failed", "reason": f"the provider broke off (finish reason {finish})"}
    return {**read, "outcome": "ok"}


def text_of(content: Any) -> str | None:
    """The text of a message's content: itself, or that of its parts, one after the other."""
    if content is None or isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part_text(part) for part in parts]
    return "".join(text for text in texts if text)


def _part_text(part: Any) -> str:
    given = part if isinstance(part, Mapping) else vars(part) if hasattr(part, "__dict__") else {}
    text = given.get("text")
    is_thought = (
        given.get("type") in ("thinking", "reasoning", "redacted_thinking") or given.get("thought") is True
    )
    return text if isinstance(text, str) and not is_thought else ""


def _finish_of(choice: Any) -> str:
    """The provider's own finish reason; litellm 1.106 turns those that it does not know into `stop`."""
    told = str(choice.finish_reason or "")
    own = _own_fields(choice).get("native_finish_reason")
    if own and (is_filter_stop(str(own)) or is_cut(str(own))):
        return str(own)
    # Where litellm knows better what a reason means, as with Gemini's OTHER, its word stays.
    return str(own) if own and is_broken_off(str(own)) and not is_filter_stop(told) else told


def _own_fields(choice: Any) -> Mapping[str, Any]:
    """The provider's own fields of a choice or message, where litellm 1.106 puts what it does not know."""
    fields = getattr(choice, "provider_specific_fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _says_no(message: Any) -> bool:
    # OpenAI's field `refusal`; litellm 1.106 moves it among the provider's own fields.
    return bool(getattr(message, "refusal", None) or _own_fields(message).get("refusal"))


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call gave no answer.

    Attributes:
        status: The HTTP status, where there was one.
        transient: Whether another try may succeed.
        refusal: Whether a filter of the provider stopped the request.
    """

    status: int | None
    line: str
    transient: bool
    refusal: bool
    retry_after_s: float | None = None

    @property
    def provider_is_there(self) -> bool:
        """Whether the provider answered at all, if only with a no."""
        return self.status is not None and self.status != 408 and self.status < 500

    @property
    def mendable(self) -> bool:
        """Whether the same question may be answered when the provider is back, or a key is set right."""
        return not self.refusal and (self.transient or self.status in (401, 403, 404))

    def wait_s(self, attempt: int) -> float:
        """Backoff that doubles, with jitter over half of it; never less than Retry-After."""
        backoff = min(_BACKOFF_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
        return max(backoff, self.retry_after_s or 0.0)

    def mend(self, model: TextModel) -> str:
        if self.status in (401, 403):
            return f"check the key in {model.api_key_env or 'the environment'}"
        if self.status == 404:
            return "check the model's name and api_base"
        if self.transient:
            return "the provider did not answer; run again later"
        return "change the request or the model's settings"


def fault_of(error: Exception) -> Fault:
    """What an error of :func:`complete` means for the question."""
    import openai

    known = load_litellm().exceptions
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) else None
    timeout = isinstance(error, (TimeoutError, known.Timeout, openai.APITimeoutError))
    unreachable = isinstance(error, openai.APIConnectionError)  # litellm's own is one of these
    refusal = isinstance(error, known.ContentPolicyViolationError) or is_filter_error(
        status, f"{error} {getattr(error, 'body', '')}"
    )
    busy = status is not None and (status in (408, 409, 425, 429) or status >= 500)
    line = "timed out" if timeout else one_line(error)
    return Fault(status, line, timeout or unreachable or busy, refusal, _retry_after(error))


def _retry_after(error: Exception) -> float | None:
    """Seconds asked for by a `Retry-After` header, a number or a date; None where there is none."""
    for headers in (
        getattr(getattr(error, "response", None), "headers", None),
        getattr(error, "litellm_response_headers", None),
    ):
        value = (headers or {}).get("retry-after")
        if value is None:
            continue
        try:
            return max(float(value), 0.0)
        except ValueError:
            pass
        try:
            return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
        except ValueError:
            continue
    return None


def one_line(error: BaseException) -> str:
    """An error's first line, redacted and short."""
    lines = redact(str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def without_secrets(error: BaseException) -> BaseException:
    """The error itself, or its first line alone where its words hold a secret."""
    said = str(error)
    return error if redact(said) == said else GatewayError(f"{type(error).__name__}: {one_line(error)}")


@lru_cache(maxsize=1)
def load_litellm() -> Any:
    """litellm, imported at the first call that needs it, quiet and without a look at the network."""
    # The import asks for a price list over the network three times unless told not to.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = True
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _skip_callbacks() -> None:
    """Spare this task litellm's success callbacks, of which there are none: a third of its work a call."""
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:  # an internal name of litellm 1.106; without it calls are only slower
        return
    is_internal_call.set(True)


def register_providers(settings: Settings) -> None:
    """Let each module in `models.providers` add what it provides.

    Raises:
        GatewayError: If a module cannot be imported.
    """
    load_litellm()
    for name in settings.models.providers:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise GatewayError(
                f"provider module {name} cannot be imported ({error}); mend models.providers"
            ) from None
        module.register(settings.root)


def api_key(model: TextModel) -> str | None:
    """The key that a model's settings name, None to leave the choice to litellm.

    Raises:
        GatewayError: If the variable that is named holds nothing, or what no header can carry.
    """
    if model.api_key_env is None:
        # Without this litellm would send the user's OpenAI key to whatever server is named.
        return "none" if model.api_base else None
    key = os.environ.get(model.api_key_env, "").strip()
    if not key:
        raise GatewayError(f"{model.model}: environment variable {model.api_key_env} holds no key; set it")
    if not (key.isascii() and key.isprintable()):
        raise GatewayError(
            f"{model.model}: the key in environment variable {model.api_key_env} holds characters that no "
            "header can carry; set it again"
        )
    _KEYS_IN_USE.add(key)
    return key


def storable(text: str, secrets: Iterable[str]) -> str:
    """An answer as a database takes it: without secrets, NUL bytes and halves of surrogate pairs."""
    return redact(text.replace("\0", ""), secrets).encode("utf-8", "replace").decode()


def redact(text: str, secrets: Iterable[str] | None = None) -> str:
    """The text without any of the secrets; without those of this process by default."""
    for secret in known_secrets() if secrets is None else secrets:
        text = text.replace(secret, "[redacted]")
    return text


def known_secrets() -> set[str]:
    """The keys in use, and what the environment holds under a secret's name."""
    # Shorter values of the environment are words, which may stand in an honest answer.
    held = {
        v for name, v in os.environ.items() if len(v) >= 16 and " " not in v and _SECRET_NAME.search(name)
    }
    return held | _KEYS_IN_USE
