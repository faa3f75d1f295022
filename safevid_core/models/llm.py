"""The gateway: asks models and stores their answers in the ledger.

- A question with an answer in the ledger is not asked again.
- Identical questions are asked once, within one request and across processes.
- Transport errors are retried and not stored.
- A paid answer that is not usable is stored and counted, and is not served as an answer.
- The upper bound of a question's cost is reserved before it is asked, so a run stops before it exceeds its
  budget.
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
from safevid_core.models.ledger import Acquired, Budget, Call, Ledger, LedgerError
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
from safevid_core.storage.frames import FrameCache

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
# Called with the progress of a round of questions.
OnProgress = Callable[[Progress], None]


class BudgetExceeded(GatewayError):
    """The next call might exceed the budget. All earlier answers are in the ledger."""


class Gateway:
    """Asks models through the ledger that the settings name.

    Threads may share one instance. It also works inside a running event loop, and blocks that loop.

    Args:
        settings: The settings.
        run: Id of the run that pays. Processes with the same id share its budget. None creates a new id.
        on_progress: Called from the asking thread, every `models.progress_s` seconds and at the end of each
            round of questions. None calls nothing.

    Raises:
        LedgerError: If the ledger cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.settings = settings
        self.run = run or uuid.uuid4().hex
        self.on_progress = on_progress
        self.retry_failed = settings.models.retry_failed
        self.ledger = Ledger(settings.ledger_url)
        self.limits = Limits(settings.models)
        self.prices = Prices(settings.models)
        self.frames = FrameCache.below(settings.root, settings.storage.frame_cache_gb)
        self._spend: dict[str, Spend] = {}
        self._unstored: list[tuple[str, list[Call]]] = []
        self._lock = threading.Lock()
        self._parent: Gateway | None = None

    def for_run(
        self,
        run: str,
        *,
        settings: Settings | None = None,
        on_progress: OnProgress | None = None,
    ) -> Gateway:
        """Return a gateway for one run with this gateway's ledger and limits, and its own count of spending.

        The spending of the run also counts here.

        Args:
            run: Id of the run.
            settings: Their budgets and `retry_failed` hold for the run. None means those of this gateway.
            on_progress: As for the class. None calls nothing.
        """
        part = copy(self)
        part.run, part.on_progress = run, on_progress
        part.settings = settings or self.settings
        part.retry_failed = part.settings.models.retry_failed
        part._spend, part._parent = {}, self
        return part

    def ask_many(self, requests: Sequence[ChatRequest], *, asset: str) -> list[ChatAnswer]:
        """Return the answers in the order of the requests.

        An error of a single question is in its answer and raises nothing. If the provider refuses a question
        and the model has a `second`, the second model is asked. The answer then has the cost of both calls.

        Args:
            requests: The questions.
            asset: The asset that pays.

        Raises:
            BudgetExceeded: If the next call might exceed the budget. Open calls are stored first.
            GatewayError: If the variable of an API key is not set, if a provider module cannot be loaded, or
                if there is a budget and a price is unknown.
            LedgerError: If the ledger cannot be read or written. Answers that could not be stored are stored
                at the next use of this gateway.
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
        """Return the answers. Questions for batch files are asked after the others."""
        in_batch = [self.prices.terms(request.model).batch for request in requests]
        if True not in in_batch:
            return self._ask_by(TextCaller, requests, asset)
        answers: dict[int, ChatAnswer] = {}
        for kind, batch in ((TextCaller, False), (partial(BatchCaller, ledger=self.ledger), True)):
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

        return self.get_or_ask(keys, caller, asset)

    def spend(self, asset: str | None = None) -> Spend:
        """Return what this process spent through this gateway, for one asset, or in total if None."""
        with self._lock:
            if asset is not None:
                return self._spend.get(asset, Spend())
            return sum(self._spend.values(), Spend())

    def get_or_ask(self, keys: Sequence[str], caller: Callable[[], Caller], asset: str) -> list[ChatAnswer]:
        """Return the answer of each question: from the ledger, or else by a lease, a call and a stored row.

        Args:
            keys: Request key of each question. Equal keys are one question.
            caller: Creates the object that asks the model. Called only if a question has no answer.
            asset: The asset that pays.

        Raises:
            BudgetExceeded, GatewayError, LedgerError: As :meth:`ask_many`.
        """
        self._store_unstored()
        positions: dict[str, int] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, position)
        stored = self.ledger.answers(positions)
        if self.retry_failed:
            self.ledger.retire({key: str(call.text) for key, call in stored.items() if _lacks_answer(call)})
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
                with suppress(LedgerError):  # if it fails again, the next use stores them
                    self._store_unstored()
            round_.end()

    def _store_unstored(self) -> None:
        """Store paid answers that an earlier round could not store."""
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
        """Return the limits of this run's spending on an asset."""
        models = self.settings.models
        return Budget(self.run, asset, models.budget_usd, models.asset_budgets_usd.get(asset))

    def count(self, asset: str, spent: Spend) -> None:
        with self._lock:
            self._spend[asset] = self._spend.get(asset, Spend()) + spent
        if self._parent is not None:
            self._parent.count(asset, spent)

    def close(self) -> None:
        """Close the connections of the ledger."""
        self.ledger.close()


