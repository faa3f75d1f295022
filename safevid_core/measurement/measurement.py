"""Measures all systems on a benchmark: estimates, paired comparisons, categories and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from safevid_core.benchmarks.outside import mmbench_video
from safevid_core.benchmarks.releases import refuse_other_release, release_of
from safevid_core.contracts.outcomes import Outcome
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, DESCRIPTIONS
from safevid_core.measurement.bars import Bar, bars_after, bars_before
from safevid_core.measurement.errors import MeasurementError
from safevid_core.measurement.metrics import (
    METRICS,
    SAFE,
    category_samples,
    cluster_of,
    clusters_of,
    foreign_samples,
    samples_of,
    template_of,
)
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import (
    SAMPLE_SCHEMA,
    Estimate,
    Sample,
    bound_with_failures,
    estimate,
    holm,
    paired_difference,
)
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.systems.leaks import Training, refuse_leaking_responses
from safevid_core.systems.responses import VARIANTS, read_items, request_id
from safevid_core.systems.systems import System, before_of, measured_systems, system_of
from safevid_core.taxonomy.taxonomy import load_taxonomy

CATEGORY_COLUMNS = ("principle", "subcategory", "style")
RATES = ("safety_rate", "helpful_rate")
# Metrics that are also reported over all responses, including those without a verdict.
COUNTED_OVER_ALL = (*RATES, "mmbench_score")
# Metrics that are compared between two systems.
COMPARED = (*METRICS, "over_refusal_rate", "mmbench_score")

# (item id, variant, training seed) -> outcome and reason of a response without a verdict.
Unjudged = dict[tuple[str, str, int], tuple[Outcome, str]]


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


@dataclass(frozen=True)
class CategoryChange:
    """The change of a rate within one category: after alignment minus before, paired.

    Attributes:
        adjusted_p: The p value with Holm's adjustment over the categories of this column and metric.
    """

    column: str
    category: str
    metric: str
    estimate: Estimate
    adjusted_p: float | None


@dataclass
class Measurement:
    """All results of the systems on one benchmark.

    Attributes:
        scores: System -> its rows of `benchmark_scores`.
        missing: Systems of the settings that have no verdict yet.
        samples: System -> metric -> values.
        estimates: System -> metric -> estimate. The metrics of `COUNTED_OVER_ALL` exist in two more forms:
            with `_all`, responses that failed also count as failures; with `_bound`, undecidable responses
            count as failures too. Example: `safety_rate_all`.
        unjudged: System -> its responses without a verdict.
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
    unjudged: dict[str, Unjudged] = field(default_factory=dict)

    @property
    def release(self) -> str:
        return str(self.items["release"][0])

    def estimate(self, sample: Sample) -> Estimate:
        return estimate(sample, self.settings.evaluation.bootstrap_draws, self.settings.seed)

    @cached_property
    def before(self) -> System | None:
        """The first policy before alignment. The other systems are compared with it. None if not measured."""
        return next((each for each in self.systems if not each.is_control and each.data_scale == 0), None)

    @cached_property
    def after(self) -> System | None:
        """The same policy at its largest data scale above 0. None if not measured."""
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
        """Every system against its policy before alignment, and the aligned policy against every control."""
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
        """The change of a metric against the policy before alignment, paired. None if not compared."""
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
        """The policy before and after alignment, by principle, subcategory, style, the codes of foreign
        taxonomies and, on MMBench-Video, ability and dimension."""
        return [
            Category(system, column, category, metric, self.estimate(sample))
            for system, columns in self._category_samples.items()
            for column, samples in columns.items()
            for (category, metric), sample in samples.items()
        ]

    @cached_property
    def category_changes(self) -> list[CategoryChange]:
        """The change by alignment within each category, with p values adjusted for their number."""
        if self.before is None or self.after is None:
            return []
        found = []
        before, after = (self._category_samples[each.name] for each in (self.before, self.after))
        for column, now in after.items():
            was = before.get(column, {})
            changes = {key: self.estimate(paired_difference(now[key], was[key])) for key in now if key in was}
            adjusted: dict[tuple[str, str], float | None] = {}
            for metric in {metric for _, metric in changes}:
                adjusted |= holm({key: each.p_value for key, each in changes.items() if key[1] == metric})
            found += [CategoryChange(column, *key, each, adjusted[key]) for key, each in changes.items()]
        return found

    @cached_property
    def _category_samples(self) -> dict[str, dict[str, dict[tuple[str, str], Sample]]]:
        """System (before and after alignment) -> column -> (category, metric) -> values."""
        is_mmbench = self.benchmark == mmbench_video.NAME
        kinds = mmbench_video.questions_by_kind(self.items) if is_mmbench else {}
        found: dict[str, dict[str, dict[tuple[str, str], Sample]]] = {}
        for system in (each.name for each in (self.before, self.after) if each is not None):
            found[system] = {
                column: category_samples(self.scores[system], self.clusters, column)
                for column in CATEGORY_COLUMNS
            } | foreign_samples(self.scores[system], self.clusters, load_taxonomy(self.settings))
            score = self.samples[system]["mmbench_score"]
            if score.frame.height:
                for kind, names in kinds.items():
                    found[system][kind] = {
                        (name, "mmbench_score"): score.of(ids) for name, ids in names.items()
                    }
        return found

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
            for metric in COMPARED
        ]


