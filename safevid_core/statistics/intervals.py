"""Means of verdicts with 95% intervals that generalise to other videos, query templates and training seeds.

Items about one video are not independent. The same holds for items from one query template and for the
responses of one training seed. `variance.py` estimates the variance of a mean over all three. This module
turns the variance into an interval:

- A rate p with variance V is known as well as a rate of `p (1 - p) / V` independent responses. Its interval
  is Wilson's for that number, with Student's t for the degrees of freedom of the variance (as Korn and
  Graubard 1998 and Dean and Pagano 2015 in surveys). Near 0 and 1 this interval is asymmetric, as it should
  be. A normal interval and a percentile bootstrap are not correct there.
- A difference is the rate of gains minus the rate of losses. Each has such an interval, and the MOVER method
  (Zou and Donner 2008) combines them with their correlation.
- If all values are equal, the data do not tell how failures cluster. Each video then counts as one response,
  or as less if the videos hold unequal numbers of items (Kish's effective number, `(sum n)^2 / sum n^2`).
  Example: ten videos of which one holds half of all items count as 3.6.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import polars as pl

from safevid_core.statistics.variance import MIN_TEMPLATES, Floats, Layout, Spread, kish, spreads_of

CONFIDENCE = 0.95
_Z = 1.959963984540054  # normal quantile of a two-sided 95% interval
_SMALLEST_P = 1e-12

Scale = Literal["rate", "difference", "gap_difference", "score", "score_difference"]
# Smallest and largest value of each scale. Scores are those of MMBench-Video.
RANGES: Mapping[Scale, tuple[float, float]] = {
    "rate": (0.0, 1.0),
    "difference": (-1.0, 1.0),
    "gap_difference": (-2.0, 2.0),
    "score": (0.0, 3.0),
    "score_difference": (-3.0, 3.0),
}
_DIFFERENCE_OF: Mapping[Scale, Scale] = {
    "rate": "difference",
    "difference": "gap_difference",
    "score": "score_difference",
}

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean over units with its 95% interval.

    Attributes:
        value: The mean. None without units.
        ci_low: Lower bound. None without units.
        ci_high: Upper bound. None without units.
        n: Number of units: items, or pairs of items. A unit with several seeds counts once.
        clusters: Number of clusters, the source videos.
        seeds: Number of training seeds. The interval generalises to other seeds only if there are several.
        templates: Number of query templates. The interval generalises to other templates only if there are at
            least `MIN_TEMPLATES`.
        se: Standard error. 0 if all values are equal, although the interval then has a width.
        df: Degrees of freedom of `se`. None if all values are equal or there is one cluster.
        p_value: For a difference, the two-sided p value against 0: 1 minus the confidence level at which the
            interval ends at 0. Else None.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    clusters: int
    seeds: int = 1
    templates: int = 0
    se: float | None = None
    df: float | None = None
    p_value: float | None = None

    @property
    def known(self) -> bool:
        return self.value is not None


NOTHING = Estimate(None, None, None, 0, 0, 0)


@dataclass(frozen=True)
class Sample:
    """Values of units, for one metric of one system.

    Attributes:
        frame: Columns of `SAMPLE_SCHEMA`, one row for each unit and seed. A null template is a template that
            no other unit has.
        scale: Scale of the values, see `RANGES`. Defaults to `rate`.
    """

    frame: pl.DataFrame
    scale: Scale = "rate"

    @property
    def known(self) -> pl.DataFrame:
        """The rows with a value."""
        return self.frame.drop_nulls("value") if self.frame["value"].null_count() else self.frame

    def of(self, units: Iterable[str]) -> Sample:
        """Return the sample of some of the units."""
        return Sample(self.frame.filter(pl.col("unit").is_in(list(units))), self.scale)


SAMPLE_SCHEMA = pl.Schema(
    {
        "unit": pl.String,
        "cluster": pl.String,
        "template": pl.String,
        "seed": pl.Int64,
        "value": pl.Float64,
    }
)


def estimate(sample: Sample, draws: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean over seeds and units, with its interval.

    Args:
        sample: The values.
        draws: Bootstrap draws for the variance. Defaults to 2,000.
        seed: Seed of the bootstrap. Defaults to 0.

    Raises:
        ValueError: If a value has no cluster or is out of range. There is no default cluster, because it
            would make the interval too narrow.
    """
    return estimates({"": sample}, draws, seed)[""]


def estimates(samples: Mapping[Key, Sample], draws: int = 2000, seed: int = 0) -> dict[Key, Estimate]:
    """Return the estimate of each sample. This is faster than :func:`estimate` for each, e.g. by category."""
    frames = {key: sample.known for key, sample in samples.items()}
    known = {key: _Known(frame, samples[key].scale) for key, frame in frames.items() if not frame.is_empty()}
    # The variance needs at least two clusters.
    several = {key: each for key, each in known.items() if each.layout.clusters > 1}
    measured = spreads_of([(each.columns, each.layout) for each in several.values()], draws, seed)
    spreads = dict(zip(several, measured, strict=True))
    return {key: known[key].estimate(spreads.get(key)) if key in known else NOTHING for key in samples}


