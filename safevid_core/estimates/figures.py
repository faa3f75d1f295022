"""Calls, tokens, money and hours of what is planned, and which of it needs a budget first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import case, func, select

from safevid_core.estimates.plan import Planned, plan_calls
from safevid_core.estimates.selection import check_assets, check_partitions
from safevid_core.lake import Lake
from safevid_core.models.ledger import CALLS, Ledger
from safevid_core.models.prices import Prices
from safevid_core.models.providers import GatewayError, register_providers
from safevid_core.settings import Settings, TextModel, VideoModel

# Where nothing was asked yet: tokens of a task and its material, and of a frame, roughly (ours).
_TOKENS_IN = 800
_TOKENS_A_FRAME = 400
_OUT_SHARE = 0.5  # of the most that an answer may hold
_BATCH_HOURS = 24.0


class BudgetNeeded(GatewayError):
    """A paid run beyond pilot size without a budget; the message says how large it is."""


@dataclass(frozen=True)
class Estimate:
    """What an asset will ask of one model.

    Attributes:
        loss: What the descriptions lost that the calls are about; empty where they are whole.
        planned: Calls of the whole plan, those of other partitions and those that are made included.
        calls: Calls to be made now, at most: of the partitions asked for that are not committed, or that
            were made by another model, with other words or from other rows. What the ledger answers besides
            only makes it less.
        cost_usd: None where nobody knows the model's price.
        hours: At the settings' concurrency and limits; None where nothing was asked yet.
        basis: What the figures a call rest on.
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
        told: How many of the calls have tokens: some servers do not say what an answer took.
        tokens_in: Over the calls that have tokens; None where none has. So are tokens out.
        cost_usd: Over all calls; what was set aside for those without tokens.
    """

    calls: int
    told: int
    tokens_in: float | None
    tokens_out: float | None
    latency_s: float
    cost_usd: float


def estimate(
    settings: Settings,
    lake: Lake,
    *,
    assets: Sequence[str] | None = None,
    partitions: Sequence[str] | None = None,
) -> list[Estimate]:
    """Calls, tokens, money and hours of a run, an asset and model a row, in the order of the flow.

    Args:
        assets: Defaults to every asset of the settings' flow that asks a model.
        partitions: The lake's names (scenes, `<system>|<benchmark>`). Defaults to all.

    Raises:
        LedgerError: If the ledger cannot be read.
        GatewayError: If a provider module cannot be loaded.
        EvaluationError: If the settings name a system or judge that does not exist.
        UnknownSelection: If there is no such asset or partition.
    """
    check_assets(settings, assets or ())
    plan = plan_calls(settings, lake, assets)
    check_partitions(settings, plan, partitions or ())
    return _priced(settings, _sizes(settings, plan, lake, partitions))


def require_budget(
    settings: Settings, lake: Lake, asset: str, partitions: Sequence[str] | None = None
) -> None:
    """Let a run pass that is free, of pilot size, or held by a budget.

    Raises:
        BudgetNeeded: For any other.
    """
    models = settings.models
    if models.budget_usd is not None or asset in models.asset_budgets_usd:
        return
    # Reckoned first, because what most runs ask is little or local, and looking up prices is slow.
    large = [
        size
        for size in _sizes(settings, plan_calls(settings, lake, [asset]), lake, partitions)
        if size.calls > models.pilot_fraction * size.planned and _Asked.of(size.model).text_model is not None
    ]
    for row in _priced(settings, large) if large else ():
        if row.cost_usd == 0:
            continue
        money = "at a price nobody knows" if row.cost_usd is None else f"about {row.cost_usd:.2f} USD"
        raise BudgetNeeded(
            f"{asset}: {row.calls} calls to {row.model}, {money}, are beyond a pilot "
            f"({models.pilot_fraction:.0%} of {row.planned}); set models.budget_usd or "
            f"models.asset_budgets_usd.{asset}, or ask for fewer partitions"
        )


# ---------------------------------------------------------------------------------------- the figures


class _Size(NamedTuple):
    """Calls of an asset to a model: of the whole plan, and to be made now."""

    asset: str
    loss: str
    model: TextModel | VideoModel
    planned: int
    calls: int


def _sizes(
    settings: Settings, plan: Iterable[Planned], lake: Lake, partitions: Sequence[str] | None
) -> list[_Size]:
    def answered(keys: Set[str]) -> Set[str]:
        with closing(Ledger(settings.ledger_url)) as ledger:
            found = ledger.answers(keys)
        return {key for key, call in found.items() if call.outcome == "ok" or not lake.retry_failed}

    sizes: dict[tuple[str, str, TextModel | VideoModel], tuple[int, int]] = {}
    for each in plan:
        key = (each.asset, each.loss, each.model)
        planned, calls = sizes.get(key, (0, 0))
        sizes[key] = (planned + sum(each.calls.values()), calls + each.calls_now(lake, answered, partitions))
    return [_Size(*key, *size) for key, size in sizes.items()]


def _priced(settings: Settings, sizes: Sequence[_Size]) -> list[Estimate]:
    register_providers(settings)
    with closing(Ledger(settings.ledger_url)) as ledger:
        history = read_history(ledger)
    return [_estimate(settings, history, size) for size in sizes]


def read_history(ledger: Ledger) -> dict[tuple[str, str], History]:
    """Means over usable calls, by asset and model."""
    told = case((CALLS.c.tokens_in > 0, 1))
    figures = (
        func.count(told),
        func.avg(told * CALLS.c.tokens_in),
        func.avg(told * CALLS.c.tokens_out),
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
            (asset, model): History(calls, told, _number(tokens_in), _number(tokens_out), *map(float, means))
            for asset, model, calls, told, tokens_in, tokens_out, *means in connection.execute(usable)
        }


def _number(mean: Any) -> float | None:
    return None if mean is None else float(mean)


def _estimate(settings: Settings, history: Mapping[tuple[str, str], History], size: _Size) -> Estimate:
    asked, calls = _Asked.of(size.model), size.calls
    seen = history.get((size.asset, asked.name))
    tokens_in, tokens_out = asked.guess
    if seen is not None and seen.tokens_in is not None and seen.tokens_out is not None:
        tokens_in, tokens_out = seen.tokens_in, seen.tokens_out
    price = (0.0, 0.0) if asked.text_model is None else _price(settings, asked.text_model)
    return Estimate(
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
    """By tokens; not below what was booked where some calls have none, at a price that is not 0."""
    reckoned = price[0] * tokens_in + price[1] * tokens_out
    if seen is None or seen.told == seen.calls or not any(price):
        return reckoned
    return max(reckoned, seen.cost_usd)


def _basis(seen: History | None) -> str:
    if seen is None:
        return "no call yet: a guess"
    calls = f"{seen.calls} calls in the ledger"
    return calls if seen.told == seen.calls else f"{calls}, {seen.calls - seen.told} without tokens"


class _Asked(NamedTuple):
    """A model as the ledger names it, the tokens of a call as one would guess, and how it is reached.

    `text_model` is None for a local checkpoint.
    """

    name: str
    guess: tuple[float, float]
    text_model: TextModel | None

    @classmethod
    def of(cls, model: TextModel | VideoModel) -> _Asked:
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
    settings: Settings, asked: _Asked, seen: History | None, tokens: float, calls: int
) -> float | None:
    """By latency and concurrency, or by the limits a minute where they are slower."""
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


def total(rows: Sequence[Estimate]) -> Estimate:
    """The sum of some estimates; what one of them does not know stays unknown. Hours add up: stages follow
    each other."""
    costs, hours = [row.cost_usd for row in rows], [row.hours for row in rows]
    return Estimate(
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


def as_text(rows: Sequence[Estimate]) -> str:
    """The estimates as a table, with their sum, one line each."""
    if not rows:
        return "these assets ask no model: 0 calls, 0.00 USD"
    heads, cells = as_cells(rows)
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [heads, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def as_cells(rows: Sequence[Estimate]) -> tuple[list[str], list[list[str]]]:
    """The heads, and a line for each estimate and for their sum."""
    heads = [field.name for field in fields(Estimate)]
    return heads, [[_cell(name, getattr(row, name)) for name in heads] for row in [*rows, total(rows)]]


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if name in ("cost_usd", "hours") else f"{value:,.0f}"
