"""The gateway: the one door through which a model is asked, and the ledger behind it.

A question that the ledger has an answer to is not asked again; identical questions are asked once, in
one batch or in two processes; failures of transport are retried and never stored; an answer that was
paid for and is of no use is stored, counted and never served as an answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safevid_core.models.asking import BudgetExceeded, Limits, TextCaller
from safevid_core.models.chat import (
    Caller,
    CallResult,
    ChatAnswer,
    ChatRequest,
    Render,
    request_key,
    times_of_text,
)
from safevid_core.models.ledger import Call, Ledger, LedgerError, new_owner
from safevid_core.models.providers import PROVIDER_REFUSAL, GatewayError, register_providers
from safevid_core.models.structured import Schema, UnreadableAnswer, read_as
from safevid_core.settings import Settings

__all__ = [
    "PROVIDER_REFUSAL",
    "BudgetExceeded",
    "CallResult",
    "Caller",
    "ChatAnswer",
    "ChatRequest",
    "Gateway",
    "GatewayError",
    "LedgerError",
    "Spend",
    "ask_structured",
    "request_key",
]


@dataclass(frozen=True, slots=True)
class Spend:
    """What this process asked and paid. `calls` were made, `cached` were answered from the ledger."""

    calls: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


class Gateway:
    """Asks models, through the ledger named in the settings.

    One instance may be shared by threads; it also works inside a running event loop, which it blocks.

    Args:
        retry_failed: Ask again what ended in a stored, unusable answer.

    Raises:
        LedgerError: If the ledger cannot be opened.
    """

    def __init__(self, settings: Settings, *, retry_failed: bool = False) -> None:
        self.settings = settings
        self.retry_failed = retry_failed
        self.ledger = Ledger(settings.ledger_url)
        self._spend: dict[str, Spend] = {}
        self._lock = threading.Lock()
        self.limits = Limits(settings.models)

    def ask_many(self, requests: Sequence[ChatRequest], *, asset: str) -> list[ChatAnswer]:
        """Answers in the order of the requests; never raises for a single one.

        Raises:
            BudgetExceeded: After what was under way is stored.
            GatewayError: If the key's variable is not set, or a provider module cannot be loaded.
        """
        keys = [request_key(request) for request in requests]

        def caller() -> Caller:
            register_providers(self.settings)
            return TextCaller(self.limits, keys, requests, asset)

        return self.settle(keys, caller, asset)

    def spend(self, asset: str | None = None) -> Spend:
        """What this process spent through this gateway, for one asset or in all."""
        with self._lock:
            if asset is not None:
                return self._spend.get(asset, Spend())
            return sum(self._spend.values(), Spend())

    def settle(self, keys: Sequence[str], caller: Callable[[], Caller], asset: str) -> list[ChatAnswer]:
        """The way of every question: the ledger's answer, or a claim, a call and a stored row.

        Args:
            keys: One request key a question; equal keys are one question.
            caller: Makes what asks the model; only called if something is to be asked.
        """
        positions: dict[str, int] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, position)
        stored = self.ledger.answers(positions)
        if self.retry_failed:
            stored = {key: call for key, call in stored.items() if call.outcome == "ok"}
        answers = {key: _from_ledger(call) for key, call in stored.items()}
        missing = [key for key in positions if key not in answers]
        if missing:
            answers.update(self._ask_missing(missing, positions, caller(), asset))
        self._count_cached(asset, keys, answers)
        seen: set[str] = set()
        return [_once(answers[key], seen) for key in keys]

    def _ask_missing(
        self, missing: list[str], positions: dict[str, int], caller: Caller, asset: str
    ) -> dict[str, ChatAnswer]:
        round_ = _Round(self, caller, positions, asset)
        try:
            return round_.run(missing)
        finally:
            caller.stop()
            self.ledger.release(round_.owner)

    def count(self, asset: str, spent: Spend) -> None:
        with self._lock:
            self._spend[asset] = self._spend.get(asset, Spend()) + spent

    def close(self) -> None:
        """Let go of the ledger's connections."""
        self.ledger.close()

    def _count_cached(self, asset: str, keys: Sequence[str], answers: dict[str, ChatAnswer]) -> None:
        fresh = {key for key, answer in answers.items() if not answer.cached}
        self.count(asset, Spend(cached=len(keys) - len(fresh.intersection(keys))))