def paired_difference(after: Sample, before: Sample) -> Sample:
    """Return after minus before on the units that both samples have.

    If both have the same seeds, values of the same seed are paired, and the variance includes that of the
    training before. Otherwise the value before is the mean of the unit over its seeds.

    Raises:
        ValueError: If the scales differ, or if differences of this scale have no scale.
    """
    if after.scale != before.scale or after.scale not in _DIFFERENCE_OF:
        raise ValueError(f"no paired difference of {after.scale} and {before.scale}")
    ours, theirs = after.known, before.known
    keys = ["unit", "seed"] if set(ours["seed"]) == set(theirs["seed"]) else ["unit"]
    was = theirs.group_by(keys).agg(pl.col("value").mean().alias("was"))
    values = ours.join(was, on=keys, how="inner").with_columns(pl.col("value") - pl.col("was"))
    return Sample(values.select(SAMPLE_SCHEMA.names()).sort("unit", "seed"), _DIFFERENCE_OF[after.scale])


def non_inferior(difference: Estimate, margin: float) -> bool:
    """Return whether the lower bound of after minus before is above minus the margin."""
    return difference.ci_low is not None and difference.ci_low > -margin


def bound_with_failures(judged: Sample, missing: Sequence[tuple[str, str, str | None, int]]) -> Sample:
    """Return the sample with each unit without a verdict added as a failure, value 0.

    Args:
        judged: The units with a verdict.
        missing: `(unit, cluster, template, seed)` of each unit without a verdict.
    """
    rows = [(*each, 0.0) for each in missing]
    failures = pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")
    return Sample(pl.concat([judged.frame.select(SAMPLE_SCHEMA.names()), failures]), judged.scale)


def wilson(successes: float, n: float, quantile: float = _Z) -> tuple[float, float]:
    """Return Wilson's interval of a proportion (Wilson 1927). (0, 1) for n = 0.

    Args:
        successes: Number of successes, not necessarily an integer.
        n: Number of independent trials. An effective number need not be an integer.
        quantile: Quantile of the two-sided interval. Defaults to that of 95%.
    """
    if n <= 0:
        return 0.0, 1.0
    share, square = successes / n, quantile * quantile
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # At 0 and 1 the bound is exactly 0 or 1. Without these lines rounding would move it inside.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Return p values adjusted by Holm's step-down method (Holm 1979). None stays None.

    Rejecting the hypotheses with at most 0.05 keeps the probability of any false rejection at 5%, whatever
    the dependence between the tests.
    """
    adjusted: dict[Key, float | None] = dict.fromkeys(p_values)
    known = sorted((p, place, key) for place, (key, p) in enumerate(p_values.items()) if p is not None)
    least = 0.0
    for rank, (p, _, key) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[key] = least
    return adjusted


@dataclass(frozen=True)
class _Part:
    """A mean of values in [0, 1]: a rate, or the gains or losses of a difference.

    Attributes:
        mean: The mean.
        variance: Variance of the mean. 0 if all values are equal.
        df: Degrees of freedom of the variance. 0 for a single cluster.
        videos: Kish's effective number of videos.
    """

    mean: float
    variance: float
    df: float
    videos: float

    def bounds(self, alpha: float) -> tuple[float, float]:
        if self.variance <= 0:
            return wilson(self.mean * self.videos, self.videos, _normal(alpha))
        if self.df <= 0:
            return 0.0, 1.0
        n = self.mean * (1 - self.mean) / self.variance
        return wilson(self.mean * n, n, _student(alpha, self.df))


@dataclass(frozen=True)
class _Evidence:
    """Mean and variance of the values, as shares of the scale's maximum.

    Attributes:
        parts: The rate, or the gains and the losses of a difference.
        variance: Variance of the rate, or of gains minus losses.
        df: Degrees of freedom of the variance. None if all values are equal.
        scale: Maximum of the scale.
    """

    parts: tuple[_Part, ...]
    variance: float
    df: float | None
    scale: float

    @property
    def value(self) -> float:
        return self.scale * (self.parts[0].mean - sum(part.mean for part in self.parts[1:]))

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Return the interval of confidence level `1 - alpha`. It contains the value."""
        low, high = self.parts[0].bounds(alpha)
        if len(self.parts) == 2:
            low, high = self._mover(alpha)
        return min(self.scale * low, self.value), max(self.scale * high, self.value)

    def p_value(self) -> float:
        """Return the alpha at which the interval ends at 0, by bisection on log(alpha)."""
        if self.value == 0:
            return 1.0
        below, above = math.log(_SMALLEST_P), 0.0
        for _ in range(40):
            middle = (below + above) / 2
            low, high = self.bounds(math.exp(middle))
            below, above = (middle, above) if low <= 0 <= high else (below, middle)
        return math.exp(above)

    def _mover(self, alpha: float) -> tuple[float, float]:
        gains, losses = self.parts
        (gain_low, gain_high), (loss_low, loss_high) = gains.bounds(alpha), losses.bounds(alpha)
        product = math.sqrt(gains.variance * losses.variance)
        shared = (gains.variance + losses.variance - self.variance) / 2
        correlation = min(1.0, max(-1.0, shared / product)) if product > 0 else 0.0
        value = gains.mean - losses.mean
        below = _hypotenuse(gains.mean - gain_low, loss_high - losses.mean, correlation)
        above = _hypotenuse(gain_high - gains.mean, losses.mean - loss_low, correlation)
        return max(-1.0, value - below), min(1.0, value + above)


