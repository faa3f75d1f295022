"""The variance of a mean over values with two kinds of clusters and several training seeds.

Responses about one source video are correlated. Responses to one query template are correlated too, across
videos. The variance is V(videos) + V(templates) - V(video and template) (Cameron, Gelbach and Miller 2011,
J. Bus. Econ. Stat. 29, eq. 2.6). It is at least V(videos), at least V(templates), and at least the variance
of independent responses. Training seeds add the variance of their means that the videos do not explain.

V(videos) and V(templates) come from a bootstrap over whole videos or whole templates. Each is drawn as often
as a Poisson variable of mean 1 says (Hanley and MacGibbon 2006). Unlike the linearised sandwich estimator,
the bootstrap treats the mean of unequal clusters as a ratio. Its random number of drawn clusters, G, is
also the small-sample correction: E[1/G] is about 1/(G - 1). The weights of a cluster do not depend on the
number of clusters, so all samples share them, and the bootstraps of all categories are one matrix product.

If a few videos hold most items, the bootstrap depends mostly on these videos. Its variance is too small if
they happen to be near the mean. The intraclass correlation rho, estimated from all videos, gives a second
variance: `s^2 (1 + rho (sum(n^2) / N - 1)) / N` for N items of variance s^2 in videos of n items each. If the
second variance is larger, the share `1 - K / G` of the difference is added. G is the number of videos and K
is Kish's effective number of videos. Videos of equal size have K = G and keep the variance of the bootstrap.
Example: 100 videos of 1 to 1,000 items, sizes by Pareto's law, and a rate of 0.96. The intervals of the
bootstrap cover 87 to 93%, and these cover 94 to 95% (`tests/statistics/test_unbalanced.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

# Minimum number of templates to which an interval generalises. With two templates it would cover 87 to 92%,
# with three it covers 93 to 97%. Fewer templates add no variance, and neither does a single seed.
MIN_TEMPLATES = 3
# Clusters whose weights are drawn at a time: 0.5 MB at 2,000 draws.
_ROWS = 64
# Number of multiplications up to which OpenBLAS starts no second thread. On a busy machine a product that
# takes 3 ms in one thread took 180 ms in two, most of it waiting.
_PRODUCT = 2**18
# With more pairs of video and template than this, only sums of pairs that occur are stored.
_MOST_CELLS = 100_000


@dataclass(frozen=True)
class Layout:
    """Cluster, template, seed and unit of each of N values, as integer codes.

    Attributes:
        cluster: Source video, 0 to G - 1, `[N]`.
        template: Query template, 0 to T - 1, `[N]`.
        seed: Training seed, 0 to S - 1, `[N]`.
        unit: Item, 0 to U - 1, `[N]`. An item may have several seeds. None if each value is a separate item.
    """

    cluster: Codes
    template: Codes
    seed: Codes
    unit: Codes | None = None

    @property
    def clusters(self) -> int:
        return int(self.cluster.max()) + 1

    @property
    def templates(self) -> int:
        return int(self.template.max()) + 1

    @property
    def seeds(self) -> int:
        return int(self.seed.max()) + 1


@dataclass(frozen=True)
class Intraclass:
    """Correlation of items within clusters, from a one-way analysis of variance of k values for each item.

    Attributes:
        total: Covariance of the items' values, `[k, k]`.
        between: Mean squares between clusters, `[k, k]`.
        within: Mean squares within clusters, `[k, k]`.
        usual: Cluster size in the expected mean squares, `(N - sum(n^2) / N) / (G - 1)`.
        met: Mean over the items of the size of their cluster, `sum(n^2) / N`.
        items: Number of items N.
        clusters: Number of clusters G.
    """

    total: Floats
    between: Floats
    within: Floats
    usual: float
    met: float
    items: int
    clusters: int

    def along(self, contrast: Floats) -> float:
        """Return the variance of a combination `[k]` of the means: `total * (1 + rho * (met - 1)) / items`.

        The correlation rho, 0 to 1, is the estimate of the analysis of variance (Donner 1986, Int. Stat.
        Rev. 54).
        """
        total, between, within = (
            float(contrast @ part @ contrast) for part in (self.total, self.between, self.within)
        )
        all_parts = between + (self.usual - 1) * within
        rho = min(1.0, max(0.0, (between - within) / all_parts)) if all_parts > 0 else 0.0
        return total * (1 + rho * (self.met - 1)) / self.items


def intraclass(values: Floats, groups: Codes) -> Intraclass | None:
    """Return the intraclass correlation of items.

    Args:
        values: `[N, k]`.
        groups: Cluster of each item, `[N]`.

    Returns:
        None if no cluster has two items or if there is only one cluster: then it cannot be estimated.
    """
    counts = np.bincount(groups)
    sums = _sums(values, groups)[counts > 0]
    counts = counts[counts > 0].astype(float)
    items, clusters = len(values), len(counts)
    if clusters < 2 or clusters == items:
        return None
    mean = values.mean(axis=0)
    residuals, shifts = values - mean, sums - counts[:, None] * mean
    squares = residuals.T @ residuals
    between = shifts.T @ (shifts / counts[:, None])
    met = float(counts @ counts) / items
    return Intraclass(
        total=squares / items,
        between=between / (clusters - 1),
        within=(squares - between) / (items - clusters),
        usual=(items - met) / (clusters - 1),
        met=met,
        items=items,
        clusters=clusters,
    )


@dataclass(frozen=True)
class Spread:
    """Covariances of k means by source, `[k, k]` each.

    Attributes:
        clusters: From the choice of videos.
        templates: From the choice of templates. Zero with fewer than `MIN_TEMPLATES`.
        both: Counted in both of them.
        alone: If all values were independent.
        seeds: Added by training seeds.
        dfs: Degrees of freedom of videos, templates and seeds. 0 for a source without variance.
        alike: Correlation of items within videos. None if it cannot be estimated.
    """

    clusters: Floats
    templates: Floats
    both: Floats
    alone: Floats
    seeds: Floats
    dfs: tuple[int, int, int]
    alike: Intraclass | None = None

    def along(self, contrast: Floats) -> tuple[float, float]:
        """Return the variance of a combination `[k]` of the means, and its degrees of freedom.

        Videos, templates and seeds have different degrees of freedom. The quantile of Student's t is the mean
        of the three quantiles, weighted by the three variances (Cochran 1964, Biometrics 20). Two other rules
        have worse coverage. The smallest number of groups minus 1 covers up to 98% if there are few templates
        with little effect. Satterthwaite's rule covers 91 to 94% if three seeds differ.
        """
        videos, templates, both, alone, seeds = (
            float(contrast @ part @ contrast)
            for part in (self.clusters, self.templates, self.both, self.alone, self.seeds)
        )
        if self.alike:
            unequal = 1 - self.alike.items / self.alike.met / self.alike.clusters
            videos += unequal * max(0.0, self.alike.along(contrast) - videos)
        items = max(videos, templates, videos + templates - both, alone)
        added = min(max(templates - both, 0.0), items)
        parts = (items - added, added, max(seeds, 0.0))
        return sum(parts), _joint_df(parts, self.dfs)


def kish(sizes: Codes) -> float:
    """Return the effective number of clusters, `(sum n)^2 / sum n^2` (Kish 1965).

    A mean over this many clusters of equal size has the same variance. Example: sizes 9 and 1 give 1.2.
    """
    items = sizes.astype(float)
    return float(items.sum() ** 2 / (items @ items))


def spreads_of(samples: Sequence[tuple[Floats, Layout]], draws: int, seed: int) -> list[Spread]:
    """Return the covariances of the column means of each sample.

    Args:
        samples: Values `[N, k]` and layout of each sample. Each needs at least two clusters.
        draws: Bootstrap draws.
        seed: Seed of the bootstrap.
    """
    residuals = [values - values.mean(axis=0) for values, _ in samples]
    layouts = [layout for _, layout in samples]
    crossed = [place for place, layout in enumerate(layouts) if layout.templates >= MIN_TEMPLATES]
    of_clusters = bootstrap_covariances(residuals, [layout.cluster for layout in layouts], draws, seed, way=0)
    of_templates = bootstrap_covariances(
        [residuals[place] for place in crossed],
        [layouts[place].template for place in crossed],
        draws, seed, way=1,
    )  # fmt: skip
    by_template = dict(zip(crossed, of_templates, strict=True))
    return [
        _spread(residuals[place], layouts[place], of_clusters[place], by_template.get(place))
        for place in range(len(samples))
    ]


def _spread(residuals: Floats, layout: Layout, clusters: Floats, templates: Floats | None) -> Spread:
    nothing = np.zeros_like(clusters)
    cells = layout.cluster * layout.templates + layout.template
    if layout.clusters * layout.templates > _MOST_CELLS:
        cells = np.unique(cells, return_inverse=True)[1]
    return Spread(
        clusters=clusters,
        templates=nothing if templates is None else templates,
        both=nothing if templates is None else clustered_covariance(residuals, cells),
        alone=residuals.T @ residuals / len(residuals) ** 2,
        seeds=_seed_covariance(residuals, layout) if layout.seeds > 1 else nothing,
        dfs=(layout.clusters - 1, 0 if templates is None else layout.templates - 1, layout.seeds - 1),
        alike=_alike(residuals, layout),
    )


def _alike(residuals: Floats, layout: Layout) -> Intraclass | None:
    """Return the intraclass correlation of items within videos. An item with several seeds is their mean."""
    if layout.unit is None:
        return intraclass(residuals, layout.cluster)
    counts = np.bincount(layout.unit)
    cluster = np.empty(len(counts), np.int64)
    cluster[layout.unit] = layout.cluster
    return intraclass(_sums(residuals, layout.unit) / counts[:, None], cluster)


def clustered_covariance(residuals: Floats, groups: Codes) -> Floats:
    """Return the cluster-robust covariance of k means, with the factor G / (G - 1) (Liang and Zeger 1986).

    Args:
        residuals: Values minus their mean, `[N, k]`.
        groups: Cluster code of each value, `[N]`. Codes need not be consecutive.
    """
    sums = _sums(residuals, groups)
    number = np.count_nonzero(np.bincount(groups))
    factor = number / (number - 1) if number > 1 else 1.0
    covariance: Floats = sums.T @ sums * (factor / len(residuals) ** 2)
    return covariance


def bootstrap_covariances(
    residuals: Sequence[Floats], groups: Sequence[Codes], draws: int, seed: int, way: int = 0
) -> list[Floats]:
    """Return the covariance of each sample's k means by a bootstrap over whole clusters.

    Args:
        residuals: For each sample, values minus their mean, `[N, k]`.
        groups: For each sample, cluster code of each value, 0 to G - 1, `[N]`.
        draws: Bootstrap draws.
        seed: Seed of the bootstrap.
        way: Different numbers give independent draws. Defaults to 0.
    """
    tables = [
        np.column_stack([_sums(values, codes), np.bincount(codes)]).astype(np.float32)
        for values, codes in zip(residuals, groups, strict=True)
    ]
    ends = np.cumsum([table.shape[1] for table in tables])
    drawn = np.zeros((ends[-1] if tables else 0, draws), np.float32)
    for start in range(0, max(map(len, tables), default=0), _ROWS):
        part = np.zeros((_ROWS, len(drawn)), np.float32)
        for table, end in zip(tables, ends, strict=True):
            rows = table[start : start + _ROWS]
            part[: len(rows), end - table.shape[1] : end] = rows
        weights = _weights(way, start // _ROWS, draws, seed)
        step = max(1, _PRODUCT // part.size)
        for first in range(0, draws, step):
            drawn[:, first : first + step] += part.T @ weights[:, first : first + step]
    return [_of_shifts(mine) for mine in np.split(drawn, ends[:-1])] if tables else []


def _of_shifts(drawn: NDArray[np.float32]) -> Floats:
    """Return the covariance of drawn sums divided by drawn counts. The counts are the last row."""
    some = drawn[-1] > 0
    # A draw without clusters has no mean and is left out.
    whole = drawn if some.all() else drawn[:, some]
    shifts = (whole[:-1] / whole[-1]).astype(float)
    covariance: Floats = shifts @ shifts.T / shifts.shape[1]
    return covariance


@lru_cache(maxsize=64)
def _weights(way: int, block: int, draws: int, seed: int) -> NDArray[np.float32]:
    """Return how often each cluster of a block is drawn, `[_ROWS, draws]`."""
    random = np.random.default_rng([seed, way, block]).integers(0, 2**16, (_ROWS, draws), np.uint16)
    weights: NDArray[np.float32] = _poisson()[random]
    return weights


@lru_cache(maxsize=1)
def _poisson() -> NDArray[np.float32]:
    """Return the value of a Poisson variable of mean 1 for each of 65,536 equally likely integers.

    This is five times as fast as numpy's generator. Mean and variance differ from 1 by less than 1e-4.
    """
    numbers = np.arange(12)
    below = np.cumsum(np.exp(-1.0) / np.cumprod(np.maximum(numbers, 1)))
    return np.searchsorted(below, (np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


def _joint_df(variances: tuple[float, ...], dfs: tuple[int, ...]) -> float:
    """Return the degrees of freedom at which Student's t is the weighted mean of the t of the parts."""
    from scipy.special import stdtridf, stdtrit

    parts = [(variance, df) for variance, df in zip(variances, dfs, strict=True) if variance > 0]
    if len({df for _, df in parts}) < 2:
        return float(parts[0][1] if parts else dfs[0])
    quantile = sum(variance * stdtrit(df, 0.975) for variance, df in parts) / sum(variances)
    return float(stdtridf(0.975, quantile))


def _seed_covariance(residuals: Floats, layout: Layout) -> Floats:
    """Return the covariance of the seeds' means minus the part that differences within videos explain."""
    clusters, seeds = layout.clusters, layout.seeds
    cells = layout.cluster * seeds + layout.seed
    sums = _sums(residuals, cells, clusters * seeds).reshape(clusters, seeds, -1)
    counts = np.bincount(cells, minlength=clusters * seeds).astype(float).reshape(clusters, seeds, 1)
    of_seeds = sums.sum(axis=0)
    means = of_seeds / counts.sum(axis=0)
    of_clusters = sums.sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    rest = (sums - counts * (of_clusters + means)).reshape(clusters * seeds, -1)
    factor = seeds / (seeds - 1) / len(residuals) ** 2
    noise = rest.T @ rest * (clusters / (clusters - 1))
    covariance: Floats = (of_seeds.T @ of_seeds - noise) * factor
    return covariance


def _sums(values: Floats, groups: Codes, number: int = 0) -> Floats:
    """Return column sums by group, `[G, k]`."""
    return np.column_stack([np.bincount(groups, column, minlength=number) for column in values.T])