class _Round:
    """One round of asking: claims, calls and stored rows until every missing key has an answer."""

    def __init__(self, gateway: Gateway, caller: Caller, positions: dict[str, int], asset: str) -> None:
        self.owner = new_owner()
        self._gateway = gateway
        self._caller = caller
        self._positions = positions
        self._asset = asset
        self._answers: dict[str, ChatAnswer] = {}
        self._outstanding = 0
        self._stopped = False
        self._error: BaseException | None = None

    def run(self, missing: list[str]) -> dict[str, ChatAnswer]:
        todo, held = deque(missing), deque[str]()
        wait = 0.02
        while todo or held or self._outstanding:
            if todo and self._outstanding <= self._caller.portion:
                held.extend(self._hand_over(todo))
            if self._outstanding:
                self._take_in(self._caller.collect())
            elif held and not todo:
                time.sleep(wait)
                wait = min(wait * 1.5, 1.0)
                todo, held = held, deque()
            if self._stopped or self._error:
                todo.clear()
                held.clear()
        if self._error:
            raise self._error
        if self._stopped:
            raise self._gateway.limits.purse.exceeded()
        return self._answers

    def _hand_over(self, todo: deque[str]) -> list[str]:
        keys = [todo.popleft() for _ in range(min(self._caller.portion, len(todo)))]
        claimed = self._gateway.ledger.claim(
            keys,
            self.owner,
            self._gateway.limits.longest_call_s(),
            replace_unusable=self._gateway.retry_failed,
        )
        self._answers.update({key: _from_ledger(call) for key, call in claimed.answered.items()})
        self._outstanding += len(claimed.won)
        if claimed.won:
            self._caller.start([self._positions[key] for key in claimed.won])
        return claimed.held

    def _take_in(self, results: list[CallResult]) -> None:
        self._outstanding -= len(results)
        for result in results:
            self._stopped |= result.stopped
            self._error = self._error or result.error
        done = [each for each in results if not each.stopped and each.error is None]
        ledger = self._gateway.ledger
        served = ledger.store([each.call for each in done if each.billed])
        # Given up at once: two rounds that waited for each other's unanswered keys would wait for ever.
        ledger.release(self.owner, [each.call.request_key for each in results if not each.billed])
        for each in done:
            key = each.call.request_key
            self._answers[key] = _fresh(each.call, served.get(key, each.call))
        self._gateway.count(self._asset, _spend_of(done))


def _spend_of(results: Iterable[CallResult]) -> Spend:
    calls = [result.call for result in results]
    return Spend(
        calls=sum(call.attempts > 0 for call in calls),
        failed=sum(call.outcome != "ok" for call in calls),
        tokens_in=sum(call.tokens_in for call in calls),
        tokens_out=sum(call.tokens_out for call in calls),
        cost_usd=sum(call.cost_usd for call in calls),
    )


def _from_ledger(call: Call) -> ChatAnswer:
    times = times_of_text(call.frame_times)
    text = call.text if call.outcome == "ok" else None
    return ChatAnswer(
        call.request_key, text, call.outcome, call.reason, True, 0.0, call.tokens_in, call.tokens_out, times
    )


def _fresh(paid: Call, served: Call) -> ChatAnswer:
    return replace(_from_ledger(served), cached=False, cost_usd=paid.cost_usd)


def _once(answer: ChatAnswer, seen: set[str]) -> ChatAnswer:
    # Of equal questions in one batch the first carries the bill.
    if answer.cached:
        return answer
    if answer.request_key in seen:
        return replace(answer, cached=True, cost_usd=0.0)
    seen.add(answer.request_key)
    return answer


def ask_structured(
    gateway: Gateway,
    requests: Sequence[ChatRequest],
    schema: type[Schema],
    *,
    asset: str,
    parser_version: str = "1",
) -> list[tuple[Schema | None, ChatAnswer]]:
    """Answers as instances of `schema`, each with the call it was read from.

    An answer that does not fit is sent back once with what is wrong. If the second does not fit
    either, the row is `failed` and the instance None; both texts stay in the ledger, so a better
    schema reads them again and buys nothing.

    Args:
        parser_version: Of `schema`; named where an answer does not fit it. Defaults to "1".
    """
    first = gateway.ask_many(requests, asset=asset)
    read = [_read(schema, answer) for answer in first]
    broken = [place for place, (_, wrong) in enumerate(read) if wrong]
    repairs = [_repair(requests[place], first[place], read[place][1]) for place in broken]
    out = [(value, answer) for (value, _), answer in zip(read, first, strict=True)]
    for place, answer in zip(broken, gateway.ask_many(repairs, asset=asset), strict=True):
        value, wrong = _read(schema, answer)
        if wrong:
            name = f"{schema.__name__} (parser {parser_version})"
            reason = f"answer does not fit {name} after one repair: {wrong}"
            answer = replace(answer, text=None, outcome="failed", reason=reason)
        out[place] = (value, _joined(first[place], answer))
    return out


def _read(schema: type[Schema], answer: ChatAnswer) -> tuple[Schema | None, str]:
    """The instance, and what is wrong with a text that holds none."""
    if answer.text is None:
        return None, ""
    try:
        return read_as(schema, answer.text), ""
    except UnreadableAnswer as error:
        return None, str(error)


def _repair(request: ChatRequest, answer: ChatAnswer, wrong: str) -> ChatRequest:
    ask = f"That cannot be read: {wrong}. Answer again with the JSON object only, complete and valid."
    extra: list[dict[str, Any]] = [
        {"role": "assistant", "content": answer.text},
        {"role": "user", "content": ask},
    ]
    render = None if request.render is None else _longer(request.render, extra)
    return replace(request, messages=[*request.messages, *extra], render=render)


def _longer(render: Render, extra: list[dict[str, Any]]) -> Render:
    def rendered() -> tuple[list[dict[str, Any]], tuple[float, ...]]:
        messages, times = render()
        return [*messages, *extra], times

    return rendered


def _joined(first: ChatAnswer, second: ChatAnswer) -> ChatAnswer:
    """The second answer with the bill of both."""
    return replace(
        second,
        cached=first.cached and second.cached,
        cost_usd=first.cost_usd + second.cost_usd,
        tokens_in=first.tokens_in + second.tokens_in,
        tokens_out=first.tokens_out + second.tokens_out,
    )