class _Known:
    """The values of a sample with their clusters, templates and seeds."""

    def __init__(self, frame: pl.DataFrame, scale: Scale) -> None:
        values = frame["value"].to_numpy()
        _check(frame, values, scale)
        self.frame = frame
        self.layout = _layout(frame)
        lowest, self.highest = RANGES[scale]
        shares = values / self.highest
        sides = [np.maximum(shares, 0), np.maximum(-shares, 0)] if lowest < 0 else [shares]
        # The rate, or the gains and the losses, as shares of the scale's maximum.
        self.columns: Floats = np.column_stack(sides)

    def estimate(self, spread: Spread | None) -> Estimate:
        evidence = self._evidence(spread)
        low, high = evidence.bounds(1 - CONFIDENCE)
        templates = self.frame["template"]
        return Estimate(
            value=evidence.value,
            ci_low=low,
            ci_high=high,
            n=self.frame["unit"].n_unique(),
            clusters=self.layout.clusters,
            seeds=self.layout.seeds,
            templates=templates.n_unique() - (templates.null_count() > 0),
            se=self.highest * math.sqrt(evidence.variance),
            df=evidence.df,
            p_value=evidence.p_value() if len(evidence.parts) == 2 else None,
        )

    def _evidence(self, spread: Spread | None) -> _Evidence:
        directions = np.eye(self.columns.shape[1])
        videos = kish(np.bincount(self.layout.cluster))
        parts = tuple(
            _part(column, spread, direction, videos)
            for column, direction in zip(self.columns.T, directions, strict=True)
        )
        variance, df = 0.0, None
        if spread is not None and any(part.variance > 0 for part in parts):
            variance, df = spread.along(np.array([1.0, -1.0][: len(parts)]))
        return _Evidence(parts, variance, df, self.highest)


def _part(column: Floats, spread: Spread | None, direction: Floats, videos: float) -> _Part:
    mean = float(column.mean())
    if column.min() == column.max():
        return _Part(float(column[0]), 0.0, 0.0, videos)
    if spread is None:
        return _Part(mean, mean * (1 - mean), 0.0, videos)
    return _Part(mean, *spread.along(direction), videos)


def _hypotenuse(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))


def _normal(alpha: float) -> float:
    from scipy.special import ndtri

    return float(-ndtri(alpha / 2))


def _student(alpha: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(-stdtrit(df, alpha / 2))


def _layout(frame: pl.DataFrame) -> Layout:
    # Codes are ranks, so the order of the rows does not matter.
    ranks = frame.select(pl.col("cluster").rank("dense"), _templates(frame).alias("template"))
    cluster, template = (ranks[name].to_numpy().astype(np.int64) - 1 for name in ranks.columns)
    seed = np.unique(frame["seed"].to_numpy(), return_inverse=True)[1]
    unit = frame["unit"].rank("dense").to_numpy().astype(np.int64) - 1 if seed.any() else None
    return Layout(cluster, template, seed, unit)


def _templates(frame: pl.DataFrame) -> pl.Expr:
    """Return a code for the template of each value.

    If some values have no template, each unit without one gets a template of its own. If none has, all have
    the same code.
    """
    missing = frame["template"].null_count()
    if missing == 0:
        return pl.col("template").rank("dense")
    if missing == frame.height:
        return pl.repeat(1, pl.len())
    return pl.coalesce("template", pl.concat_str(pl.lit("unit "), "unit")).rank("dense")


def _check(frame: pl.DataFrame, values: Floats, scale: Scale) -> None:
    if frame["cluster"].null_count():
        raise ValueError("a value has no cluster; give each unit its video's")
    low, high = RANGES[scale]
    # A mean of verdicts may be out of range by a rounding error.
    wrong = values[~((values >= low - 1e-9) & (values <= high + 1e-9))]
    if len(wrong):
        raise ValueError(
            f"a value of {wrong[0]:g} is not between {low:g} and {high:g}, the range of a {scale}"
        )


__all__ = [
    "CONFIDENCE", "MIN_TEMPLATES", "NOTHING", "RANGES", "SAMPLE_SCHEMA", "Estimate", "Sample", "Scale",
    "bound_with_failures", "estimate", "estimates", "holm", "non_inferior", "paired_difference", "wilson",
]  # fmt: skip
