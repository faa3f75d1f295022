"""Estimates of the calls, tokens, cost and time of planned work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import case, func, select

from safevid_core.models.ledger import CALLS, Ledger
from safevid_core.models.prices import Prices
from safevid_core.models.providers import register_providers
from safevid_core.settings import Settings, TextModel, VideoModel
from safevid_core.stages.planner import Planner, State
from safevid_core.stages.stage import Questions, Stage

# Our rough guesses for a model that was not asked yet: tokens of a prompt, and of one frame.
_TOKENS_IN = 800
_TOKENS_A_FRAME = 400
_OUT_SHARE = 0.5  # of the most tokens that an answer may have
_BATCH_HOURS = 24.0


@dataclass(frozen=True)
class CallEstimate:
    """The calls of a stage to one model.

    Attributes:
        loss: The loss that was applied to the descriptions that the calls are about. Empty for unchanged
            descriptions.
        planned: Calls of the whole plan: of all partitions, also those that are made already.
        calls: Upper bound of the calls of this run: of the selected partitions that are missing or stale.
            Answers that the ledger holds already lower the real number.
        cost_usd: None if the model's price is unknown.
        hours: At the settings' concurrency and rate limits. None if the model was never asked.
        basis: The origin of the tokens and seconds of a call. Example: "40 calls in the ledger".
    """

    asset: str
    loss: str
    model: str
    planned: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    hours: float | None
    basis: str


class History(NamedTuple):
    """Means over the usable calls of the ledger.

    Attributes:
        with_tokens: How many calls have token counts. Some servers report none.
        tokens_in: Mean over the calls with token counts. None if there are none.
        tokens_out: Likewise.
        cost_usd: Mean over all calls. A call without token counts enters with the amount reserved for it.
    """

    calls: int
    with_tokens: int
    tokens_in: float | None
    tokens_out: float | None
    latency_s: float
    cost_usd: float


def estimate(
    planner: Planner, stages: Sequence[str] = (), partitions: Sequence[str] | None = None
) -> list[CallEstimate]:
    """Estimates of a run: one row for each stage and model, in the order of the flow.

    Args:
        stages: Names of stages. Empty selects the flow of the settings.
        partitions: Names of partitions, such as scenes or `<system>|<benchmark>`. Defaults to all.
    Raises:
        RegistryError: If there is no such stage or partition.
        LedgerError: If the ledger cannot be read.
        GatewayError: If a provider module cannot be loaded.
        ResponseError: If the settings name a system that does not exist.
        JudgeError: If the settings name a judge that does not exist.
    """
    settings, registry = planner.tools.settings, planner.registry
    now = {stage.name: some for stage, some in registry.select(stages, settings, partitions)}
    sizes = [
        size
        for stage, every in registry.select(stages, settings)
        if stage.asks
        for size in sizes_of(planner, stage, every, now.get(stage.name, []))
    ]
    return priced(settings, sizes)


# ---------------------------------------------------------------------------------------- the figures


class CallSize(NamedTuple):
    """The number of calls of a stage to a model, in the whole plan and in this run."""

    asset: str
    loss: str
    model: TextModel | VideoModel
    planned: int
    calls: int


def sizes_of(planner: Planner, stage: Stage, planned: Iterable[str], now: Collection[str]) -> list[CallSize]:
    """The number of calls of a stage to each model.

    Args:
        planned: The partitions of the whole plan.
        now: The partitions of this run.
    """
    sizes: dict[tuple[str, TextModel | VideoModel], list[int]] = {}
    for partition in planned:
        loss = stage.partitions.values(partition).get("loss", "")
        state = planner.standing(stage, partition) if partition in now else None
        for questions in planner.forecast(stage, partition).questions:
            size = sizes.setdefault((loss, questions.model), [0, 0])
            size[0] += questions.count
            size[1] += 0 if state is None else _calls_now(planner, questions, state)
        planner.forget(stage, partition)
    return [CallSize(stage.name, loss, model, *size) for (loss, model), size in sizes.items()]


def _calls_now(planner: Planner, questions: Questions, state: State) -> int:
    """Calls that a run would make for a partition: its questions less those that the ledger answers."""
    if state.condition == "fresh":
        return 0
    if state.condition == "incomplete" and state.manifest is not None:
        return min(planner.open_units(state.manifest), questions.count)
    if state.condition == "blocked" or questions.keys is None:
        return questions.count
    keys = set(questions.keys())
    with closing(Ledger(planner.tools.settings.ledger_url)) as ledger:
        answered = _answered(planner, ledger, keys)
        following, unknown = questions.follow(answered) if questions.follow else ((), 0)
        following = set(following) - keys
        return len(keys - answered) + len(following - _answered(planner, ledger, following)) + unknown


def _answered(planner: Planner, ledger: Ledger, keys: set[str]) -> set[str]:
    """Those of the keys that a run would not ask again."""
    retry = planner.retry_failed
    return {key for key, call in ledger.answers(keys).items() if call.outcome == "ok" or not retry}


def priced(settings: Settings, sizes: Sequence[CallSize]) -> list[CallEstimate]:
    """The estimates for some sizes, with tokens, cost and hours."""
    register_providers(settings)
    with closing(Ledger(settings.ledger_url)) as ledger:
        history = read_history(ledger)
    return [_estimate(settings, history, size) for size in sizes]


def read_history(ledger: Ledger) -> dict[tuple[str, str], History]:
    """(stage, model) -> means over its usable calls."""
    has_tokens = case((CALLS.c.tokens_in > 0, 1))
    figures = (
        func.count(has_tokens),
        func.avg(has_tokens * CALLS.c.tokens_in),
        func.avg(has_tokens * CALLS.c.tokens_out),
        func.avg(CALLS.c.latency_s),
        func.avg(CALLS.c.cost_usd),
    )
    usable = (
        select(CALLS.c.asset, CALLS.c.model, func.count(), *figures)
        .where(CALLS.c.outcome == "ok")
        .group_by(CALLS.c.asset, CALLS.c.model)
    )
    with ledger.reading() as connection:
        return {
            (asset, model): History(
                calls, with_tokens, _number(tokens_in), _number(tokens_out), *map(float, means)
            )
            for asset, model, calls, with_tokens, tokens_in, tokens_out, *means in connection.execute(usable)
        }


def _number(mean: Any) -> float | None:
    return None if mean is None else float(mean)


def _estimate(settings: Settings, history: Mapping[tuple[str, str], History], size: CallSize) -> CallEstimate:
    asked, calls = AskedModel.of(size.model), size.calls
    seen = history.get((size.asset, asked.name))
    tokens_in, tokens_out = asked.guess
    if seen is not None and seen.tokens_in is not None and seen.tokens_out is not None:
        tokens_in, tokens_out = seen.tokens_in, seen.tokens_out
    price = (0.0, 0.0) if asked.text_model is None else _price(settings, asked.text_model)
    return CallEstimate(
        asset=size.asset,
        loss=size.loss,
        model=asked.name,
        planned=size.planned,
        calls=calls,
        tokens_in=round(calls * tokens_in),
        tokens_out=round(calls * tokens_out),
        cost_usd=None if price is None else calls * _usd_a_call(price, tokens_in, tokens_out, seen),
        hours=_hours(settings, asked, seen, tokens_in + tokens_out, calls),
        basis=_basis(seen),
    )


def _usd_a_call(
    price: tuple[float, float], tokens_in: float, tokens_out: float, seen: History | None
) -> float:
    """USD a call by tokens. If some calls have none and the price is not 0, at least the mean cost."""
    reckoned = price[0] * tokens_in + price[1] * tokens_out
    if seen is None or seen.with_tokens == seen.calls or not any(price):
        return reckoned
    return max(reckoned, seen.cost_usd)


def _basis(seen: History | None) -> str:
    if seen is None:
        return "no call yet: a guess"
    calls = f"{seen.calls} calls in the ledger"
    return (
        calls
        if seen.with_tokens == seen.calls
        else f"{calls}, {seen.calls - seen.with_tokens} without tokens"
    )


class AskedModel(NamedTuple):
    """A model as the ledger names it, with guessed tokens of a call.

    Attributes:
        guess: Tokens in and out of a call, for a model without history.
        text_model: How the model is reached. None for a local checkpoint.
    """

    name: str
    guess: tuple[float, float]
    text_model: TextModel | None

    @classmethod
    def of(cls, model: TextModel | VideoModel) -> AskedModel:
        if isinstance(model, TextModel):
            return cls(model.model, (_TOKENS_IN, _OUT_SHARE * model.max_tokens), model)
        guess = (_TOKENS_IN + _TOKENS_A_FRAME * model.frames, _OUT_SHARE * model.max_new_tokens)
        if model.served_at is None:
            return cls(Path(model.path).name, guess, None)
        served = TextModel.model_validate({"model": model.path, "api_base": model.served_at})
        return cls(model.path, guess, served)


def _price(settings: Settings, model: TextModel) -> tuple[float, float] | None:
    price = Prices(settings.models).a_token(model)
    return (0.0, 0.0) if price is None and model.api_base is not None else price


def _hours(
    settings: Settings, asked: AskedModel, seen: History | None, tokens: float, calls: int
) -> float | None:
    """Hours by latency and concurrency, or by the rate limits if those are slower."""
    if calls == 0:
        return 0.0
    terms = settings.models.terms.get(asked.name)
    if terms is not None and terms.batch:
        return _BATCH_HOURS
    if seen is None:
        return None
    at_once = 1 if asked.text_model is None else settings.models.concurrency
    seconds = calls * seen.latency_s / at_once
    if terms is not None and terms.requests_per_minute is not None:
        seconds = max(seconds, 60 * calls / terms.requests_per_minute)
    if terms is not None and terms.tokens_per_minute is not None:
        seconds = max(seconds, 60 * calls * tokens / terms.tokens_per_minute)
    return seconds / 3600


# ------------------------------------------------------------------------------------------ as a table


def total(rows: Sequence[CallEstimate]) -> CallEstimate:
    """The sum of some estimates. A sum is None if one of its terms is None.

    Hours add up because stages run one after another.
    """
    costs, hours = [row.cost_usd for row in rows], [row.hours for row in rows]
    return CallEstimate(
        "in all",
        "",
        "",
        sum(row.planned for row in rows),
        sum(row.calls for row in rows),
        sum(row.tokens_in for row in rows),
        sum(row.tokens_out for row in rows),
        None if None in costs else sum(cost or 0.0 for cost in costs),
        None if None in hours else sum(each or 0.0 for each in hours),
        "",
    )


def as_text(rows: Sequence[CallEstimate]) -> str:
    """The estimates and their sum as a text table, one line each."""
    if not rows:
        return "these assets ask no model: 0 calls, 0.00 USD"
    heads, cells = as_cells(rows)
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [heads, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def as_cells(rows: Sequence[CallEstimate]) -> tuple[list[str], list[list[str]]]:
    """The column names, and the cells of one line for each estimate and for their sum."""
    heads = [field.name for field in fields(CallEstimate)]
    return heads, [[_cell(name, getattr(row, name)) for name in heads] for row in [*rows, total(rows)]]


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if name in ("cost_usd", "hours") else f"{value:,.0f}"
