"""Text model providers through litellm: one call, and what became of it.

Nothing here knows the ledger. A call gives a response that :func:`read_response` reads, or raises an
error that :func:`fault_of` sorts into what is worth another try and what is not.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib
import logging
import os
import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from safevid_core.settings import Settings, TextModel

PROVIDER_REFUSAL = "provider_refusal"
LONGEST_WAIT_S = 120.0  # a provider that asks for more is left alone instead
_BACKOFF_S = 0.5
# Finish reasons by which a provider says that a filter of its own stopped the answer.
_FILTER_STOPS = frozenset({"content_filter", "content_filtered", "safety", "refusal", "guardrail_intervened"})
_FILTER_ERRORS = ("content_policy_violation", "content_filter")
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


def headers_of(response: Any) -> Mapping[str, str]:
    """A response's HTTP headers by lower-case name; empty where it came by no HTTP."""
    return (getattr(response, "_hidden_params", None) or {}).get("headers") or {}


def read_response(response: Any) -> dict[str, Any]:
    usage = getattr(response, "usage", None)
    hidden = getattr(response, "_hidden_params", None) or {}
    read: dict[str, Any] = {
        "tokens_in": int(getattr(usage, "prompt_tokens", 0) or 0),
        "tokens_out": int(getattr(usage, "completion_tokens", 0) or 0),
        "cost_usd": float(hidden.get("response_cost") or 0.0),
    }
    if not response.choices:
        return {**read, "outcome": "failed", "reason": "the answer holds no choice"}
    choice = response.choices[0]
    text = choice.message.content
    finish = str(choice.finish_reason or "")
    read |= {"text": text, "finish_reason": finish}
    if finish in _FILTER_STOPS or (not text and _says_no(choice.message)):
        return {**read, "outcome": "undecidable", "reason": PROVIDER_REFUSAL}
    if not (text or "").strip():
        return {**read, "outcome": "failed", "reason": f"empty answer (finish reason {finish or 'none'})"}
    return {**read, "outcome": "ok"}


def _says_no(message: Any) -> bool:
    # OpenAI's field `refusal`; litellm 1.106 moves it among the provider's own fields.
    fields = getattr(message, "provider_specific_fields", None) or {}
    return bool(getattr(message, "refusal", None) or fields.get("refusal"))


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
    refusal = isinstance(error, known.ContentPolicyViolationError) or (
        status == 400 and is_filter_error(str(error))
    )
    busy = status is not None and (status in (408, 409, 425, 429) or status >= 500)
    line = "timed out" if timeout else one_line(error)
    return Fault(status, line, timeout or unreachable or busy, refusal, _retry_after(error))


def is_filter_error(text: str) -> bool:
    """Whether an error of status 400 says that a filter of the provider stopped the request."""
    return any(sign in text for sign in _FILTER_ERRORS)


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
