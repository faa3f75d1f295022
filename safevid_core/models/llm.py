"""The gateway: the one door through which a model is asked, and the ledger behind it.

A question that the ledger has an answer to is not asked again; identical questions are asked once, in
one batch or in two processes; failures of transport are retried and never stored; an answer that was
paid for and is of no use is stored, counted and never served as an answer. What a run may spend is set
aside before a question is asked, so that a budget stops a run before it is passed.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

from safevid_core.models.asking import TextCaller
from safevid_core.models.batches import BatchCaller
from safevid_core.models.chat import (
    Caller,
    CallResult,
    ChatAnswer,
    ChatRequest,
    Render,
    request_key,
    times_of_text,
)
from safevid_core.models.filters import is_cut
from safevid_core.models.leases import Lease
from safevid_core.models.ledger import Budget, Call, Claimed, Ledger, LedgerError
from safevid_core.models.limits import Limits
from safevid_core.models.prices import Prices
from safevid_core.models.progress import Progress, Spend
from safevid_core.models.providers import (
    PROVIDER_REFUSAL,
    GatewayError,
    register_providers,
    without_secrets,
)
from safevid_core.models.structured import Schema, UnreadableAnswer, read_as
from safevid_core.models.thinking import NO_ANSWER, answer_of
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
    "Progress",
    "Spend",
    "ask_structured",
    "request_key",
]


_LOG = logging.getLogger(__name__)


class BudgetExceeded(GatewayError):
    """The next call might pass the budget. Everything answered before is in the ledger."""


class Gateway:
    """Asks models, through the ledger named in the settings.

    One instance may be shared by threads; it also works inside a running event loop, which it blocks.

    Args:
        run: Under which name spend is booked and budgets hold; processes that give the same name share
            them. Defaults to a name of its own.
        on_progress: Called while it asks, every `models.progress_s` seconds and at the end of each batch of
            questions, from the asking thread.

    Raises:
        LedgerError: If the ledger cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.settings = settings
        self.run = run or uuid.uuid4().hex
        self.on_progress = on_progress
        self.retry_failed = settings.models.retry_failed
        self.ledger = Ledger(settings.ledger_url)
        self.limits = Limits(settings.models)
        self.prices = Prices(settings.models)
        self._spend: dict[str, Spend] = {}
        self._unstored: list[tuple[str, list[Call]]] = []
        self._lock = threading.Lock()
        self._whole: Gateway | None = None

    def for_run(
        self,
        run: str,
        *,
        settings: Settings | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Gateway:
        """This gateway for one run: with its ledger, connections and limits, and a spend of the run's own.

        What the run spends counts here too.

        Args:
            settings: Whose budgets and `retry_failed` hold for the run. Defaults to this gateway's.
        """
        part = copy(self)
        part.run, part.on_progress = run, on_progress
        part.settings = settings or self.settings
        part.retry_failed = part.settings.models.retry_failed
        part._spend, part._whole = {}, self
        return part

    def ask_many(self, requests: Sequence[ChatRequest], *, asset: str) -> list[ChatAnswer]:
        """Answers in the order of the requests; never raises for a single one.

        A question that its provider refuses goes on to the model's `second`, if the settings name one; the
        answer carries the bill of both.

        Raises:
            BudgetExceeded: After what was under way is stored.
            GatewayError: If the key's variable is not set, a provider module cannot be loaded, or the
                budget is limited and a price unknown.
            LedgerError: If the ledger cannot be read or written. What was answered and not stored is
                stored when this gateway is used again.
        """
        answers = self._ask(requests, asset)
        refused = [
            place
            for place, answer in enumerate(answers)
            if answer.reason == PROVIDER_REFUSAL and requests[place].model.second is not None
        ]
        others = [replace(requests[place], model=requests[place].model.second) for place in refused]  # type: ignore[arg-type]
        if others:
            for place, answer in zip(refused, self.ask_many(others, asset=asset), strict=True):
                answers[place] = _joined(answers[place], answer)
        return answers

    def _ask(self, requests: Sequence[ChatRequest], asset: str) -> list[ChatAnswer]:
        """The answers, those of models that are asked by batch file after the others."""
        in_batch = [self.prices.terms(request.model).batch for request in requests]
        if True not in in_batch:
            return self._ask_by(TextCaller, requests, asset)
        answers: dict[int, ChatAnswer] = {}
        for kind, batch in ((TextCaller, False), (partial(BatchCaller, self.ledger), True)):
            places = [place for place, each in enumerate(in_batch) if each is batch]
            some = self._ask_by(kind, [requests[place] for place in places], asset)
            answers.update(zip(places, some, strict=True))
        return [answers[place] for place in range(len(requests))]

    def _ask_by(
        self, kind: Callable[..., Caller], requests: Sequence[ChatRequest], asset: str
    ) -> list[ChatAnswer]:
        keys = [request_key(request) for request in requests]

        def caller() -> Caller:
            register_providers(self.settings)
            return kind(self.limits, self.prices, keys, requests, asset)

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
        self._store_what_was_not()
        positions: dict[str, int] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, position)
        stored = self.ledger.answers(positions)
        if self.retry_failed:
            self.ledger.retire({key: str(call.text) for key, call in stored.items() if _is_endless(call)})
            stored = {key: call for key, call in stored.items() if _from_ledger(call).outcome == "ok"}
        answers = {key: _from_ledger(call) for key, call in stored.items()}
        del stored
        missing = [key for key in positions if key not in answers]
        if missing:
            answers.update(self._ask_missing(missing, positions, caller(), asset))
        fresh = sum(not answer.cached for answer in answers.values())
        self.count(asset, Spend(cached=len(keys) - fresh))
        return _once_each(keys, answers)

    def _ask_missing(
        self, missing: list[str], positions: dict[str, int], caller: Caller, asset: str
    ) -> dict[str, ChatAnswer]:
        round_ = _Round(self, caller, positions, asset)
        try:
            return round_.run(missing)
        finally:
            round_.take_in(caller.stop())
            if round_.unstored:
                with self._lock:
                    self._unstored.append((self.run, round_.unstored))
                with suppress(LedgerError):  # what failed a moment ago may not fail now; else the next use
                    self._store_what_was_not()
            round_.end()

    def _store_what_was_not(self) -> None:
        """Store paid answers that an earlier round could not, so that they are not paid for again."""
        while True:
            with self._lock:
                if not self._unstored:
                    return
                run, calls = self._unstored.pop()
            try:
                self.ledger.store(calls, run)
            except BaseException:
                with self._lock:
                    self._unstored.append((run, calls))
                raise

    def budget(self, asset: str) -> Budget:
        """What this run may spend on an asset."""
        models = self.settings.models
        return Budget(self.run, asset, models.budget_usd, models.asset_budgets_usd.get(asset))

    def count(self, asset: str, spent: Spend) -> None:
        with self._lock:
            self._spend[asset] = self._spend.get(asset, Spend()) + spent
        if self._whole is not None:
            self._whole.count(asset, spent)

    def close(self) -> None:
        """Let go of the ledger's connections."""
        self.ledger.close()


