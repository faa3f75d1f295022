"""Means of verdicts with 95% intervals that hold for other videos, other query templates and other seeds.

Items about one video are not independent, nor are items made from one query template, nor the answers of
one training seed. `variance.py` says how a mean varies over the three; here that becomes an interval. A
rate near 0 or 1 has a lopsided one, which a normal interval or a percentile bootstrap misses: with
variance V it is known as well as a rate of `p (1 - p) / V` independent answers, and Wilson's interval is
taken for that number, with Student's t for as many degrees of freedom as the smaller number of groups has
(as Korn and Graubard 1998 and Dean and Pagano 2015 do in surveys). A difference is the rate of gains less
the rate of losses, each with such an interval, put together by the MOVER method (Zou and Donner 2008) with
the correlation of the two. Where every value is alike nothing is known of how failures would cluster: each
video then counts as one answer, or less where some hold more items than others (Kish's effective number,
`(sum n)^2 / sum n^2`: ten videos of which one holds half of all items count as 3.6).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import polars as pl

from safevid_core.evaluation.variance import MIN_TEMPLATES, Floats, Layout, Spread, kish, spreads_of

CONFIDENCE = 0.95
_Z = 1.959963984540054  # of a two-sided 95% interval
_SMALLEST_P = 1e-12

Scale = Literal["rate", "difference", "gap_difference", "score", "score_difference"]
# The values that each scale allows. Scores are MMBench-Video's.
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
    """A mean over units with its 95% interval; `value` and the bounds are None where there is no unit.

    Attributes:
        n: Units (items, or pairs of them); a unit that several seeds answered counts once.
        clusters: Independent groups among them.
        seeds: Training seeds that were averaged. The interval holds for others only if there are several.
        templates: Query templates. The interval holds for others only from `MIN_TEMPLATES` on.
        se: Standard error; 0 where all values are alike, though the interval then has a width.
        df: Degrees of freedom of `se`; None where all values are alike or there is one cluster.
        p_value: Of a difference, two-sided, against 0: one less the confidence at which the interval ends
            at 0.
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
        frame: Columns of `SAMPLE_SCHEMA`; a unit and seed occur once. A unit without a template shares none
            with any other.
        scale: What the values may be, see `RANGES`.
    """

    frame: pl.DataFrame
    scale: Scale = "rate"

    @property
    def known(self) -> pl.DataFrame:
        """The rows that have a value."""
        return self.frame.drop_nulls("value") if self.frame["value"].null_count() else self.frame

    def of(self, units: Iterable[str]) -> Sample:
        """The same values of some of the units."""
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
    """The mean over seeds and units, and its interval.

    Args:
        draws: Bootstrap draws, which the variance comes from.
        seed: Of the bootstrap's random numbers.

    Raises:
        ValueError: If a value has no cluster (a default would narrow the interval) or is out of its range.
    """
    return estimates({"": sample}, draws, seed)[""]


def estimates(samples: Mapping[Key, Sample], draws: int = 2000, seed: int = 0) -> dict[Key, Estimate]:
    """The same of each sample, faster than one by one; their categories, for instance."""
    frames = {key: sample.known for key, sample in samples.items()}
    known = {key: _Known(frame, samples[key].scale) for key, frame in frames.items() if not frame.is_empty()}
    # One cluster has no spread that could be measured.
    several = {key: each for key, each in known.items() if each.layout.clusters > 1}
    measured = spreads_of([(each.columns, each.layout) for each in several.values()], draws, seed)
    spreads = dict(zip(several, measured, strict=True))
    return {key: known[key].estimate(spreads.get(key)) if key in known else NOTHING for key in samples}


def paired_difference(after: Sample, before: Sample) -> Sample:
    """After minus before on the units that both have.

    Where both have the same seeds, those are paired, and how the training before varies counts too. Else a
    unit's `before` is its mean over seeds.

    Raises:
        ValueError: If the two are on different scales, or on one whose differences have none.
    """
    if after.scale != before.scale or after.scale not in _DIFFERENCE_OF:
        raise ValueError(f"no paired difference of {after.scale} and {before.scale}")
    ours, theirs = after.known, before.known
    keys = ["unit", "seed"] if set(ours["seed"]) == set(theirs["seed"]) else ["unit"]
    was = theirs.group_by(keys).agg(pl.col("value").mean().alias("was"))
    values = ours.join(was, on=keys, how="inner").with_columns(pl.col("value") - pl.col("was"))
    return Sample(values.select(SAMPLE_SCHEMA.names()).sort("unit", "seed"), _DIFFERENCE_OF[after.scale])


def non_inferior(difference: Estimate, margin: float) -> bool:
    """Whether the lower bound of after minus before lies above minus the margin."""
    return difference.ci_low is not None and difference.ci_low > -margin


def bound_with_failures(judged: Sample, missing: Sequence[tuple[str, str, str | None, int]]) -> Sample:
    """The sample with every unit that has no verdict counted as a failure, of value 0.

    Args:
        missing: `(unit, cluster, template, seed)` of each.
    """
    rows = [(*each, 0.0) for each in missing]
    failures = pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")
    return Sample(pl.concat([judged.frame.select(SAMPLE_SCHEMA.names()), failures]), judged.scale)


def wilson(successes: float, n: float, quantile: float = _Z) -> tuple[float, float]:
    """Wilson's interval of a proportion (Wilson 1927), by default at 95%; (0, 1) for n = 0.

    Args:
        n: Independent answers; an effective number need not be whole.
        quantile: Of the two-sided interval.
    """
    if n <= 0:
        return 0.0, 1.0
    share, square = successes / n, quantile * quantile
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # At the ends the bound is the end itself; rounding would leave it a hair inside.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """P values adjusted for their number by Holm's step-down (Holm 1979); unknown ones stay unknown.

    Rejecting those at most 0.05 keeps the chance of any false rejection at 5%, however they depend.
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
        variance: 0 where all values are alike.
        df: Degrees of freedom of the variance; 0 for a single cluster, which has none.
        videos: How many videos of equal size the clusters are worth, by Kish.
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
    """What the values say of their mean, in units of the scale's upper end.

    Attributes:
        parts: The rate; or the gains and the losses.
        variance: Of the rate, or of gains less losses.
    """

    parts: tuple[_Part, ...]
    variance: float
    df: float | None
    scale: float

    @property
    def value(self) -> float:
        return self.scale * (self.parts[0].mean - sum(part.mean for part in self.parts[1:]))

    def bounds(self, alpha: float) -> tuple[float, float]:
        """The interval of confidence `1 - alpha`; it holds the value."""
        low, high = self.parts[0].bounds(alpha)
        if len(self.parts) == 2:
            low, high = self._mover(alpha)
        return min(self.scale * low, self.value), max(self.scale * high, self.value)

    def p_value(self) -> float:
        """The alpha at which the interval ends at 0, by bisection on its logarithm."""
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
    """The values of a sample and where they belong."""

    def __init__(self, frame: pl.DataFrame, scale: Scale) -> None:
        values = frame["value"].to_numpy()
        _check(frame, values, scale)
        self.frame = frame
        self.layout = _layout(frame)
        lowest, self.highest = RANGES[scale]
        shares = values / self.highest
        sides = [np.maximum(shares, 0), np.maximum(-shares, 0)] if lowest < 0 else [shares]
        # The rate, or the gains and the losses, in units of the scale's upper end.
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
    # By rank, not by first place, so that the order of the rows does not matter.
    ranks = frame.select(pl.col("cluster").rank("dense"), _templates(frame).alias("template"))
    cluster, template = (ranks[name].to_numpy().astype(np.int64) - 1 for name in ranks.columns)
    seed = np.unique(frame["seed"].to_numpy(), return_inverse=True)[1]
    unit = frame["unit"].rank("dense").to_numpy().astype(np.int64) - 1 if seed.any() else None
    return Layout(cluster, template, seed, unit)


def _templates(frame: pl.DataFrame) -> pl.Expr:
    """A number for the template of each value; where some have none, those are alone with their unit."""
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
    # Means of verdicts may be a rounding error beyond.
    wrong = values[~((values >= low - 1e-9) & (values <= high + 1e-9))]
    if len(wrong):
        raise ValueError(f"a value of {wrong[0]:g} is not between {low:g} and {high:g}, which a {scale} is")


__all__ = [
    "CONFIDENCE", "MIN_TEMPLATES", "NOTHING", "RANGES", "SAMPLE_SCHEMA", "Estimate", "Sample", "Scale",
    "bound_with_failures", "estimate", "estimates", "holm", "non_inferior", "paired_difference", "wilson",
]  # fmt: skip
