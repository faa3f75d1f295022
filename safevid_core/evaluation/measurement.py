"""All systems measured on one benchmark: figures, paired comparisons, categories and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from safevid_core.evaluation.bars import Bar, bars_after, bars_before
from safevid_core.evaluation.metrics import (
    METRICS,
    SAFE,
    category_samples,
    clusters_of,
    samples_of,
)
from safevid_core.evaluation.responses import read_items
from safevid_core.evaluation.statistics import (
    SAMPLE_SCHEMA,
    Estimate,
    Sample,
    bound_with_failures,
    estimate,
    paired_difference,
)
from safevid_core.evaluation.systems import System, before_of, measured_systems
from safevid_core.lake import Lake
from safevid_core.records import BENCHMARK_SCORES, DESCRIPTIONS
from safevid_core.settings import Settings

CATEGORY_COLUMNS = ("principle", "subcategory", "style")


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same items: the difference of a metric, `system` minus `against`."""

    system: str
    against: str
    benchmark: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True)
class Category:
    """One system's rate within one category."""

    system: str
    column: str
    category: str
    metric: str
    estimate: Estimate


@dataclass
class Measurement:
    """Everything that a benchmark says about the systems.

    Attributes:
        scores: System -> its rows of `benchmark_scores`.
        estimates: System -> metric -> figure.
        missing: Systems of the settings that have no verdict yet.
    """

    settings: Settings
    benchmark: str
    items: pl.DataFrame
    clusters: Mapping[str, str]
    scores: dict[str, pl.DataFrame]
    systems: list[System]
    missing: list[str]
    samples: dict[str, dict[str, Sample]] = field(default_factory=dict)
    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)

    @property
    def release(self) -> str:
        return str(self.items["release"][0])

    def estimate(self, sample: Sample) -> Estimate:
        return estimate(sample, self.settings.evaluation.bootstrap_draws, self.settings.seed)

    @cached_property
    def before(self) -> System | None:
        """The first policy before alignment, which everything is held against."""
        return next((each for each in self.systems if not each.is_control and each.data_scale == 0), None)

    @cached_property
    def after(self) -> System | None:
        """The same policy after alignment on the most pairs."""
        aligned = [
            each
            for each in self.systems
            if not each.is_control
            and each.data_scale > 0
            and (not self.before or each.policy == self.before.policy)
        ]
        return max(aligned, key=lambda each: each.data_scale, default=None)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every system against its policy before alignment, and the aligned one against every control."""
        found = []
        for system in self.systems:
            against = before_of(self.settings, system)
            if against is not None and against.name in self.samples:
                found += self._compare(system.name, against.name)
        if self.after is not None:
            for control in (each for each in self.systems if each.is_control):
                found += self._compare(self.after.name, control.name)
        return found

    def difference(self, system: str, metric: str) -> Estimate | None:
        """What became of a metric against the policy before alignment, paired."""
        before = self.before.name if self.before else ""
        found = (c for c in self.comparisons if (c.system, c.against, c.metric) == (system, before, metric))
        return next((c.estimate for c in found), None)

    @cached_property
    def bars(self) -> list[Bar]:
        if self.before is None:
            return []
        right = self.scores[self.before.name].filter(pl.col("variant") == "right")
        bars = bars_before(
            self.before.name, self.estimates[self.before.name], right.height, right["clip_id"].n_unique()
        )
        for system in self.systems:
            if system.name == self.before.name:
                continue
            differences = {
                metric: self.difference(system.name, metric) or self.estimate(_NONE)
                for metric in ("safety_rate", "helpful_rate")
            }
            bars += bars_after(system.name, differences, self.estimates[system.name]["twin_gap"])
        return bars

    def missed(self, system: str) -> list[str]:
        """Names of the bars that a system misses."""
        return [bar.name for bar in self.bars if bar.system == system and not bar.met]

    @cached_property
    def categories(self) -> list[Category]:
        """The policy before and after, by principle, subcategory and style."""
        return [
            Category(system.name, column, category, metric, self.estimate(sample))
            for system in (self.before, self.after)
            if system is not None
            for column in CATEGORY_COLUMNS
            for (category, metric), sample in category_samples(
                self.scores[system.name], self.clusters, column
            ).items()
        ]

    def _compare(self, system: str, against: str) -> list[Comparison]:
        ours, theirs = self.samples[system], self.samples[against]
        return [
            Comparison(
                system,
                against,
                self.benchmark,
                metric,
                self.estimate(paired_difference(ours[metric], theirs[metric])),
            )
            for metric in METRICS
        ]


_NONE = Sample(pl.DataFrame(schema=SAMPLE_SCHEMA))


def measure(settings: Settings, lake: Lake, benchmark: str) -> Measurement:
    """Measure every system that has verdicts on a committed benchmark."""
    items = read_items(lake, benchmark)
    sources = lake.scan(DESCRIPTIONS).select("clip_id", "source_id").collect()
    clusters = clusters_of(items, dict(sources.iter_rows()))
    scores, systems, missing = {}, [], []
    for system in measured_systems(settings):
        if lake.manifest(BENCHMARK_SCORES.name, f"{system.name}|{benchmark}") is None:
            missing.append(system.name)
            continue
        systems.append(system)
        rows = lake.read(BENCHMARK_SCORES, f"{system.name}|{benchmark}")
        # Verdicts on an earlier release's items are no verdicts on this one.
        scores[system.name] = rows.filter(pl.col("item_id").is_in(items["item_id"].implode()))
    found = Measurement(settings, benchmark, items, clusters, scores, systems, missing)
    for name, rows in scores.items():
        samples = samples_of(rows, clusters)
        samples |= _bounds(samples, rows, items, clusters)
        found.samples[name] = samples
        found.estimates[name] = {metric: found.estimate(sample) for metric, sample in samples.items()}
    return found


def _bounds(
    samples: Mapping[str, Sample], scores: pl.DataFrame, items: pl.DataFrame, clusters: Mapping[str, str]
) -> dict[str, Sample]:
    """The two rates with every item that has no verdict counted as a failure.

    An item without a verdict is placed by what its query's writer expected.
    """
    right = scores.filter(pl.col("variant") == "right")
    seeds = right["seed"].unique().sort().to_list() or [0]
    judged = set(right.select("item_id", "seed").iter_rows())
    missing: dict[str, list[tuple[str, str, int]]] = {"safety_rate": [], "helpful_rate": []}
    for item_id, clip_id, expectation in items.select("item_id", "clip_id", "expectation").iter_rows():
        metric = "safety_rate" if expectation in SAFE else "helpful_rate"
        missing[metric] += [
            (item_id, clusters[clip_id], seed) for seed in seeds if (item_id, seed) not in judged
        ]
    return {f"{metric}_bound": bound_with_failures(samples[metric], rows) for metric, rows in missing.items()}


def as_cells(measurement: Measurement, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One mapping a system and metric, as the scorecard's JSON lists them."""
    return [
        {
            "system": system.name,
            "policy": system.policy,
            "data_scale": system.data_scale,
            "benchmark": measurement.benchmark,
            "metric": metric,
            "n": figure.n,
            "clusters": figure.clusters,
            "seeds": figure.seeds,
            "value": figure.value,
            "ci_low": figure.ci_low,
            "ci_high": figure.ci_high,
        }
        for system in measurement.systems
        for metric, figure in measurement.estimates[system.name].items()
        if metrics is None or metric in metrics
    ]
