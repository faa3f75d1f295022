"""Text model providers through litellm: one call, and what became of it.

Nothing here knows the ledger. A call gives a response that :func:`read_response` reads, or raises an
error that :func:`fault_of` sorts into what is worth another try and what is not.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib
import json
import logging
import math
import os
import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
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


class ErrorInAnswer(RuntimeError):
    """A 200 that holds an error and no answer.

    Attributes:
        status_code: The HTTP status that the error's code or words stand for.
    """

    def __init__(self, status_code: int, words: str) -> None:
        super().__init__(f"a 200 that holds an error and no answer: {words}")
        self.status_code = status_code


async def complete(model: TextModel, messages: list[dict[str, Any]], timeout_s: float) -> Any:
    """One call, sent once: litellm's response, read from the body where litellm cannot.

    Raises:
        ErrorInAnswer: For a 200 whose JSON object holds an error and no answer.
        Exception: litellm's own, for any other status and for a 200 whose body is no JSON object.
    """
    litellm = load_litellm()
    _skip_callbacks()
    bodies: list[str] = []
    # An answer that drips without end passes litellm's own timeout, which is a read's.
    async with asyncio.timeout(timeout_s * 1.1 + 1):
        try:
            response = await litellm.acompletion(
                model=model.model,
                messages=messages,
                temperature=model.temperature,
                max_tokens=model.max_tokens,
                api_base=model.api_base,
                api_key=api_key(model),
                timeout=timeout_s,
                num_retries=0,
                max_retries=0,
                logger_fn=partial(_keep_body, bodies),
            )
        except Exception as error:
            body = _object_in(bodies)
            if body is None:
                raise
            return _answer_in(body, error)
    body = None if response.choices else _object_in(bodies)
    return response if body is None else _answer_in(body, None)


def _keep_body(bodies: list[str], details: Mapping[str, Any]) -> None:
    """Keep the body of a 200, which litellm 1.106 shows its `logger_fn` before it reads it."""
    body = details.get("original_response")
    if details.get("log_event_type") == "post_api_call" and isinstance(body, str):
        bodies.append(body)


def _object_in(bodies: list[str]) -> dict[str, Any] | None:
    """The JSON object of the last body; None where there is no body or it is no object."""
    try:
        body = json.loads(bodies[-1]) if bodies else None
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _answer_in(body: Mapping[str, Any], cause: Exception | None) -> Any:
    """The response of a 200's body, which was paid for, unless it holds an error and no answer."""
    response = response_of(body)
    error = _error_in(body)
    if error is None or usage_of(response) or any(text_of(each.message.content) for each in response.choices):
        return response
    words = json.dumps(error, ensure_ascii=False)
    raise ErrorInAnswer(_status_of(error, words), words) from cause


def _error_in(body: Mapping[str, Any]) -> Any:
    """What a body says of an error: `error`, MiniMax's `base_resp`, or `message` in place of choices."""
    error = body.get("error")
    if any(error.values()) if isinstance(error, Mapping) else error:
        return error
    told = body.get("base_resp")
    if isinstance(told, Mapping) and str(told.get("status_code") or 0) != "0":
        return told
    words = body.get("message") or body.get("msg")
    return {**body} if isinstance(words, str) and not body.get("choices") else None


# Words of an error without an HTTP status that passes by itself.
_PASSING = re.compile(
    r"rate.?limit|too many|overload|busy|capacity|tim(?:e|ed).?out|try again|temporar|unavailable|internal",
    re.IGNORECASE,
)


def _status_of(error: Any, words: str) -> int:
    for name in ("code", "status", "status_code") if isinstance(error, Mapping) else ():
        code = str(error.get(name))
        if re.fullmatch("[45][0-9][0-9]", code):
            return int(code)
    if is_filter_error(400, words):
        return 400
    return 503 if _PASSING.search(words) else 422


# Fields beside the choices that say how the answer ended.
_BESIDE = ("base_resp", "input_sensitive", "output_sensitive", "contentFilter", "content_filter", "error")


def response_of(body: Mapping[str, Any]) -> Any:
    """litellm's response of a chat completion's body: of whatever form, what is read of it here is kept."""
    from litellm import ModelResponse
    from litellm.litellm_core_utils.llm_response_utils.convert_dict_to_response import (
        convert_to_model_response_object,
    )

    choices = body.get("choices")
    choices = [choices] if isinstance(choices, Mapping) else choices if isinstance(choices, list) else []
    plain = {
        "id": str(body.get("id") or ""),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": str(body.get("model") or ""),
        "choices": [_plain_choice(choice) for choice in choices if choice and isinstance(choice, Mapping)],
        "usage": _plain_usage(body.get("usage")),
    }
    if plain["choices"]:
        response: Any = convert_to_model_response_object(
            response_object=plain, model_response_object=ModelResponse()
        )
    else:
        response = ModelResponse(choices=[], usage=plain["usage"], model=plain["model"])
    for name in _BESIDE:
        if body.get(name):
            setattr(response, name, body[name])
    return response