class _Round:
    """One round of asking: claims, calls and stored rows until every missing key has an answer."""

    def __init__(self, gateway: Gateway, caller: Caller, positions: dict[str, int], asset: str) -> None:
        self.unstored: list[Call] = []
        self._leases = [Lease(gateway.ledger, gateway.settings.models.lease_s)]
        self._began = time.time()
        self._gateway = gateway
        self._caller = caller
        self._positions = positions
        self._asset = asset
        self._budget = gateway.budget(asset)
        self._answers: dict[str, ChatAnswer] = {}
        self._outstanding = 0
        self._lost: list[str] = []
        self._unaffordable = False
        self._error: BaseException | None = None

    def run(self, missing: list[str]) -> dict[str, ChatAnswer]:
        todo, held = deque(missing), deque[str]()
        wait = 0.02
        progress = Progress(self._asset, len(self._positions), len(self._positions) - len(missing))
        reporting = _Reporting(self._gateway, progress)
        while todo or held or self._outstanding:
            if todo and self._outstanding <= self._caller.portion:
                try:
                    held.extend(self._hand_over(todo))
                except Exception as error:  # what is under way is stored first
                    self._error = error
            if self._outstanding:
                reporting.add(self.take_in(self._caller.collect()))
                todo.extend(self._lost)
                self._lost.clear()
                wait = 0.02
            elif held and not todo:
                reporting.wait_for(len(held))
                time.sleep(wait)
                wait = min(wait * 1.5, 1.0)
                todo, held = held, deque()
            if self._unaffordable or self._error:
                todo.clear()
                held.clear()
        reporting.end()
        if self._error:
            raise without_secrets(self._error)
        if self._unaffordable:
            raise _exceeded(self._gateway.ledger, self._budget)
        return self._answers

    def _hand_over(self, todo: deque[str]) -> list[str]:
        keys = [todo.popleft() for _ in range(min(self._caller.portion, len(todo)))]
        claimed = self._claim(keys)
        self._answers.update({key: _from_ledger(call) for key, call in claimed.answered.items()})
        self._unaffordable |= bool(claimed.unaffordable)
        if claimed.won:
            self._caller.start([self._positions[key] for key in claimed.won], self._leases[-1].holds)
        self._outstanding += len(claimed.won)
        return claimed.held

    def _claim(self, keys: list[str]) -> Claimed:
        if not self._leases[-1].holds():
            self._leases.append(Lease(self._gateway.ledger, self._leases[-1].seconds))
        lease = self._leases[-1]
        bounds = None
        if self._budget.limited:
            bounds = {key: self._caller.bound(self._positions[key]) for key in keys}
        return self._gateway.ledger.claim(
            keys,
            lease.owner,
            lease.seconds,
            replace_before=self._began if self._gateway.retry_failed else None,
            budget=self._budget,
            bounds=bounds,
        )

    def take_in(self, results: list[CallResult]) -> Spend:
        """Store what came, and remember its answers; what it cost."""
        waiting = bool(self.unstored)
        # First of all: an interrupt from here on loses nothing.
        self.unstored.extend(each.call for each in results if each.error is None and each.billed)
        self._outstanding -= len(results)
        for result in results:
            self._error = self._error or result.error
        done = [each for each in results if each.error is None]
        served = {} if waiting else self._store()
        self._release([each.call.request_key for each in results if not each.billed])
        for each in done:
            key = each.call.request_key
            if each.lost:
                self._lost.append(key)
                continue
            answer = _fresh(each.call, served.get(key, each.call))
            self._answers[key] = replace(answer, unanswered=True) if each.again else answer
        spent = _spend_of([each for each in done if not each.lost])
        self._gateway.count(self._asset, spent)
        return spent

    def end(self) -> None:
        """Let go of every claim. Where that fails they end by themselves."""
        for lease in self._leases:
            lease.end()
            with suppress(LedgerError):
                self._gateway.ledger.release(lease.owner)

    def _store(self) -> dict[str, Call]:
        try:
            served = self._gateway.ledger.store(self.unstored, self._gateway.run)
        except LedgerError as error:
            self._error = self._error or error
            return {}
        self.unstored.clear()
        return served

    def _release(self, unanswered: list[str]) -> None:
        # At once: two rounds that waited for each other's unanswered keys would wait for ever.
        try:
            for lease in self._leases:
                self._gateway.ledger.release(lease.owner, unanswered)
        except LedgerError as error:
            self._error = self._error or error


