"""Asynchronous calls to text models: many at once, within rate limits, with retries after passing faults.

All calls of a process run on one event loop in a separate thread. Callers may therefore ask from any thread
and inside a running event loop.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, ClassVar

from safevid_core.models.chat import CallResult, ChatRequest, text_of_times
from safevid_core.models.ledger import Call
from safevid_core.models.limits import Limits, ProviderDown
from safevid_core.models.prices import Prices, likely_tokens
from safevid_core.models.providers import (
    LONGEST_WAIT_S,
    PROVIDER_REFUSAL,
    Fault,
    GatewayError,
    api_key,
    complete,
    fault_of,
    headers_of,
    known_secrets,
    one_line,
    read_response,
    storable,
)

_LONGEST_LINE = 2_000  # characters of a provider's reason that are stored


@dataclass(eq=False, repr=False)
class Asker:
    """Asks questions to text models on the event loop of the process. Base of the two callers.

    Args:
        limits: Slots and rate limits of the gateway.
        prices: Prices of the gateway.
        keys: Request key of each question.
        requests: The questions.
        asset: The asset that pays.
    """

    limits: Limits
    prices: Prices
    keys: Sequence[str]
    requests: Sequence[ChatRequest]
    asset: str
    last_wait_s: ClassVar[float] = 10.0  # seconds to wait for open calls when a round is interrupted

    def __post_init__(self) -> None:
        self._finished: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
        self._arrived = threading.Event()
        self._tasks: set[Future[None]] = set()
        self._secrets: set[str] = set()
        self._stopped = False
        # Large enough that no slot waits for a lease. If the process is killed, leased questions that were
        # not asked yet stay blocked until their lease expires, so the number is not larger.
        self.portion = max(2 * self.limits.models.concurrency, 64)

    def bound(self, position: int) -> float:
        return self.prices.bound(self.requests[position])

    def start(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        for position in positions:
            api_key(self.requests[position].model)  # raise one error for a missing key, not one for each row
        self._secrets = known_secrets()
        task = event_loop().submit(self._ask_all(positions, holds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def collect(self) -> list[CallResult]:
        # Return as soon as one result is there. Results that arrive while it is stored come with the next
        # call. The wait takes nothing out of the queue, so an interrupt loses no result.
        while self._finished.empty():
            self._arrived.wait()
            self._arrived.clear()
        return self._arrivals()

    def _finish(self, result: CallResult) -> None:
        self._finished.put(result)
        self._arrived.set()

    def _arrivals(self) -> list[CallResult]:
        results = []
        while not self._finished.empty():
            results.append(self._finished.get())
        return results

    def stop(self) -> list[CallResult]:
        self._stopped = True
        if self._tasks:
            wait(list(self._tasks), timeout=self.last_wait_s)  # calls that were sent are paid for
        for task in list(self._tasks):
            task.cancel()
        return self._arrivals()

    async def _ask_all(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        """Put one result for each position into the queue, also after an error."""
        raise NotImplementedError

    def _call(self, position: int, reason: str = "", text: str | None = None, **known: Any) -> Call:
        model = self.requests[position].model
        if "finish_reason" in known:
            known["finish_reason"] = storable(known["finish_reason"], self._secrets)[:_LONGEST_LINE]
        return Call(
            self.keys[position],
            model.model,
            model.revision,
            self.asset,
            reason=storable(reason, self._secrets)[:_LONGEST_LINE],
            text=None if text is None else storable(text, self._secrets),
            **known,
        )


class TextCaller(Asker):
    """Asks each question with a separate call."""

    async def _ask_all(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        await asyncio.gather(*(self._ask_into_queue(position, holds) for position in positions))

    async def _ask_into_queue(self, position: int, holds: Callable[[], bool]) -> None:
        try:
            async with self.prices.one_first(self.requests[position].model), self.limits.slots:
                result = await self._ask(position, holds)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # such as a panic in Rust; the caller still waits for a result
            result = CallResult(position, self._call(position), billed=False, error=error)
        self._finish(result)

    async def _ask(self, position: int, holds: Callable[[], bool]) -> CallResult:
        request = self.requests[position]
        try:
            messages, times = await rendered(request)
        except ValueError as error:
            again = getattr(error, "transient", False)
            return CallResult(
                position, self._call(position, reason=one_line(error)), billed=False, again=again
            )
        return await self._ask_until_answered(position, messages, times, holds)

    async def _ask_until_answered(
        self,
        position: int,
        messages: list[dict[str, Any]],
        times: tuple[float, ...],
        holds: Callable[[], bool],
    ) -> CallResult:
        request, models = self.requests[position], self.limits.models
        model, limits = request.model, self.limits.of(request.model.model)
        likely = likely_tokens(request.messages, request.images, model)
        started, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            fault: Fault | None = None
            try:
                async with limits.admission(likely):
                    if self._stopped or not holds():
                        return CallResult(position, self._call(position), billed=False, lost=True)
                    try:
                        response = await complete(model, messages, models.timeout_s)
                    except GatewayError:
                        raise
                    except Exception as error:
                        limits.note(fault := fault_of(error))
                    else:
                        read = read_response(response)
                        limits.observe(headers_of(response), likely, read["tokens_in"] + read["tokens_out"])
            except ProviderDown as down:
                call = self._call(position, reason=str(down), attempts=attempt - 1)
                return CallResult(position, call, billed=False, again=True)
            if fault is None:
                read["cost_usd"] = self.prices.cost(request, response)
            elif _should_retry(fault) and attempt < models.max_attempts:
                await asyncio.sleep(fault.wait_s(attempt))
                continue
            elif fault.refusal:
                read = {"outcome": "undecidable", "reason": PROVIDER_REFUSAL}
            else:
                read = {"reason": f"{model.model}: {fault.line}; {fault.advice(model)}"}
            read |= {"latency_s": time.monotonic() - started, "attempts": attempt}
            call = self._call(position, frame_times=text_of_times(times), **read)
            again = fault is not None and fault.retryable
            return CallResult(position, call, billed=fault is None or fault.refusal, again=again)


def _should_retry(fault: Fault) -> bool:
    return fault.transient and (fault.retry_after_s or 0.0) <= LONGEST_WAIT_S


async def rendered(request: ChatRequest) -> tuple[list[dict[str, Any]], tuple[float, ...]]:
    """Return the messages to send and the times in seconds of their frames."""
    if request.render is None:
        return request.messages, ()
    return await asyncio.to_thread(request.render)


class _EventLoop:
    """An event loop that runs in a separate thread."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="safevid-gateway", daemon=True).start()

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


_LOOP: _EventLoop | None = None
_LOOP_LOCK = threading.Lock()


def event_loop() -> _EventLoop:
    """Return the event loop of this process. It is created at the first call and again after a fork."""
    global _LOOP
    with _LOOP_LOCK:
        if _LOOP is None or _LOOP.process != os.getpid():  # a fork copies the loop but not its thread
            _LOOP = _EventLoop()
        return _LOOP