def _plain_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    told = choice.get("message")
    message = told if isinstance(told, Mapping) else {"content": told or choice.get("text")}
    names = ("refusal", "reasoning_content", "reasoning")
    texts = {name: message[name] for name in names if isinstance(message.get(name), str)}
    reasons = ("finish_reason", "native_finish_reason")
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text_of(message.get("content")), **texts},
        **{name: choice[name] for name in reasons if isinstance(choice.get(name), str)},
        **({"error": choice["error"]} if choice.get("error") else {}),
    }


def _plain_usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, Mapping):
        return None
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    counts = {name: math.ceil(usage[name]) for name in names if _is_count(usage.get(name))}
    if "prompt_tokens" not in counts or len(counts) == 1:
        return None
    counts.setdefault("completion_tokens", counts.get("total_tokens", 0) - counts["prompt_tokens"])
    counts.setdefault("total_tokens", counts["prompt_tokens"] + counts["completion_tokens"])
    details = {
        name: {kind: count for kind, count in told.items() if isinstance(count, int)}
        for name in ("prompt_tokens_details", "completion_tokens_details")
        if isinstance(told := usage.get(name), Mapping)
    }
    return {**counts, **details}


def _is_count(told: Any) -> bool:
    return isinstance(told, (int, float)) and math.isfinite(told)


def headers_of(response: Any) -> Mapping[str, str]:
    """A response's HTTP headers by lower-case name; empty where it came by no HTTP."""
    return (getattr(response, "_hidden_params", None) or {}).get("headers") or {}


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a provider says an answer took.

    Attributes:
        cached: Those of `tokens_in` that it read from a cache.
        thought: Those of `tokens_out` that it thought.
    """

    tokens_in: int
    tokens_out: int
    cached: int = 0
    thought: int = 0


_MOST_TOKENS = 2**31 - 1  # what a database's column holds; no answer takes so many


def usage_of(response: Any) -> Usage | None:
    """What an answer took; None where the provider does not say, or says what cannot be.

    Tokens out are what the total leaves where that is more: some providers count thoughts there alone.
    """
    usage = getattr(response, "usage", None)
    try:
        tokens_in, told = int(usage.prompt_tokens), int(usage.completion_tokens)  # type: ignore[union-attr]
        tokens_out = max(told, int(getattr(usage, "total_tokens", None) or 0) - tokens_in)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    thinks = any(_thoughts_of(choice.message) for choice in response.choices)
    # litellm 1.106 writes zeros for a usage that is missing.
    wrote = thinks or any(
        text_of(choice.message.content) or is_cut(_finish_of(choice)) for choice in response.choices
    )
    if not (0 < tokens_in <= _MOST_TOKENS and wrote <= tokens_out <= _MOST_TOKENS):
        return None
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    thought = _detail(usage, "completion_tokens_details", "reasoning_tokens") or thinks * tokens_out
    return Usage(tokens_in, tokens_out, min(cached, tokens_in), min(thought, tokens_out))


def _detail(usage: Any, details: str, name: str) -> int:
    told = getattr(getattr(usage, details, None), name, None)
    return max(told, 0) if isinstance(told, int) else 0


def _thoughts_of(message: Any) -> bool:
    names = ("reasoning_content", "reasoning", "thinking_blocks")
    return any(getattr(message, name, None) for name in names)


def read_response(response: Any) -> dict[str, Any]:
    """What of an answer the ledger keeps, but for what it cost."""
    usage = usage_of(response) or Usage(0, 0)
    read: dict[str, Any] = {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
    beside = getattr(response, "model_extra", None) or {}
    stopped = is_filtered_body(beside) or is_filter_error(400, str(beside.get("error")))
    if stopped and not response.choices:
        return {**read, "outcome": "undecidable", "reason": PROVIDER_REFUSAL}
    if not response.choices:
        return {**read, "outcome": "failed", "reason": "the answer holds no choice"}
    choice = response.choices[0]
    text = text_of(choice.message.content)
    finish = _finish_of(choice)
    read |= {"text": text, "finish_reason": finish}
    if stopped or is_filter_stop(finish) or (not text and _says_no(choice.message)):
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