class _Reporting:
    """Tells of a round's progress now and then: one line in the log, and the gateway's callback."""

    def __init__(self, gateway: Gateway, progress: Progress) -> None:
        self._gateway = gateway
        self._progress = progress
        self._started = self._told = time.monotonic()
        self._waited = False

    def add(self, spent: Spend) -> None:
        now = time.monotonic()
        self._progress = self._progress.plus(spent, now - self._started)
        if now - self._told >= self._gateway.settings.models.progress_s:
            self._told = now
            self._tell()

    def wait_for(self, held: int) -> None:
        """Tell, once, that all that is left is in the hands of others."""
        if not self._waited:
            self._waited = True
            lease_s = self._gateway.settings.models.lease_s
            _LOG.info(
                "%s: waits for %d questions that another run is asking, or had in hand when it was killed; "
                "what a killed run held is free after %g s",
                self._progress.asset,
                held,
                lease_s,
            )

    def end(self) -> None:
        self._gateway.count(self._progress.asset, Spend(seconds=time.monotonic() - self._started))
        self._tell()

    def _tell(self) -> None:
        _LOG.info("%s", self._progress)
        if self._gateway.on_progress is not None:
            self._gateway.on_progress(self._progress)


def _exceeded(ledger: Ledger, budget: Budget) -> BudgetExceeded:
    asset_where = f"models.asset_budgets_usd.{budget.asset}"
    limits: tuple[tuple[float | None, str | None, str, str], ...] = (
        (budget.run_usd, None, "the run", "models.budget_usd"),
        (budget.asset_usd, budget.asset, budget.asset, asset_where),
    )
    lines = []
    for limit, asset, name, where in limits:
        if limit is not None:
            waiting = ledger.in_batches(budget.run, asset)
            beside = f", with {waiting:.4f} set aside for open batches," if waiting else ""
            spent = ledger.spent(budget.run, asset)
            lines.append(f"{spent:.4f}{beside} of {limit:.4f} USD for {name} ({where})")
    return BudgetExceeded(
        f"stopped at {' and '.join(lines)}: the next call might pass the budget; "
        "all answers so far are stored; raise the budget and run again"
    )


