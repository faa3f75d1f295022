"""Asks text models for the gateway: many at once, again after a passing fault, within the budget.

All calls of a process run on one event loop in a thread of its own, so that asking works from any
thread and inside any running loop.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

from safevid_core.models.chat import CallResult, ChatRequest, text_of_times
from safevid_core.models.ledger import Call
from safevid_core.models.providers import (
    LONGEST_WAIT_S,
    PROVIDER_REFUSAL,
    Fault,
    GatewayError,
    api_key,
    complete,
    fault_of,
    known_secrets,
    one_line,
    price_bound,
    read_response,
    redact,
)
from safevid_core.settings import GatewaySettings


class BudgetExceeded(GatewayError):
    """The next call might pass the budget. Everything answered before is in the ledger."""


class TextCaller:
    """Asks text models through litellm, on the process's own event loop."""

    def __init__(
        self, limits: Limits, keys: Sequence[str], requests: Sequence[ChatRequest], asset: str
    ) -> None:
        self._limits = limits
        self._keys = keys
        self._requests = requests
        self._asset = asset
        self._finished: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
        self._tasks: set[Future[None]] = set()
        self._secrets: set[str] = set()
        # Many at once, so that what the ledger writes in one transaction is many too.
        self.portion = max(4 * limits.models.concurrency, 256)

    def start(self, positions: Sequence[int]) -> None:
        for position in positions:
            api_key(self._requests[position].model)  # a missing key is one error, not one a row
        self._secrets = known_secrets()
        task = _event_loop().submit(self._ask_all(positions))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def collect(self) -> list[CallResult]:
        results = [self._finished.get()]
        while not self._finished.empty():
            results.append(self._finished.get())
        return results

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _ask_all(self, positions: Sequence[int]) -> None:
        await asyncio.gather(*(self._ask_into_queue(position) for position in positions))

    async def _ask_into_queue(self, position: int) -> None:
        try:
            async with self._limits.slots:
                result = await self._ask(position)
        except Exception as error:
            result = CallResult(position, self._call(position), billed=False, error=error)
        self._finished.put(result)

    async def _ask(self, position: int) -> CallResult:
        request = self._requests[position]
        purse = self._limits.purse
        try:
            messages, times = await _rendered(request)
        except ValueError as error:
            return CallResult(position, self._call(position, reason=one_line(error)), billed=False)
        reserve = price_bound(request.model, messages) if purse.limited else 0.0
        if not purse.take(reserve):
            return CallResult(position, self._call(position), billed=False, stopped=True)
        result = CallResult(position, self._call(position), billed=False)
        try:
            result = await self._ask_until_answered(position, messages, times)
        finally:
            purse.settle(reserve, result.call.cost_usd)
        return result

    async def _ask_until_answered(
        self, position: int, messages: list[dict[str, Any]], times: tuple[float, ...]
    ) -> CallResult:
        model = self._requests[position].model
        limits, started, attempt = self._limits, time.monotonic(), 0
        while True:
            await limits.wait_out_pause(model.model)
            attempt += 1
            try:
                response = await complete(model, messages, limits.models.timeout_s)
            except GatewayError:
                raise
            except Exception as error:
                fault = fault_of(error)
                if fault.transient and attempt < limits.models.max_attempts:
                    limits.pause(model.model, fault)
                    await asyncio.sleep(fault.wait_s(attempt))
                    continue
                read: dict[str, Any] = {"outcome": "undecidable", "reason": PROVIDER_REFUSAL}
                if not fault.refusal:
                    read = {"reason": f"{model.model}: {fault.line}; {fault.mend(model)}"}
                billed = fault.refusal
            else:
                read, billed = read_response(response), True
            read |= {"latency_s": time.monotonic() - started, "attempts": attempt}
            call = self._call(position, frame_times=text_of_times(times), **read)
            return CallResult(position, call, billed=billed)

    def _call(self, position: int, reason: str = "", text: str | None = None, **known: Any) -> Call:
        model = self._requests[position].model
        return Call(
            self._keys[position],
            model.model,
            model.revision,
            self._asset,
            reason=redact(reason, self._secrets),
            text=None if text is None else redact(text, self._secrets),
            **known,
        )


async def _rendered(request: ChatRequest) -> tuple[list[dict[str, Any]], tuple[float, ...]]:
    if request.render is None:
        return request.messages, ()
    return await asyncio.to_thread(request.render)


class Limits:
    """What all of a gateway's calls share: slots, money, and the pauses that providers ask for."""

    def __init__(self, models: GatewaySettings) -> None:
        self.models = models
        self.purse = Purse(models.budget_usd)
        self._slots: asyncio.Semaphore | None = None
        self._process = os.getpid()
        self._paused_until: dict[str, float] = {}

    @property
    def slots(self) -> asyncio.Semaphore:
        """Made on the loop that uses it, anew after a fork."""
        if self._slots is None or self._process != os.getpid():
            self._slots, self._process = asyncio.Semaphore(self.models.concurrency), os.getpid()
        return self._slots

    def pause(self, model: str, fault: Fault) -> None:
        """Hold back every call to a model whose provider named a time to come back."""
        if fault.retry_after_s is not None:
            self._paused_until[model] = time.monotonic() + min(fault.retry_after_s, LONGEST_WAIT_S)

    async def wait_out_pause(self, model: str) -> None:
        while (left := self._paused_until.get(model, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(left * (1 + 0.1 * random.random()))

    def longest_call_s(self) -> float:
        """The longest that one question can honestly take: every attempt and every wait between."""
        return self.models.max_attempts * (self.models.timeout_s + LONGEST_WAIT_S)


class Purse:
    """Money left under the budget, with what is under way set aside."""

    def __init__(self, budget: float | None) -> None:
        self._budget = budget
        self._spent = self._reserved = 0.0
        self._lock = threading.Lock()

    @property
    def limited(self) -> bool:
        return self._budget is not None

    def take(self, bound: float) -> bool:
        """Set aside what a call may cost; False if the budget might be passed."""
        with self._lock:
            if self._budget is not None and self._spent + self._reserved + bound > self._budget:
                return False
            self._reserved += bound
            return True

    def settle(self, bound: float, cost: float) -> None:
        with self._lock:
            self._reserved -= bound
            self._spent += cost

    def exceeded(self) -> BudgetExceeded:
        return BudgetExceeded(
            f"stopped at {self._spent:.4f} USD of a budget of {self._budget:.4f}: the next call might pass "
            "it; all answers so far are stored; raise models.budget_usd and run again"
        )


class _EventLoop:
    """A loop in a thread of its own, so that asking works from any thread and inside any loop."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="safevid-gateway", daemon=True).start()

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


_LOOP: _EventLoop | None = None
_LOOP_LOCK = threading.Lock()


def _event_loop() -> _EventLoop:
    global _LOOP
    with _LOOP_LOCK:
        if _LOOP is None or _LOOP.process != os.getpid():  # a fork inherits the loop without its thread
            _LOOP = _EventLoop()
        return _LOOP