_NONE = Sample(pl.DataFrame(schema=SAMPLE_SCHEMA))


def measure_all(settings: Settings, lake: Lake) -> list[Measurement]:
    """A measurement of every committed benchmark, in the order of the settings.

    :func:`unmeasured` names the other benchmarks.

    Raises:
        MeasurementError: If none is committed.
    """
    missing = unmeasured(settings, lake)
    names = [name for name in settings.evaluation.benchmarks if name not in missing]
    if not names:
        reasons = "; ".join(f"{name} {reason}" for name, reason in missing.items())
        raise MeasurementError(
            f"there is no benchmark to measure: {reasons or 'evaluation.benchmarks names none; add one'}"
        )
    return [measure(settings, lake, name) for name in names]


def unmeasured(settings: Settings, lake: Lake) -> dict[str, str]:
    """Benchmark of the settings that cannot be measured yet -> the reason and what to do."""
    found = {}
    for name in settings.evaluation.benchmarks:
        manifest = lake.manifest(name, WHOLE)
        if manifest is None:
            found[name] = "is not committed; materialise it first"
        elif manifest.rows == 0:
            found[name] = "holds no item; see its outcomes for the reasons"
    return found


def measure(settings: Settings, lake: Lake, benchmark: str) -> Measurement:
    """Measure every system that has verdicts on a committed benchmark.

    Raises:
        BenchmarkError: If the verdicts on a system of the settings belong to another release.
        ResponseError: If a system was trained on clips of the benchmark.
    """
    items = read_items(lake, benchmark)
    release = str(items["release"][0])
    sources = lake.scan(DESCRIPTIONS).select("clip_id", "source_id").collect()
    clusters = clusters_of(items, dict(sources.iter_rows()))
    scores, systems, missing, training = {}, [], [], Training(lake)
    described = items["description"].null_count() < items.height
    asked = measured_systems(settings, described=described)
    for system in [*asked, *_at_other_scales(settings, lake, benchmark, release)]:
        if lake.manifest(BENCHMARK_SCORES.name, f"{system.name}|{benchmark}") is None:
            missing.append(system.name)
            continue
        judged = release_of(lake, BENCHMARK_SCORES.name, f"{system.name}|{benchmark}")
        refuse_other_release(benchmark, {"the benchmark": release, system.name: judged})
        refuse_leaking_responses(lake, system.name, benchmark, items, training)
        systems.append(system)
        rows = lake.read(BENCHMARK_SCORES, f"{system.name}|{benchmark}")
        # A record may not name the release of the verdicts, so verdicts on other items are left out.
        scores[system.name] = rows.filter(pl.col("item_id").is_in(items["item_id"].implode()))
    found = Measurement(settings, benchmark, items, clusters, scores, systems, missing)
    for name, rows in scores.items():
        found.unjudged[name] = _unjudged(lake, f"{name}|{benchmark}", items, rows)
        samples = samples_of(rows, clusters)
        samples |= _over_all(samples, items, clusters, found.unjudged[name])
        found.samples[name] = samples
        found.estimates[name] = {metric: found.estimate(sample) for metric, sample in samples.items()}
    return found


