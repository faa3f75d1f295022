"""Rate limits, pauses and the circuit breaker of each model.

The limits hold for one process. If several processes share a provider, give each its share of
`requests_per_minute` in the settings. Otherwise each learns the limit from the provider's headers and
`Retry-After`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from safevid_core.models.providers import LONGEST_WAIT_S, Fault
from safevid_core.settings import GatewaySettings, ModelTerms

MINUTE_S = 60.0
PROBES = 3  # unanswered probes after which questions fail at once
_SLOTS = 600  # slots of a window
_DOWN_WAITS = 10  # questions fail for this many waits between probes, then the breaker probes again

# Names of the headers with rate limits: OpenAI's, which most servers copy, and Anthropic's.
_HEADERS = (
    ("x-ratelimit-limit-{}", "x-ratelimit-remaining-{}", "x-ratelimit-reset-{}"),
    ("anthropic-ratelimit-{}-limit", "anthropic-ratelimit-{}-remaining", "anthropic-ratelimit-{}-reset"),
)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS_S = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


class ProviderDown(Exception):
    """The provider does not answer at present. The message holds its last fault."""


class Limits:
    """Shared by all calls of a gateway: slots for concurrent calls, and the limits of each model.

    Args:
        models: The settings of the gateway.
    """

    def __init__(self, models: GatewaySettings) -> None:
        self.models = models
        self._process = 0
        self._slots = asyncio.Semaphore(models.concurrency)
        self._of: dict[str, ModelLimits] = {}

    @property
    def slots(self) -> asyncio.Semaphore:
        self._reset_after_fork()
        return self._slots

    def of(self, model: str) -> ModelLimits:
        """Return the limits of one model, by its model string."""
        self._reset_after_fork()
        if model not in self._of:
            self._of[model] = ModelLimits(model, self.models)
        return self._of[model]

    def _reset_after_fork(self) -> None:
        # Semaphores and locks belong to the event loop that first used them. A fork has another loop.
        if self._process != os.getpid():
            self._process = os.getpid()
            self._slots = asyncio.Semaphore(self.models.concurrency)
            self._of = {}


class ModelLimits:
    """Rate limits and circuit breaker of one model in one process."""

    def __init__(self, model: str, models: GatewaySettings) -> None:
        terms = models.terms.get(model) or ModelTerms.model_validate({})
        self.requests = Window(terms.requests_per_minute)
        self.tokens = Window(terms.tokens_per_minute)
        self.breaker = Breaker(model, models.breaker_faults, models.breaker_wait_s)
        self._learns = {
            "requests": terms.requests_per_minute is None,
            "tokens": terms.tokens_per_minute is None,
        }
        self._paused_until = 0.0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def admission(self, tokens: int) -> AsyncIterator[None]:
        """Wait until a call may be sent.

        Args:
            tokens: Number of tokens that the call may take.

        Raises:
            ProviderDown: If the provider does not answer at present.
        """
        async with self.breaker.passage():
            await self._wait_for_room(tokens)
            yield

    async def _wait_for_room(self, tokens: int) -> None:
        paused = self._paused_until > time.monotonic()
        if not paused and not self.requests.limited and not self.tokens.limited:
            return
        async with self._turn:  # first come, first served
            while (wait := self._wait_s(tokens)) > 0:
                await asyncio.sleep(wait)
            self.requests.take(1)
            self.tokens.take(tokens)
        if paused:
            await asyncio.sleep(random.uniform(0, 0.5))  # jitter after a pause

    def _wait_s(self, tokens: int) -> float:
        pause = self._paused_until - time.monotonic()
        return max(pause, self.requests.wait_s(1), self.tokens.wait_s(tokens))

    def pause(self, seconds: float) -> None:
        """Send no call for this number of seconds."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def observe(self, headers: Mapping[str, str], bound: int, used: int) -> None:
        """Update the limits after an answer.

        Args:
            headers: Headers of the answer, by lower-case name.
            bound: Tokens that were counted for the call.
            used: Tokens that it took.
        """
        self.breaker.answered()
        self.tokens.correct(used - bound)
        for kind, window in (("requests", self.requests), ("tokens", self.tokens)):
            limit, remaining, reset_s = rate_of_headers(headers, kind)
            if limit is not None and self._learns[kind]:
                window.limit = limit
            if remaining == 0 and reset_s is not None:
                self.pause(min(reset_s, LONGEST_WAIT_S))

    def note(self, fault: Fault) -> None:
        """Update pauses and the circuit breaker after a call without an answer."""
        if fault.retry_after_s is not None:
            if fault.retry_after_s > LONGEST_WAIT_S:
                self.breaker.shut(fault.retry_after_s, fault.line)
            else:
                self.pause(fault.retry_after_s)
        if fault.provider_is_there:
            self.breaker.answered()
        elif fault.transient:
            self.breaker.failed(fault.line)


