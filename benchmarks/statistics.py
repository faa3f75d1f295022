"""Intervals of 100,000 verdicts in 40 categories, from 2,000 bootstrap draws of videos and of templates.

Ours is the whole interval: both bootstraps, what the two count twice, seeds, Student's t and Wilson's bounds.
The peers' time is that of the two bootstraps alone: a plain numpy loop over the draws, and
`scipy.stats.bootstrap`, vectorised, both on sums a cluster rather than on verdicts, as one would write them
for speed. Then the figures are held against each other: standard errors by video and by template, and the
bounds. Goals: under 20 s, and 10 times the better peer. Run with ``python -m benchmarks.statistics``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
import polars as pl
from scipy import stats

from benchmarks import print_result
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Estimate, Sample, estimates, wilson
from safevid_core.statistics.variance import bootstrap_covariances, clustered_covariance

VERDICTS, CATEGORIES, DRAWS = 100_000, 40, 2000
SEEDS, VIDEOS, STYLES = 3, 2_000, 12
GOAL_S = 20.0
REPEATS = 5  # the best of each counts
# Two bootstraps of 2,000 draws differ by 2 to 3% in their standard errors by chance alone, the largest of 80
# by about 7%.
TOLERANCE = 0.1

# Standard errors of a category by video and by template.
Errors = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Category:
    """Verdicts of one category.

    Attributes:
        values: 0 or 1, `[N]`.
        cluster: Codes from 0, `[N]`.
        template: Codes from 0, `[N]`.
    """

    values: np.ndarray
    cluster: np.ndarray
    template: np.ndarray


def make_verdicts(seed: int = 0) -> pl.DataFrame:
    """Rows of `SAMPLE_SCHEMA` and `category`; videos and templates differ in how safe their items are."""
    rng = np.random.default_rng(seed)
    items = VERDICTS // SEEDS + 1
    category, style, video = (rng.integers(0, each, items) for each in (CATEGORIES, STYLES, VIDEOS))
    template = category * STYLES + style
    ease = 1.2 + 0.5 * rng.normal(size=VIDEOS)[video] + 0.4 * rng.normal(size=CATEGORIES * STYLES)[template]
    safe = ease[:, None] + rng.normal(size=(items, SEEDS)) > 0
    unit = np.repeat(np.arange(items), SEEDS)
    frame = pl.DataFrame(
        {
            "unit": unit,
            "cluster": video[unit],
            "template": template[unit],
            "seed": np.tile(np.arange(SEEDS), items),
            "value": safe.ravel(),
            "category": category[unit],
        }
    )
    return frame.cast(dict(SAMPLE_SCHEMA) | {"category": pl.String}).head(VERDICTS)


def ours(frame: pl.DataFrame, seed: int = 0) -> dict[str, Estimate]:
    """The intervals. Only the first call with a seed draws random numbers; later ones have them."""
    groups = frame.partition_by("category", as_dict=True, include_key=False)
    return estimates({str(name): Sample(rows) for (name,), rows in sorted(groups.items())}, DRAWS, seed)


def errors_of_ours(categories: Mapping[str, Category]) -> Errors:
    """The two standard errors within our intervals."""
    residuals = [(each.values - each.values.mean())[:, None] for each in categories.values()]
    groups = [
        [each.cluster for each in categories.values()],
        [each.template for each in categories.values()],
    ]
    videos, templates = (
        bootstrap_covariances(residuals, mine, DRAWS, 0, way) for way, mine in enumerate(groups)
    )
    return {
        name: (math.sqrt(video[0, 0]), math.sqrt(template[0, 0]))
        for name, video, template in zip(categories, videos, templates, strict=True)
    }


def peer(frame: pl.DataFrame, bootstrap: Callable[[np.ndarray, np.ndarray], float]) -> Errors:
    """The two standard errors of each category, by a bootstrap of cluster sums and counts."""
    found = {}
    for name, each in categories_of(frame).items():
        errors = []
        for groups in (each.cluster, each.template):
            counts = np.bincount(groups)
            error = bootstrap(np.bincount(groups, each.values), counts)
            errors.append(error * math.sqrt(len(counts) / (len(counts) - 1)))
        found[name] = (errors[0], errors[1])
    return found


def numpy_loop(sums: np.ndarray, counts: np.ndarray) -> float:
    rng = np.random.default_rng(1)
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        drawn = rng.integers(0, len(sums), len(sums))
        means[draw] = sums[drawn].sum() / counts[drawn].sum()
    return float(means.std(ddof=1))


def scipy_bootstrap(sums: np.ndarray, counts: np.ndarray) -> float:
    found = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=DRAWS,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    return float(found.standard_error)


def categories_of(frame: pl.DataFrame) -> dict[str, Category]:
    groups = frame.partition_by("category", as_dict=True, include_key=False)
    return {
        str(name): Category(
            rows["value"].to_numpy(), *(_codes(rows[column]) for column in ("cluster", "template"))
        )
        for (name,), rows in sorted(groups.items())
    }


def disagreement(
    figures: Mapping[str, Estimate],
    our_errors: Errors,
    errors: Errors,
    categories: Mapping[str, Category],
) -> tuple[float, float]:
    """The largest relative difference of a standard error, and the largest of an interval's bound.

    The peer's interval is Wilson's for the variance by the peer's two standard errors.
    """
    of_errors = of_bounds = 0.0
    for name, (videos, templates) in errors.items():
        figure = figures[name]
        for one, other in zip(our_errors[name], (videos, templates), strict=True):
            of_errors = max(of_errors, abs(one / other - 1))
        rate, variance = figure.value or 0.0, (figure.se or 0.0) ** 2
        rest = variance - _items_variance(*our_errors[name], categories[name])
        total = _items_variance(videos, templates, categories[name]) + rest
        n = rate * (1 - rate) / total
        bounds = wilson(rate * n, n, float(stats.t.ppf(0.975, figure.df)))
        for mine, theirs in zip((figure.ci_low, figure.ci_high), bounds, strict=True):
            of_bounds = max(of_bounds, abs((mine or 0.0) - theirs))
    return of_errors, of_bounds


def main() -> None:
    frame, seeds = make_verdicts(), count(1)
    seconds = {
        "ours": _best(lambda: ours(frame, next(seeds))),
        "numpy loop": _best(lambda: peer(frame, numpy_loop)),
        "scipy.stats.bootstrap": _best(lambda: peer(frame, scipy_bootstrap)),
    }
    figures, categories = ours(frame), categories_of(frame)
    our_errors = errors_of_ours(categories)
    agreement = []
    for name, bootstrap in (("numpy loop", numpy_loop), ("scipy.stats.bootstrap", scipy_bootstrap)):
        errors, bounds = disagreement(figures, our_errors, peer(frame, bootstrap), categories)
        if errors > TOLERANCE:
            raise SystemExit(f"a standard error differs from that of the {name} by {errors:.1%}")
        agreement += [
            {"case": f"largest relative difference of a standard error, {name}", "ours": round(errors, 4)},
            {"case": f"largest difference of a bound, {name}", "ours": round(bounds, 5)},
        ]
    peers = {name: round(value, 3) for name, value in seconds.items() if name != "ours"}
    ratio = round(min(peers.values()) / seconds["ours"], 2)
    cases = [
        {"case": "40 intervals, s", "ours": round(seconds["ours"], 3), "peers": peers, "ratio": ratio},
        {
            "case": "goal, s",
            "ours": round(seconds["ours"], 3),
            "peers": {"goal": GOAL_S},
            "ratio": round(GOAL_S / seconds["ours"], 1),
        },
        *({**case, "peers": {}, "ratio": None} for case in agreement),
    ]
    print_result("statistics", "s", VERDICTS, cases, ratio)


def _items_variance(videos: float, templates: float, category: Category) -> float:
    """The variance by both ways, as `Spread.along` has it."""
    residuals = (category.values - category.values.mean())[:, None]
    cells = np.unique(category.cluster * 10**6 + category.template, return_inverse=True)[1]
    both = float(clustered_covariance(residuals, cells)[0, 0])
    alone = float((residuals**2).sum()) / len(residuals) ** 2
    return max(videos**2, templates**2, videos**2 + templates**2 - both, alone)


def _codes(names: pl.Series) -> np.ndarray:
    return names.rank("dense").to_numpy().astype(np.int64) - 1


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
