"""Calls to text model providers through litellm.

:func:`complete` returns a reply or raises an error. :func:`read_response` reads a reply. :func:`fault_of`
classifies an error: whether a retry may succeed, and whether a filter refused. This module does not use the
ledger.
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

from safevid_core.contracts.errors import SafeVidError
from safevid_core.models.filters import (
    is_broken_off,
    is_cut,
    is_filter_error,
    is_filter_stop,
    is_filtered_body,
)
from safevid_core.settings import Settings, TextModel

PROVIDER_REFUSAL = "provider_refusal"
LONGEST_WAIT_S = 120.0  # with a longer Retry-After the provider counts as down
_BACKOFF_S = 0.5
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
_KEYS_IN_USE: set[str] = set()
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "openai")


class GatewayError(SafeVidError, RuntimeError):
    """The gateway cannot ask. Examples: a missing API key, an unknown provider module."""


class ErrorInAnswer(RuntimeError):
    """A reply with HTTP status 200 that holds an error and no answer.

    Attributes:
        status_code: The HTTP status that fits the code or the words of the error.
    """

    def __init__(self, status_code: int, words: str) -> None:
        super().__init__(f"a 200 that holds an error and no answer: {words}")
        self.status_code = status_code


async def complete(model: TextModel, messages: list[dict[str, Any]], timeout_s: float) -> Any:
    """Send one call once and return litellm's `ModelResponse`.

    If litellm cannot read the body of a reply with status 200, it is read here.

    Args:
        model: The model.
        messages: Chat messages.
        timeout_s: Timeout in seconds.

    Raises:
        ErrorInAnswer: If a reply with status 200 holds an error and no answer.
        Exception: An error of litellm, for any other status and for a body that is not a JSON object.
    """
    litellm = load_litellm()
    _skip_callbacks()
    bodies: list[str] = []
    # litellm's timeout holds for each read. A reply in endless small pieces would never reach it.
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
    """Store the body of a reply with status 200. litellm 1.106 passes it to `logger_fn` before parsing."""
    body = details.get("original_response")
    if details.get("log_event_type") == "post_api_call" and isinstance(body, str):
        bodies.append(body)


def _object_in(bodies: list[str]) -> dict[str, Any] | None:
    """Return the JSON object of the last body. None if there is no body or it is not an object."""
    try:
        body = json.loads(bodies[-1]) if bodies else None
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _answer_in(body: Mapping[str, Any], cause: Exception | None) -> Any:
    """Return the response of a paid body with status 200.

    Raises:
        ErrorInAnswer: If it holds an error and no answer.
    """
    response = response_of(body)
    error = _error_in(body)
    if error is None or usage_of(response) or any(text_of(each.message.content) for each in response.choices):
        return response
    words = json.dumps(error, ensure_ascii=False)
    raise ErrorInAnswer(_status_of(error, words), words) from cause


def _error_in(body: Mapping[str, Any]) -> Any:
    """Return the error in a body: `error`, MiniMax's `base_resp`, or `message` without choices. Else None."""
    error = body.get("error")
    if any(error.values()) if isinstance(error, Mapping) else error:
        return error
    base = body.get("base_resp")
    if isinstance(base, Mapping) and str(base.get("status_code") or 0) != "0":
        return base
    words = body.get("message") or body.get("msg")
    return {**body} if isinstance(words, str) and not body.get("choices") else None


# Words of a passing error without an HTTP status.
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


# Fields outside the choices that say how the answer ended.
_END_FIELDS = ("base_resp", "input_sensitive", "output_sensitive", "contentFilter", "content_filter", "error")


def response_of(body: Mapping[str, Any]) -> Any:
    """Return litellm's response for the body of a chat completion in any form.

    It holds all fields that this module reads.
    """
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
    for name in _END_FIELDS:
        if body.get(name):
            setattr(response, name, body[name])
    return response


