"""Makes the rows of an audit: a measure, a category, a value with its interval, a line of detail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import Table
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Estimate, Sample, estimate

# One observation: the unit, its cluster, and its value in [0, 1].
Observation = tuple[str, str, float]


def figure_row(measure: str, category: str, figure: Estimate, detail: str = "") -> dict[str, Any]:
    """One row of an audit table."""
    return {
        "audit_row": content_id(measure, category),
        "measure": measure,
        "category": category,
        "n": figure.n,
        "value": figure.value,
        "ci_low": figure.ci_low,
        "ci_high": figure.ci_high,
        "detail": detail,
    }


def count_row(measure: str, category: str, n: int, value: float, detail: str = "") -> dict[str, Any]:
    """A row for a value that is counted and not sampled. It has no interval.

    Args:
        n: Number of units that were counted over.
    """
    return figure_row(measure, category, Estimate(value, None, None, n, 0), detail)


def mean_of(observations: Iterable[Observation]) -> Estimate:
    """The mean of values in [0, 1] with an interval over clusters."""
    rows = [(unit, cluster, None, 0, value) for unit, cluster, value in observations]
    return estimate(Sample(pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")))


def with_clusters(clips: pl.DataFrame) -> pl.DataFrame:
    """The rows with one more column, `cluster`: the twin group of a clip, else its source video.

    Clips of one cluster are not independent.

    Args:
        clips: Columns `clip_id, source_id, twin_group`.
    """
    source = pl.coalesce("source_id", "clip_id")
    return clips.with_columns(
        cluster=pl.coalesce(pl.format("twins {}", "twin_group"), pl.format("source {}", source))
    )


def audit_stage(
    table: Table,
    description: str,
    plan: Callable[[Tools, str], Plan],
    reads: Sequence[str],
    optional: Sequence[str] = (),
) -> Stage:
    """The stage of an audit with one table that is made only from committed tables.

    Args:
        description: One sentence for people.
        reads: Names of the stages that it reads.
        optional: Those of `reads` that need not be committed.
    """
    return Stage(table, "audits", description, plan, reads=tuple(reads), optional=frozenset(optional))
