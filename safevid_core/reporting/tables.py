"""The scorecard's tables as plain rows and cells, which the page and the Markdown both print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.contracts.outcomes import OUTCOMES
from safevid_core.contracts.tables import SAFEVIDBENCH_BASE, SAFEVIDBENCH_CHALLENGE
from safevid_core.measurement.bars import HELPFUL_MARGIN
from safevid_core.measurement.measurement import CATEGORY_COLUMNS, COUNTED_OVER_ALL, RATES, Measurement
from safevid_core.reporting.browser import rows_link
from safevid_core.statistics.intervals import Estimate
from safevid_core.statistics.power import NonInferiority, non_inferiority, smallest_difference
from safevid_core.systems.systems import System
from safevid_core.taxonomy.foreign import foreign_taxonomies

_OWN = {
    SAFEVIDBENCH_BASE.name: (
        "SafeVidBench-Base",
        "safety and helpfulness",
        "The answer does what the query and the clip that was shown ask for: it gives no help to a harm, "
        "sets a false premise right, or answers what is harmless. Held-out clips and phrasings.",
    ),
    SAFEVIDBENCH_CHALLENGE.name: (
        "SafeVidBench-Challenge",
        "safety",
        "The answer gives no help towards the harm. Queries of the challenge categories that several other "
        "systems failed on; the systems that selected a query are none of those that are reported.",
    ),
}
STRONGREJECT = "strongreject"
# What a cell's rows want, by its metric.
WANTS = {
    "safety_rate": "safety",
    "helpful_rate": "answer",
    "over_refusal_rate": "answer",
    "mmbench_score": "answer",
    "attack_success_rate": "harm",
    "refusal_rate": "harm",
}


@dataclass(frozen=True)
class About:
    """What a benchmark is.

    Attributes:
        measures: What it is of, in words.
        success: When an answer is one.
        judge: Its own headline judge; None for the panel of the settings.
    """

    benchmark: str
    title: str
    measures: str
    success: str
    judge: str | None = None


def about(benchmark: str) -> About:
    """What is known of a benchmark; of an unknown one its name."""
    if benchmark in _OWN:
        return About(benchmark, *_OWN[benchmark])
    found = OUTSIDE.get(benchmark)
    if found is None:
        return About(benchmark, benchmark.replace("_", " "), "", "")
    return About(benchmark, found.title, found.measures.replace("_", "-"), found.success, found.judge)


# --------------------------------------------------------------------------------- systems by benchmarks


@dataclass(frozen=True)
class Cell:
    """One figure, what became of it since before alignment, and where its rows are.

    Attributes:
        refused: Of a helpful rate, the share of the same items that were refused.
    """

    figure: Estimate
    change: Estimate | None
    refused: Estimate | None
    link: str


@dataclass(frozen=True)
class Column:
    """One benchmark and metric of a table."""

    about: About
    metric: str
    release: str

    @property
    def scale(self) -> str:
        return "score" if self.metric == "mmbench_score" else "rate"


@dataclass(frozen=True)
class SystemsTable:
    """Systems by benchmarks; a cell is None where a system is not measured or has no such item."""

    columns: list[Column]
    rows: list[tuple[System, list[Cell | None]]]


def safety_table(measured: Sequence[Measurement]) -> SystemsTable:
    """The paper's Table 2: the safety rate of every system on every benchmark that asks for safety."""
    return _systems_table(measured, ("safety_rate",))


def helpful_table(measured: Sequence[Measurement]) -> SystemsTable:
    """The paper's Table 3: the helpful rate, and MMBench-Video's score where its own judge gave it."""
    return _systems_table(measured, ("mmbench_score", "helpful_rate"))


def all_systems(measured: Sequence[Measurement]) -> list[System]:
    """Every measured system once: policies by name and share of the pairs, then controls."""
    systems = {system.name: system for each in measured for system in each.systems}
    order = {name: place for place, name in enumerate(dict.fromkeys(s.policy for s in systems.values()))}
    return sorted(systems.values(), key=lambda s: (s.is_control, order[s.policy], s.data_scale))


def _systems_table(measured: Sequence[Measurement], metrics: Sequence[str]) -> SystemsTable:
    columns, sources = [], []
    for each in measured:
        metric = next((m for m in metrics if any(f[m].n for f in each.estimates.values())), None)
        if metric is not None:
            columns.append(Column(about(each.benchmark), metric, each.release))
            sources.append(each)
    rows = []
    for system in all_systems(measured):
        cells = [_cell(each, system, column) for each, column in zip(sources, columns, strict=True)]
        if any(cells):
            rows.append((system, cells))
    return SystemsTable(columns, rows)


def _cell(measured: Measurement, system: System, column: Column) -> Cell | None:
    figures = measured.estimates.get(system.name)
    if figures is None or not figures[column.metric].n:
        return None
    refused = figures["over_refusal_rate"] if column.metric == "helpful_rate" else None
    change = measured.difference(system.name, column.metric)
    return Cell(
        figures[column.metric],
        change if change is not None and change.known else None,
        refused,
        rows_link(measured.benchmark, second=system.name, wants=WANTS[column.metric]),
    )


# ------------------------------------------------------------------------------------ before and after


@dataclass(frozen=True)
class Change:
    """What alignment changed on one benchmark, and the smallest change that the sample would have shown."""

    benchmark: str
    title: str
    metric: str
    before: Estimate
    after: Estimate
    change: Estimate
    smallest: float | None
    kept: NonInferiority | None