class _Round:
    """One round of questions: leases, calls and stored rows until each missing key has an answer."""

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
                except Exception as error:  # open calls are stored before it is raised
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
        acquired = self._acquire(keys)
        self._answers.update({key: _from_ledger(call) for key, call in acquired.answered.items()})
        self._unaffordable |= bool(acquired.unaffordable)
        if acquired.leased:
            self._caller.start([self._positions[key] for key in acquired.leased], self._leases[-1].holds)
        self._outstanding += len(acquired.leased)
        return acquired.held

    def _acquire(self, keys: list[str]) -> Acquired:
        if not self._leases[-1].holds():
            self._leases.append(Lease(self._gateway.ledger, self._leases[-1].seconds))
        lease = self._leases[-1]
        bounds = None
        if self._budget.limited:
            bounds = {key: self._caller.bound(self._positions[key]) for key in keys}
        return self._gateway.ledger.acquire(
            keys,
            lease.owner,
            lease.seconds,
            replace_before=self._began if self._gateway.retry_failed else None,
            budget=self._budget,
            bounds=bounds,
        )

    def take_in(self, results: list[CallResult]) -> Spend:
        """Store results and add their answers to the round. Return what they cost."""
        waiting = bool(self.unstored)
        # This must be first: an interrupt after this line loses no paid answer.
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
        """End all leases. If the ledger cannot be written, they expire by themselves."""
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
        # Release at once: otherwise two rounds could wait for each other's unanswered keys for ever.
        try:
            for lease in self._leases:
                self._gateway.ledger.release(lease.owner, unanswered)
        except LedgerError as error:
            self._error = self._error or error


class _Reporting:
    """Reports the progress of a round every `models.progress_s` seconds: a log line and a callback."""

    def __init__(self, gateway: Gateway, progress: Progress) -> None:
        self._gateway = gateway
        self._progress = progress
        self._started = self._reported = time.monotonic()
        self._waited = False

    def add(self, spent: Spend) -> None:
        now = time.monotonic()
        self._progress = self._progress.plus(spent, now - self._started)
        if now - self._reported >= self._gateway.settings.models.progress_s:
            self._reported = now
            self._report()

    def wait_for(self, held: int) -> None:
        """Log once that all remaining questions are leased by other processes."""
        if not self._waited:
            self._waited = True
            lease_s = self._gateway.settings.models.lease_s
            _LOG.info(
                "%s: waits for %d questions that another run is asking or was asking when it was killed; "
                "the lease of a killed run expires after %g s",
                self._progress.asset,
                held,
                lease_s,
            )

    def end(self) -> None:
        self._gateway.count(self._progress.asset, Spend(seconds=time.monotonic() - self._started))
        self._report()

    def _report(self) -> None:
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
            reserved = f", with {waiting:.4f} reserved for open batches," if waiting else ""
            spent = ledger.spent(budget.run, asset)
            lines.append(f"{spent:.4f}{reserved} of {limit:.4f} USD for {name} ({where})")
    return BudgetExceeded(
        f"stopped at {' and '.join(lines)}: the next call might exceed the budget; "
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
    """Return the answer of a stored call without its thinking."""
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
        raw_text=call.text or "",
    )


def _lacks_answer(call: Call) -> bool:
    """Return whether a call's text has thinking but no answer."""
    return call.outcome == "ok" and call.text is not None and not answer_of(call.text)


def _fresh(paid: Call, served: Call) -> ChatAnswer:
    return replace(_from_ledger(served), cached=False, cost_usd=paid.cost_usd)


def _once_each(keys: Sequence[str], answers: dict[str, ChatAnswer]) -> list[ChatAnswer]:
    """Return the answers in order. Of equal questions only the first has the cost."""
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
    """Ask questions and read the answers as instances of `schema`.

    An answer that does not fit is sent back once with a description of the error. If the second answer does
    not fit either, the outcome is `failed` and the instance is None. Both texts stay in the ledger, so a
    corrected schema can read them without a new call. With `models.retry_failed`, stored texts that do not
    fit are retired and the question is asked again.

    Args:
        gateway: The gateway.
        requests: The questions.
        schema: A pydantic model.
        asset: The asset that pays.
        parser_version: Version of `schema`, for the reason of a failed answer. Defaults to "1".

    Returns:
        For each question the instance, or None, and the answer that it was read from.

    Raises:
        BudgetExceeded, GatewayError, LedgerError: As :meth:`Gateway.ask_many`.
    """
    out, unfit = _ask_and_repair(gateway, requests, schema, asset, parser_version)
    stored = {place: texts for place, texts in unfit.items() if out[place][1].cached}
    if gateway.retry_failed and stored:
        gateway.ledger.retire({key: text for texts in stored.values() for key, text in texts.items()})
        repeated, _ = _ask_and_repair(
            gateway, [requests[place] for place in stored], schema, asset, parser_version
        )
        for place, result in zip(stored, repeated, strict=True):
            out[place] = result
    return out


def _ask_and_repair(
    gateway: Gateway, requests: Sequence[ChatRequest], schema: type[Schema], asset: str, parser_version: str
) -> tuple[list[tuple[Schema | None, ChatAnswer]], dict[int, dict[str, str]]]:
    """Return the results, and for each index without a fitting text: request key -> text."""
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
    """Return the instance and an empty string, or None and a description of the error in the text."""
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
    """Return the second answer with the cost and the tokens of both."""
    return replace(
        second,
        cached=first.cached and second.cached,
        cost_usd=first.cost_usd + second.cost_usd,
        tokens_in=first.tokens_in + second.tokens_in,
        tokens_out=first.tokens_out + second.tokens_out,
    )
