"""What a run will ask, cost and take, before it starts: from its plan and from the ledger's history.

``python -m safevid_core.estimates`` prints it for the settings in force. A paid run beyond pilot size asks
for a budget first: see :func:`require_budget`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import polars as pl
from sqlalchemy import func, select

from safevid_core.evaluation.judges.panel import open_panel
from safevid_core.evaluation.systems import EvaluationError, system_of
from safevid_core.lake import Lake, LakeError
from safevid_core.models.ledger import CALLS, Ledger, LedgerError
from safevid_core.models.prices import Prices
from safevid_core.models.providers import GatewayError, register_providers
from safevid_core.queries.generation import plan_queries
from safevid_core.records import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    PAIRS,
    SAFEVIDBENCH_BASE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    benchmark_table,
    candidate_table,
)
from safevid_core.settings import Settings, SettingsError, TextModel, VideoModel, load_settings
from safevid_core.taxonomy.taxonomy import load_scenes, load_taxonomy

# Where nothing was asked yet: tokens of a task and its material, and of a frame, roughly (ours).
_TOKENS_IN = 800
_TOKENS_A_FRAME = 400
_OUT_SHARE = 0.5  # of the most that an answer may hold
_BATCH_HOURS = 24.0


class BudgetNeeded(GatewayError):
    """A paid run beyond pilot size without a budget; the message says how large it is."""


@dataclass(frozen=True)
class Planned:
    """Calls of one asset to one model, by partition of the lake."""

    asset: str
    model: TextModel | VideoModel
    calls: Mapping[str, int]


@dataclass(frozen=True)
class Estimate:
    """What an asset will ask of one model.

    Attributes:
        planned: Calls of the whole plan, those of other partitions and those that are made included.
        calls: Calls to be made now: of the partitions asked for that are not committed. What the ledger
            answers besides only makes it less.
        cost_usd: None where nobody knows the model's price.
        hours: At the settings' concurrency and limits; None where nothing was asked yet.
        basis: What the figures a call rest on.
    """

    asset: str
    model: str
    planned: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    hours: float | None
    basis: str


class History(NamedTuple):
    """Means over the usable calls of the ledger."""

    calls: int
    tokens_in: float
    tokens_out: float
    latency_s: float


def estimate(
    settings: Settings,
    lake: Lake,
    *,
    assets: Sequence[str] | None = None,
    partitions: Sequence[str] | None = None,
) -> list[Estimate]:
    """Calls, tokens, money and hours of a run, an asset and model a row, in the order of the flow.

    Args:
        assets: Defaults to every asset that asks a model.
        partitions: The lake's names (scenes, `<system>|<benchmark>`). Defaults to all.

    Raises:
        LedgerError: If the ledger cannot be read.
        GatewayError: If a provider module cannot be loaded.
        EvaluationError: If the settings name a system or judge that does not exist.
    """
    register_providers(settings)
    history = read_history(Ledger(settings.ledger_url))
    rows = []
    for planned in plan_calls(settings, lake):
        if assets is not None and planned.asset not in assets:
            continue
        now = sum(
            calls
            for partition, calls in planned.calls.items()
            if (partitions is None or partition in partitions)
            and lake.manifest(planned.asset, partition) is None
        )
        rows.append(_estimate(settings, history, planned, now))
    return rows


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
    for row in estimate(settings, lake, assets=[asset], partitions=partitions):
        if row.cost_usd == 0 or row.calls <= models.pilot_fraction * row.planned:
            continue
        money = "at a price nobody knows" if row.cost_usd is None else f"about {row.cost_usd:.2f} USD"
        raise BudgetNeeded(
            f"{asset}: {row.calls} calls to {row.model}, {money}, are beyond a pilot "
            f"({models.pilot_fraction:.0%} of {row.planned}); set models.budget_usd or "
            f"models.asset_budgets_usd.{asset}, or ask for fewer partitions"
        )


# ------------------------------------------------------------------------------------------ the plan


def plan_calls(settings: Settings, lake: Lake) -> list[Planned]:
    """Every asset's calls: counted where its inputs are committed, else from the settings' sizes."""
    clips, train = _clips(settings, lake)
    planned = [
        Planned(candidate_table(name).name, model, clips)
        for name, model in settings.descriptions.describers.items()
    ]
    planned.append(Planned(DESCRIPTIONS.name, settings.descriptions.reconciler, clips))
    queries = {scene: _planned_queries(settings, lake, scene, n) for scene, n in train.items()}
    planned.append(Planned(TAXONOMY_QUERIES.name, settings.queries.asker, queries))
    asked = {scene: _committed_rows(lake, TAXONOMY_QUERIES.name, scene, n) for scene, n in queries.items()}
    planned += [Planned(PAIRS.name, model, asked) for model in _pair_models(settings)]
    return planned + _planned_measurements(settings, lake)


def _clips(settings: Settings, lake: Lake) -> tuple[dict[str, int], dict[str, int]]:
    """Clips of each scene, and the training clips among them."""
    scenes = [scene.id for scene in load_scenes().scenes]
    if lake.partitions(VIDEO_CORPUS.name):
        corpus = lake.scan(VIDEO_CORPUS).select("scene", "split").collect()
        counts = dict(corpus.group_by("scene").len().iter_rows())
        train = dict(corpus.filter(pl.col("split") == "train").group_by("scene").len().iter_rows())
        return {s: counts.get(s, 0) for s in scenes}, {s: train.get(s, 0) for s in scenes}
    target, share = settings.corpus.target_clips, 1 - settings.corpus.benchmark_fraction
    clips = {s: (target + place) // len(scenes) for place, s in enumerate(scenes)}
    return clips, {s: round(share * n) for s, n in clips.items()}


def _planned_queries(settings: Settings, lake: Lake, scene: str, clips: int) -> int:
    if lake.manifest(DESCRIPTIONS.name, scene) is None:
        return clips * settings.queries.subcategories_per_clip
    described = lake.scan(DESCRIPTIONS, [scene]).filter(pl.col("split") == "train").collect()
    return len(plan_queries(described, settings, load_taxonomy(), "train"))


def _pair_models(settings: Settings) -> tuple[TextModel | VideoModel, ...]:
    return settings.preferences.responder, settings.preferences.unaligned


def _planned_measurements(settings: Settings, lake: Lake) -> list[Planned]:
    """Answers of every system to every benchmark, and the verdicts of every judge that is a model."""
    evaluation = settings.evaluation
    answers: dict[str, int] = {}
    verdicts: dict[TextModel, dict[str, int]] = {}
    for benchmark in evaluation.benchmarks:
        own = benchmark == SAFEVIDBENCH_BASE.name
        items = _committed_rows(lake, benchmark_table(benchmark).name, "all", evaluation.max_items)
        judges = [seat.model for seat in open_panel(settings, benchmark).seats if seat.model is not None]
        for system in settings.systems:
            partition = f"{system}|{benchmark}"
            # Those of the modality test are asked with three more kinds of video.
            calls = items + (3 * min(evaluation.modality_items, items) if own else 0)
            calls = _committed_rows(lake, BENCHMARK_RESPONSES.name, partition, calls)
            if not system_of(settings, system).is_function:
                answers[partition] = calls
            for judge in judges:
                verdicts.setdefault(judge, {})[partition] = calls
    measured = [Planned(BENCHMARK_SCORES.name, judge, calls) for judge, calls in verdicts.items()]
    return [Planned(BENCHMARK_RESPONSES.name, settings.alignment.base, answers), *measured]


def _committed_rows(lake: Lake, asset: str, partition: str, otherwise: int) -> int:
    manifest = lake.manifest(asset, partition)
    return otherwise if manifest is None else manifest.rows


# --------------------------------------------------------------------------------------- the figures


def read_history(ledger: Ledger) -> dict[tuple[str, str], History]:
    """Means over usable calls, by asset and model."""
    means = (func.avg(CALLS.c.tokens_in), func.avg(CALLS.c.tokens_out), func.avg(CALLS.c.latency_s))
    usable = (
        select(CALLS.c.asset, CALLS.c.model, func.count(), *means)
        .where(CALLS.c.outcome == "ok")
        .group_by(CALLS.c.asset, CALLS.c.model)
    )
    with ledger.reading() as connection:
        return {
            (asset, model): History(int(calls), *map(float, figures))
            for asset, model, calls, *figures in connection.execute(usable)
        }


def _estimate(
    settings: Settings,
    history: Mapping[tuple[str, str], History],
    planned: Planned,
    calls: int,
) -> Estimate:
    asked = _Asked.of(planned.model)
    seen = history.get((planned.asset, asked.name))
    tokens_in, tokens_out = (seen.tokens_in, seen.tokens_out) if seen else asked.guess
    price = (0.0, 0.0) if asked.text_model is None else _price(settings, asked.text_model)
    return Estimate(
        asset=planned.asset,
        model=asked.name,
        planned=sum(planned.calls.values()),
        calls=calls,
        tokens_in=round(calls * tokens_in),
        tokens_out=round(calls * tokens_out),
        cost_usd=None if price is None else calls * (price[0] * tokens_in + price[1] * tokens_out),
        hours=_hours(settings, asked, seen, calls),
        basis=f"{seen.calls} calls in the ledger" if seen else "no call yet: a guess",
    )


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


def _hours(settings: Settings, asked: _Asked, seen: History | None, calls: int) -> float | None:
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
        tokens = calls * (seen.tokens_in + seen.tokens_out)
        seconds = max(seconds, 60 * tokens / terms.tokens_per_minute)
    return seconds / 3600


# ------------------------------------------------------------------------------------ the command line


def total(rows: Sequence[Estimate]) -> Estimate:
    """The sum of some estimates; what one of them does not know stays unknown. Hours add up: stages follow
    each other."""
    costs, hours = [row.cost_usd for row in rows], [row.hours for row in rows]
    return Estimate(
        "in all",
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
    heads = [field.name for field in fields(Estimate)]
    cells = [[_cell(name, getattr(row, name)) for name in heads] for row in [*rows, total(rows)]]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [heads, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if name in ("cost_usd", "hours") else f"{value:,.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a run would ask, cost and take; 3 if it needs a budget first."""
    parser = argparse.ArgumentParser(
        prog="python -m safevid_core.estimates",
        description="Calls, tokens, money and hours of a run before it starts.",
    )
    parser.add_argument("assets", nargs="*", help="assets to estimate (default: all that ask a model)")
    parser.add_argument("--partitions", nargs="*", help="scenes, or <system>|<benchmark> (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        lake = Lake(settings.root, settings.profile)
        rows = estimate(settings, lake, assets=chosen.assets or None, partitions=chosen.partitions)
        print("\n".join(json.dumps(asdict(row)) for row in rows) if chosen.json else as_text(rows))
        for asset in dict.fromkeys(row.asset for row in rows):
            require_budget(settings, lake, asset, chosen.partitions)
    except BudgetNeeded as error:
        print(error, file=sys.stderr)
        return 3
    except (EvaluationError, GatewayError, LakeError, LedgerError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