def changes(measured: Sequence[Measurement]) -> Iterator[Change]:
    """The rates before and after on every benchmark; a helpful rate with its non-inferiority."""
    for each in measured:
        if each.before is None or each.after is None:
            continue
        before, after = (each.estimates[system.name] for system in (each.before, each.after))
        for metric in (*RATES, "over_refusal_rate", "mmbench_score"):
            change = each.difference(each.after.name, metric)
            if change is None or not change.known:
                continue
            kept = non_inferiority(change, HELPFUL_MARGIN) if metric == "helpful_rate" else None
            smallest = smallest_difference(change)
            title = about(each.benchmark).title
            yield Change(each.benchmark, title, metric, before[metric], after[metric], change, smallest, kept)


# ------------------------------------------------------------------------------- what became of answers


@dataclass(frozen=True)
class Outcomes:
    """What became of one system's answers to a benchmark, each item with its own video.

    Attributes:
        counts: Outcome -> answers, `ok` being judged ones.
        reasons: The most frequent reasons why there is no verdict, with their counts.
        rates: (metric, over valid, over all, bound), where anything is missing.
    """

    system: str
    benchmark: str
    title: str
    counts: dict[str, int]
    reasons: list[tuple[str, int]]
    rates: list[tuple[str, Estimate, Estimate, Estimate]]
    link: str

    def as_dict(self) -> dict[str, str | int]:
        return {"system": self.system, "benchmark": self.benchmark, **self.counts}


def outcome_rows(measured: Sequence[Measurement]) -> Iterator[Outcomes]:
    """One row a system and benchmark."""
    for each in measured:
        for system in each.systems:
            found = [
                ending for (_, variant, _), ending in each.unjudged[system.name].items() if variant == "right"
            ]
            judged = each.scores[system.name].filter(pl.col("variant") == "right").height
            counts = {"ok": judged} | {name: sum(o == name for o, _ in found) for name in OUTCOMES[1:]}
            figures, samples = each.estimates[system.name], each.samples[system.name]
            rates = [
                (metric, *(figures[f"{metric}{counted}"] for counted in ("", "_all", "_bound")))
                for metric in COUNTED_OVER_ALL
                if samples[f"{metric}_bound"].frame.height > samples[metric].frame.height
            ]
            yield Outcomes(
                system.name,
                each.benchmark,
                about(each.benchmark).title,
                counts,
                Counter(reason for _, reason in found).most_common(3),
                rates,  # type: ignore[arg-type]
                rows_link(each.benchmark, second=system.name, outcome="unanswered"),
            )


# -------------------------------------------------------------------------------------- by category


@dataclass(frozen=True)
class HeatCell:
    """One figure within one category; None where it has no such item.

    Attributes:
        link: To its rows; None where the browser has no such column.
    """

    figure: Estimate | None
    link: str | None


@dataclass(frozen=True)
class HeatRow:
    """One category: for each metric of the table the cells before and after, and the change.

    Attributes:
        changes: The paired change and its p value adjusted by Holm; None without items in both.
    """

    name: str
    cells: list[list[HeatCell]]
    changes: list[tuple[Estimate, float | None] | None]


@dataclass(frozen=True)
class HeatTable:
    """One way of sorting a benchmark's items into categories.

    Attributes:
        foreign: Whether the categories are those of a taxonomy in which others report.
    """

    title: str
    metrics: list[str]
    rows: list[HeatRow]
    foreign: bool = False


_COLUMN_TITLES = {
    "principle": "By principle",
    "subcategory": "By subcategory",
    "style": "By style of the query",
    "ability": "By ability",
    "dimension": "By dimension",
}


def heat_tables(measured: Measurement, names: dict[str, str]) -> list[HeatTable]:
    """The rates by principle, subcategory, style and foreign codes, each before and after.

    MMBench-Video's score is given by its own kinds.

    Args:
        names: Id of a category -> its name.
    """
    systems = [system.name for system in (measured.before, measured.after) if system is not None]
    figures = {(c.system, c.column, c.category, c.metric): c.estimate for c in measured.categories}
    changed = {
        (c.column, c.category, c.metric): (c.estimate, c.adjusted_p) for c in measured.category_changes
    }
    tables = []
    foreign = foreign_taxonomies()
    titles = {name: f"By {each.name}" for name, each in foreign.items()}
    for column, title in {**_COLUMN_TITLES, **titles}.items():
        labels = names if column not in foreign else foreign[column].codes
        mine = [c for c in measured.categories if c.column == column]
        metrics = [metric for metric in COUNTED_OVER_ALL if any(c.metric == metric for c in mine)]
        is_of_rows = column in CATEGORY_COLUMNS  # others are a benchmark's own, and as it lists them
        categories = list(dict.fromkeys(c.category for c in mine))
        rows = [
            HeatRow(
                name=labels.get(category, category.replace("_", " ")),
                cells=[
                    [
                        HeatCell(
                            figures.get((system, column, category, metric)),
                            rows_link(
                                measured.benchmark,
                                second=system,
                                wants=WANTS[metric],
                                category=f"{column}:{category}",
                            )
                            if is_of_rows
                            else None,
                        )
                        for system in systems
                    ]
                    for metric in metrics
                ],
                changes=[changed.get((column, category, metric)) for metric in metrics],
            )
            for category in (sorted(categories) if is_of_rows else categories)
        ]
        if rows:
            tables.append(HeatTable(title, metrics, rows, column in foreign))
    return tables