class Window:
    """A sliding window: limits the amount that is used in any period of `seconds`.

    The window has 600 slots. All use within a slot counts as used at its end.

    Args:
        limit: Maximum amount. None means no limit.
        seconds: Length of the period. None means a minute.
    """

    def __init__(self, limit: float | None, seconds: float | None = None) -> None:
        self.limit = limit
        self._seconds = MINUTE_S if seconds is None else seconds
        self._used: deque[tuple[float, float]] = deque()  # end of each slot, and the amount used in it
        self._total = 0.0

    @property
    def limited(self) -> bool:
        return self.limit is not None

    def wait_s(self, amount: float) -> float:
        """Return the seconds until an amount may be used.

        An amount above the limit waits for an empty window.
        """
        if self.limit is None:
            return 0.0
        now = time.monotonic()
        while self._used and self._used[0][0] <= now - self._seconds:
            self._total -= self._used.popleft()[1]
        excess = self._total + amount - max(self.limit, amount)
        for used_at, used in self._used:
            if excess <= 1e-9:
                break
            excess -= used
            wait = used_at + self._seconds - now
            if excess <= 1e-9:
                return max(wait, 0.001)
        return 0.0

    def take(self, amount: float) -> None:
        if self.limit is not None:
            self._add(amount)

    def correct(self, difference: float) -> None:
        """Add a difference, positive or negative, to the amount used now."""
        if self.limit is not None and self._used:
            self._add(difference)

    def _add(self, amount: float) -> None:
        now = time.monotonic()
        if not self._used or self._used[-1][0] < now:
            self._used.append((now + self._seconds / _SLOTS, 0.0))
        until, used = self._used[-1]
        self._used[-1] = (until, used + amount)
        self._total += amount


class Breaker:
    """A circuit breaker. It stops questions to a provider that is down.

    After `faults` faults in a row only one question at a time is sent, a probe, `wait_s` seconds after the
    previous one. The other questions wait. An answer closes the breaker, and all questions are sent again.
    After 3 probes without an answer every question fails at once for `10 * wait_s` seconds. Then the breaker
    probes again.

    Args:
        model: Name of the model, for messages.
        faults: Number of faults in a row that opens the breaker.
        wait_s: Seconds between two probes.
    """

    def __init__(self, model: str, faults: int, wait_s: float) -> None:
        self._model = model
        self._most = faults
        self._wait_s = wait_s
        self._in_a_row = self._probes = 0
        self._broken = self._probing = False
        self._next_probe = self._down_until = 0.0
        self._why = ""
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Wait until a question may be sent.

        Raises:
            ProviderDown: If probes went unanswered, or if the provider's `Retry-After` is above two minutes.
        """
        self._refuse_while_down()
        if self._broken:
            async with self._one_at_a_time:
                self._refuse_while_down()
                if self._broken:
                    await asyncio.sleep(max(self._next_probe - time.monotonic(), 0.0))
                    self._probing = True
                    try:
                        yield
                    finally:
                        self._probing = False
                    return
        yield

    def answered(self) -> None:
        self._in_a_row = self._probes = 0
        self._broken = False

    def failed(self, why: str) -> None:
        self._in_a_row += 1
        self._why = why
        now = time.monotonic()
        if self._probing:
            self._probes += 1
            self._next_probe = now + self._wait_s
            if self._probes >= PROBES:
                self._probes = 0
                self.shut(_DOWN_WAITS * self._wait_s, why)
        elif self._in_a_row >= self._most and not self._broken:
            self._broken = True
            self._next_probe = now + self._wait_s

    def shut(self, seconds: float, why: str) -> None:
        """Let every question fail at once for this number of seconds."""
        self._down_until, self._why = time.monotonic() + seconds, why

    def _refuse_while_down(self) -> None:
        if (left := self._down_until - time.monotonic()) > 0:
            raise ProviderDown(
                f"{self._model}: the provider is down ({self._why}); not asked; run again in {left:.0f} s"
            )


def rate_of_headers(headers: Mapping[str, str], kind: str) -> tuple[float | None, float | None, float | None]:
    """Return the rate limits in the headers of a reply.

    Args:
        headers: Headers by lower-case name.
        kind: `requests` or `tokens`.

    Returns:
        Limit per minute, remaining amount, and seconds until the full limit is available again. None for each
        missing value.
    """
    for names in _HEADERS:
        limit, remaining, reset = (headers.get(name.format(kind)) for name in names)
        if limit is not None or remaining is not None:
            return _positive(limit), _number(remaining), None if reset is None else seconds_of(reset)
    return None, None, None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _positive(text: str | None) -> float | None:
    number = _number(text)
    return number if number is not None and 0 < number < float("inf") else None


def seconds_of(text: str) -> float | None:
    """Return seconds from now for a duration (`6m0s`, `120ms`, `1.5`) or a time (RFC 3339). Else None."""
    text = text.strip()
    number = _number(text)
    if number is not None:
        return number if 0 <= number < float("inf") else None
    match = _DURATION.fullmatch(text)
    if match and any(match.groups()):
        return sum(float(part or 0) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(moment.timestamp() - time.time(), 0.0)
