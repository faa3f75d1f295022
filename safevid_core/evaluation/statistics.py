"""Means with intervals for verdicts that come in clusters.

Items about one video are not independent, nor are the answers of one training seed. A percentile
bootstrap resamples the videos (a twin group or one source is one cluster) and, within each draw, the
seeds. Where every unit has the same value the bootstrap has no width: the interval is then Wilson's, with
the number of clusters for n; for a difference, Wilson's bound on the share of clusters that may yet differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

CONFIDENCE = 0.95
_Z = 1.959963984540054  # of a two-sided 95% interval
# Weights drawn at once: clusters times draws, 64 MB as float64.
_CELLS_AT_ONCE = 8_000_000

Scale = Literal["rate", "difference"]


@dataclass(frozen=True)
class Estimate:
    """A mean over units with its 95% interval; `value` and the bounds are None where there is no unit.

    Attributes:
        n: Units (items, or pairs of them); a unit that several seeds answered counts once.
        clusters: Independent groups among them.
        seeds: Training seeds that were averaged.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    clusters: int
    seeds: int = 1

    @property
    def known(self) -> bool:
        return self.value is not None


NOTHING = Estimate(None, None, None, 0, 0, 0)


@dataclass(frozen=True)
class Sample:
    """Values of units, for one metric of one system.

    Attributes:
        frame: Columns `unit`, `cluster`, `seed`, `value`; a unit and seed occur once.
        scale: `rate` for values in [0, 1], `difference` for values in [-1, 1].
    """

    frame: pl.DataFrame
    scale: Scale = "rate"


SAMPLE_SCHEMA = pl.Schema({"unit": pl.String, "cluster": pl.String, "seed": pl.Int64, "value": pl.Float64})


def estimate(sample: Sample, draws: int = 2000, seed: int = 0) -> Estimate:
    """The mean over seeds and units, and its interval.

    Raises:
        ValueError: If a value has no cluster. A default would narrow the interval.
    """
    frame = sample.frame.drop_nulls("value")
    if frame.is_empty():
        return NOTHING
    if frame["cluster"].null_count():
        raise ValueError("a value has no cluster; give each unit its video's")
    sums, counts = _by_cluster_and_seed(frame)
    value = float(sums.sum() / counts.sum())
    low, high = _interval(frame, sample.scale, sums, counts, value, draws, seed)
    return Estimate(value, low, high, frame["unit"].n_unique(), sums.shape[0], sums.shape[1])


def paired_difference(after: Sample, before: Sample) -> Sample:
    """After minus before on the units that both have; a unit's `before` is its mean over seeds."""
    means = before.frame.drop_nulls("value").group_by("unit").agg(pl.col("value").mean().alias("was"))
    joined = after.frame.drop_nulls("value").join(means, on="unit", how="inner")
    values = joined.select("unit", "cluster", "seed", pl.col("value") - pl.col("was"))
    return Sample(values.sort("unit", "seed"), "difference")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a proportion (Wilson 1927); (0, 1) for n = 0."""
    if n <= 0:
        return 0.0, 1.0
    share, square = successes / n, _Z * _Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # At the ends the bound is the end itself; rounding would leave it a hair inside.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def constant_difference(value: float, n: int) -> tuple[float, float]:
    """Bounds of a mean difference when all n clusters gave the same value.

    Up to Wilson's upper bound for 0 of n, clusters may be otherwise, and then anything from -1 to 1.
    """
    others = wilson(0, n)[1]
    return value - others * (value + 1), value + others * (1 - value)


def non_inferior(difference: Estimate, margin: float) -> bool:
    """Whether the lower bound of after minus before lies above minus the margin."""
    return difference.ci_low is not None and difference.ci_low > -margin


def bound_with_failures(judged: Sample, missing: Sequence[tuple[str, str, int]]) -> Sample:
    """The sample with every unit that has no verdict counted as a failure.

    Args:
        missing: `(unit, cluster, seed)` of each.
    """
    rows = [(unit, cluster, seed, 0.0) for unit, cluster, seed in missing]
    failures = pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")
    return Sample(pl.concat([judged.frame.select(SAMPLE_SCHEMA.names()), failures]), judged.scale)


def _by_cluster_and_seed(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of values, `[clusters, seeds]` each."""
    cluster = frame["cluster"].rank("dense").to_numpy().astype(np.int64) - 1
    which = frame["seed"].rank("dense").to_numpy().astype(np.int64) - 1
    shape = (int(cluster.max()) + 1, int(which.max()) + 1)
    flat = cluster * shape[1] + which
    sums = np.bincount(flat, weights=frame["value"].to_numpy(), minlength=shape[0] * shape[1])
    counts = np.bincount(flat, minlength=shape[0] * shape[1]).astype(float)
    return sums.reshape(shape), counts.reshape(shape)


def _interval(
    frame: pl.DataFrame,
    scale: Scale,
    sums: np.ndarray,
    counts: np.ndarray,
    value: float,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    clusters = sums.shape[0]
    if clusters > 1 and frame["value"].n_unique() > 1:
        means = _bootstrap_means(sums, counts, draws, seed)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        # Unequal clusters can put the mean itself a hair outside; an interval holds its estimate.
        if high > low:
            return min(float(low), value), max(float(high), value)
    if scale == "rate":
        return wilson(value * clusters, clusters)
    return constant_difference(value, clusters)


def _bootstrap_means(sums: np.ndarray, counts: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The mean in each of `draws` resamples of the clusters, and of the seeds where there are several."""
    rng = np.random.default_rng(seed)
    clusters, seeds = sums.shape
    means = []
    at_once = max(1, _CELLS_AT_ONCE // clusters)
    for start in range(0, draws, at_once):
        now = min(at_once, draws - start)
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=now).astype(float)
        of_seeds = np.ones((now, 1))
        if seeds > 1:
            of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=now).astype(float)
        total = np.einsum("ds,ds->d", weights @ sums, of_seeds)
        number = np.einsum("ds,ds->d", weights @ counts, of_seeds)
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(total / number)
    drawn = np.concatenate(means)
    return drawn[np.isfinite(drawn)]