def _plain_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    given = choice.get("message")
    message = given if isinstance(given, Mapping) else {"content": given or choice.get("text")}
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
        name: {kind: count for kind, count in counted.items() if isinstance(count, int)}
        for name in ("prompt_tokens_details", "completion_tokens_details")
        if isinstance(counted := usage.get(name), Mapping)
    }
    return {**counts, **details}


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def headers_of(response: Any) -> Mapping[str, str]:
    """Return the HTTP headers of a response by lower-case name. Empty if it did not come by HTTP."""
    return (getattr(response, "_hidden_params", None) or {}).get("headers") or {}


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts that a provider reports.

    Attributes:
        tokens_in: Tokens of the question.
        tokens_out: Tokens of the answer, with its thinking.
        cached: Number of input tokens that were read from a cache.
        thought: Number of output tokens that are thinking.
    """

    tokens_in: int
    tokens_out: int
    cached: int = 0
    thought: int = 0


_MOST_TOKENS = 2**31 - 1  # maximum of the database column


def usage_of(response: Any) -> Usage | None:
    """Return the token counts of a reply. None if they are missing or impossible.

    The output tokens are `total - input` if that is larger, because some providers count thinking only in the
    total.
    """
    usage = getattr(response, "usage", None)
    try:
        tokens_in, completion = int(usage.prompt_tokens), int(usage.completion_tokens)  # type: ignore[union-attr]
        tokens_out = max(completion, int(getattr(usage, "total_tokens", None) or 0) - tokens_in)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    thinks = any(_thoughts_of(choice.message) for choice in response.choices)
    # litellm 1.106 writes zeros for a missing usage.
    wrote = thinks or any(
        text_of(choice.message.content) or is_cut(_finish_of(choice)) for choice in response.choices
    )
    if not (0 < tokens_in <= _MOST_TOKENS and wrote <= tokens_out <= _MOST_TOKENS):
        return None
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    thought = _detail(usage, "completion_tokens_details", "reasoning_tokens") or thinks * tokens_out
    return Usage(tokens_in, tokens_out, min(cached, tokens_in), min(thought, tokens_out))


def _detail(usage: Any, details: str, name: str) -> int:
    count = getattr(getattr(usage, details, None), name, None)
    return max(count, 0) if isinstance(count, int) else 0


def _thoughts_of(message: Any) -> bool:
    names = ("reasoning_content", "reasoning", "thinking_blocks")
    return any(getattr(message, name, None) for name in names)


def read_response(response: Any) -> dict[str, Any]:
    """Return the ledger's fields of a reply, without the cost."""
    usage = usage_of(response) or Usage(0, 0)
    read: dict[str, Any] = {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
    fields = getattr(response, "model_extra", None) or {}
    stopped = is_filtered_body(fields) or is_filter_error(400, str(fields.get("error")))
    if stopped and not response.choices:
        return {**read, "outcome": "undecidable", "reason": PROVIDER_REFUSAL}
    if not response.choices:
        return {**read, "outcome": "failed", "reason": "the answer holds no choice"}
    choice = response.choices[0]
    text = text_of(choice.message.content)
    finish = _finish_of(choice)
    read |= {"text": text, "finish_reason": finish}
    if stopped or is_filter_stop(finish) or (not text and _is_refusal(choice.message)):
        return {**read, "outcome": "undecidable", "reason": PROVIDER_REFUSAL}
    if not (text or "").strip():
        return {**read, "outcome": "failed", "reason": f"empty answer (finish reason {finish or 'none'})"}
    if is_broken_off(finish) or _own_fields(choice).get("error"):
        return {**read, "outcome": "failed", "reason": f"the provider broke off (finish reason {finish})"}
    return {**read, "outcome": "ok"}


def text_of(content: Any) -> str | None:
    """Return the text of a message's content, which is a string or a list of parts. Thinking is left out."""
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
    """Return the provider's own finish reason. litellm 1.106 turns unknown ones into `stop`."""
    reason = str(choice.finish_reason or "")
    own = _own_fields(choice).get("native_finish_reason")
    if own and (is_filter_stop(str(own)) or is_cut(str(own))):
        return str(own)
    # litellm's reason is better for some of the provider's, such as Gemini's OTHER.
    return str(own) if own and is_broken_off(str(own)) and not is_filter_stop(reason) else reason


def _own_fields(choice: Any) -> Mapping[str, Any]:
    """Return the fields of a choice or message that litellm 1.106 does not know."""
    fields = getattr(choice, "provider_specific_fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _is_refusal(message: Any) -> bool:
    # OpenAI's field `refusal`. litellm 1.106 moves it to the provider's own fields.
    return bool(getattr(message, "refusal", None) or _own_fields(message).get("refusal"))


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason why a call had no answer.

    Attributes:
        status: The HTTP status. None if there was none.
        line: The first line of the error, without secrets.
        transient: Whether a retry may succeed.
        refusal: Whether a filter of the provider stopped the request.
        retry_after_s: Seconds of the header `Retry-After`. None if there is none.
    """

    status: int | None
    line: str
    transient: bool
    refusal: bool
    retry_after_s: float | None = None

    @property
    def provider_is_there(self) -> bool:
        """Whether the provider replied, if only with an error."""
        return self.status is not None and self.status != 408 and self.status < 500

    @property
    def retryable(self) -> bool:
        """Whether the same question may get an answer later, or after a key or a name is corrected."""
        return not self.refusal and (self.transient or self.status in (401, 403, 404))

    def wait_s(self, attempt: int) -> float:
        """Return the seconds to wait: exponential backoff with jitter, and at least `Retry-After`."""
        backoff = min(_BACKOFF_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
        return max(backoff, self.retry_after_s or 0.0)

    def advice(self, model: TextModel) -> str:
        """Return what the user can do."""
        if self.status in (401, 403):
            return f"check the key in {model.api_key_env or 'the environment'}"
        if self.status == 404:
            return "check the model's name and api_base"
        if self.transient:
            return "the provider did not answer; run again later"
        return "change the request or the model's settings"


def fault_of(error: Exception) -> Fault:
    """Classify an error of :func:`complete`."""
    import openai

    known = load_litellm().exceptions
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) else None
    timeout = isinstance(error, (TimeoutError, known.Timeout, openai.APITimeoutError))
    unreachable = isinstance(error, openai.APIConnectionError)  # litellm's class is a subclass
    refusal = isinstance(error, known.ContentPolicyViolationError) or is_filter_error(
        status, f"{error} {getattr(error, 'body', '')}"
    )
    busy = status is not None and (status in (408, 409, 425, 429) or status >= 500)
    line = "timed out" if timeout else one_line(error)
    return Fault(status, line, timeout or unreachable or busy, refusal, _retry_after(error))


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of a `Retry-After` header, which is a number or a date. None without one."""
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
    """Return the first line of an error, redacted, at most 300 characters."""
    lines = redact(str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def without_secrets(error: BaseException) -> BaseException:
    """Return the error, or a `GatewayError` with its redacted first line if its message holds a secret."""
    message = str(error)
    return error if redact(message) == message else GatewayError(f"{type(error).__name__}: {one_line(error)}")


@lru_cache(maxsize=1)
def load_litellm() -> Any:
    """Return litellm, imported at the first call, without log output and without network access."""
    # Without this the import tries three times to load a price list over the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = True
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


def _skip_callbacks() -> None:
    """Switch off litellm's success callbacks for this task. They do nothing and take a third of its time."""
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:  # an internal name of litellm 1.106; without it calls are only slower
        return
    is_internal_call.set(True)


def register_providers(settings: Settings) -> None:
    """Import each module in `models.providers` and call its `register(root)`.

    Raises:
        GatewayError: If a module cannot be imported.
    """
    load_litellm()
    for name in settings.models.providers:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise GatewayError(
                f"provider module {name} cannot be imported ({error}); correct models.providers"
            ) from None
        module.register(settings.root)


def api_key(model: TextModel) -> str | None:
    """Return the API key that a model's settings name. None lets litellm choose.

    Raises:
        GatewayError: If the named variable is empty, or holds characters that an HTTP header cannot hold.
    """
    if model.api_key_env is None:
        # Without this litellm would send the user's OpenAI key to any server.
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
    """Return a text that a database accepts: without secrets, NUL bytes and lone surrogates."""
    return redact(text.replace("\0", ""), secrets).encode("utf-8", "replace").decode()


def redact(text: str, secrets: Iterable[str] | None = None) -> str:
    """Return the text with each secret replaced by `[redacted]`.

    Args:
        secrets: The secrets. None means those of this process (:func:`known_secrets`).
    """
    for secret in known_secrets() if secrets is None else secrets:
        text = text.replace(secret, "[redacted]")
    return text


def known_secrets() -> set[str]:
    """Return the API keys in use and the environment variables with a secret's name, such as `HF_TOKEN`."""
    # Values under 16 characters are left out, because they may be ordinary words.
    held = {
        v for name, v in os.environ.items() if len(v) >= 16 and " " not in v and _SECRET_NAME.search(name)
    }
    return held | _KEYS_IN_USE