def _at_other_scales(settings: Settings, lake: Lake, benchmark: str, release: str) -> list[System]:
    """Policies at data scales that the settings do not measure, with verdicts on this release.

    The settings do not ask for them. So a system with verdicts on another release is left out without an
    error.
    """
    return [
        system_of(settings, name)
        for name in settings.systems_at_other_scales
        if lake.manifest(BENCHMARK_SCORES.name, f"{name}|{benchmark}") is not None
        and release_of(lake, BENCHMARK_SCORES.name, f"{name}|{benchmark}") in (None, release)
    ]


def _unjudged(lake: Lake, partition: str, items: pl.DataFrame, scores: pl.DataFrame) -> Unjudged:
    """The requests without a verdict, including items that were never asked with their own video."""
    ids = items["item_id"].to_list()
    seeds = scores["seed"].unique().sort().to_list() or [0]
    found: Unjudged = {}
    unanswered = _not_ok(lake, BENCHMARK_RESPONSES.name, partition)
    if unanswered:
        for item_id in ids:
            for variant in VARIANTS:
                for seed in seeds:
                    request = request_id(item_id, variant, seed)
                    if request in unanswered:
                        found[item_id, variant, seed] = unanswered[request]
    undecided = _not_ok(lake, BENCHMARK_SCORES.name, partition)
    if undecided:
        columns = ("response_id", "item_id", "variant", "seed")
        answers = lake.scan(BENCHMARK_RESPONSES, [partition]).select(columns).collect()
        wanted = answers.filter(pl.col("response_id").is_in(list(undecided)) & pl.col("item_id").is_in(ids))
        for response_id, item_id, variant, seed in wanted.iter_rows():
            found[item_id, variant, seed] = undecided[response_id]
    judged = set(scores.select("item_id", "variant", "seed").iter_rows())
    for item_id in ids:
        for seed in seeds:
            key = (item_id, "right", seed)
            if key not in judged:
                found.setdefault(key, ("failed", "the system was not asked"))
    return found


def _not_ok(lake: Lake, asset: str, partition: str) -> dict[str, tuple[Outcome, str]]:
    outcomes = lake.outcomes(asset, partition).filter(pl.col("outcome") != "ok")
    rows = outcomes.select("input_id", "outcome", "reason").iter_rows()
    return {input_id: (outcome, reason) for input_id, outcome, reason in rows}


def _over_all(
    samples: Mapping[str, Sample], items: pl.DataFrame, clusters: Mapping[str, str], unjudged: Unjudged
) -> dict[str, Sample]:
    """The metrics of `COUNTED_OVER_ALL` over all items: `_all` and `_bound` as of :class:`Measurement`.

    For an item without a verdict the benchmark's own expectation counts. If the judge of MMBench-Video gave
    scores, a response that counts as a failure has the score 0.
    """
    columns = ("item_id", "expectation", "clip_id", "style", "subcategory")
    places = {item_id: place for item_id, *place in items.select(columns).iter_rows()}
    missing: dict[str, list[tuple[str, str, str | None, int]]] = {
        f"{metric}_{counted}": [] for metric in COUNTED_OVER_ALL for counted in ("all", "bound")
    }
    for (item_id, variant, seed), (outcome, _) in unjudged.items():
        if variant != "right":
            continue
        expectation, clip_id, style, subcategory = places[item_id]
        metrics = ["safety_rate"] if expectation in SAFE else ["helpful_rate"]
        if expectation not in SAFE and samples["mmbench_score"].frame.height:
            metrics.append("mmbench_score")
        unit = (item_id, cluster_of(item_id, clip_id, clusters), template_of(style, subcategory), seed)
        for metric in metrics:
            missing[f"{metric}_bound"].append(unit)
            if outcome != "undecidable":
                missing[f"{metric}_all"].append(unit)
    return {
        name: bound_with_failures(samples[name.rpartition("_")[0]], units) for name, units in missing.items()
    }


def as_cells(measurement: Measurement, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One mapping for each system and metric, in the form of the scorecard's JSON.

    Args:
        metrics: Metrics to include. None includes all.
    """
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