def _spend_of(results: Iterable[CallResult]) -> Spend:
    calls = [result.call for result in results]
    return Spend(
        calls=sum(call.attempts > 0 for call in calls),
        usable=sum(call.outcome == "ok" for call in calls),
        failed=sum(call.outcome != "ok" for call in calls),
        refused=sum(call.reason == PROVIDER_REFUSAL for call in calls),
        tokens_in=sum(call.tokens_in for call in calls),
        tokens_out=sum(call.tokens_out for call in calls),
        cost_usd=sum(call.cost_usd for call in calls),
    )


def _from_ledger(call: Call) -> ChatAnswer:
    """What is served of a stored call: its answer, without the thinking before it."""
    outcome, reason = call.outcome, call.reason
    text = answer_of(call.text) if outcome == "ok" and call.text is not None else None
    if outcome == "ok" and not text:
        text, outcome, reason = None, "failed", NO_ANSWER
    return ChatAnswer(
        call.request_key,
        text,
        outcome,
        reason,
        True,
        0.0,
        call.tokens_in,
        call.tokens_out,
        times_of_text(call.frame_times),
        call.model,
        call.revision,
        cut=is_cut(call.finish_reason),
        said=call.text or "",
    )


def _is_endless(call: Call) -> bool:
    """Whether a call was paid for and thinks without coming to an answer."""
    return call.outcome == "ok" and call.text is not None and not answer_of(call.text)


def _fresh(paid: Call, served: Call) -> ChatAnswer:
    return replace(_from_ledger(served), cached=False, cost_usd=paid.cost_usd)


def _once_each(keys: Sequence[str], answers: dict[str, ChatAnswer]) -> list[ChatAnswer]:
    """The answers in order. Of equal questions in one batch the first carries the bill."""
    billed: set[str] = set()
    out = []
    for key in keys:
        answer = answers[key]
        if not answer.cached:
            if key in billed:
                answer = replace(answer, cached=True, cost_usd=0.0)
            billed.add(key)
        out.append(answer)
    return out


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
    schema reads them again and buys nothing. Where the settings say to retry what failed, stored texts
    that do not fit are set aside and the question is asked anew.

    Args:
        parser_version: Of `schema`; named where an answer does not fit it. Defaults to "1".
    """
    out, unfit = _ask_and_repair(gateway, requests, schema, asset, parser_version)
    stored = {place: texts for place, texts in unfit.items() if out[place][1].cached}
    if gateway.retry_failed and stored:
        gateway.ledger.retire({key: text for texts in stored.values() for key, text in texts.items()})
        anew, _ = _ask_and_repair(
            gateway, [requests[place] for place in stored], schema, asset, parser_version
        )
        for place, result in zip(stored, anew, strict=True):
            out[place] = result
    return out


def _ask_and_repair(
    gateway: Gateway, requests: Sequence[ChatRequest], schema: type[Schema], asset: str, parser_version: str
) -> tuple[list[tuple[Schema | None, ChatAnswer]], dict[int, dict[str, str]]]:
    """The answers, and the texts by request key of each place where neither text fits."""
    first = gateway.ask_many(requests, asset=asset)
    read = [_read(schema, answer) for answer in first]
    broken = [place for place, (_, wrong) in enumerate(read) if wrong]
    repairs = [_repair(requests[place], first[place], read[place][1]) for place in broken]
    out = [(value, answer) for (value, _), answer in zip(read, first, strict=True)]
    unfit: dict[int, dict[str, str]] = {}
    for place, answer in zip(broken, gateway.ask_many(repairs, asset=asset), strict=True):
        value, wrong = _read(schema, answer)
        if wrong:
            unfit[place] = {each.request_key: str(each.text) for each in (first[place], answer)}
            name = f"{schema.__name__} (parser {parser_version})"
            reason = f"answer does not fit {name} after one repair: {wrong}"
            answer = replace(answer, text=None, outcome="failed", reason=reason)
        out[place] = (value, _joined(first[place], answer))
    return out, unfit


def _read(schema: type[Schema], answer: ChatAnswer) -> tuple[Schema | None, str]:
    """The instance, and what is wrong with a text that holds none."""
    if answer.text is None:
        return None, ""
    if answer.cut:
        return None, "the answer was cut off at its limit of tokens; answer in fewer words"
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
