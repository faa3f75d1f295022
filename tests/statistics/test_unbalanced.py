"""Intervals where videos hold very different numbers of items: a few long videos, and many short ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.statistics.intervals import Estimate, estimate
from safevid_core.statistics.variance import Layout, clustered_covariance, intraclass, kish, spreads_of
from tests.statistics.test_intervals import (
    SimulatedBenchmark,
    misses,
    sample,
    simulated_change,
    simulated_rate,
)

SETS = 2000


class Unbalanced(SimulatedBenchmark):
    """Videos whose sizes follow Pareto's law, at most 1,000 items; templates of unequal frequency."""

    def __init__(self, rng: np.random.Generator, clusters: int, templates: int, tail: float) -> None:
        sizes = np.minimum(np.ceil(rng.pareto(tail, clusters) + 1).astype(int), 1000)
        self._place(rng, np.repeat(np.arange(clusters), sizes), templates)

    def _place(self, rng: np.random.Generator, cluster: np.ndarray, templates: int) -> None:
        self.cluster = cluster
        self.unit = self.twins = np.arange(len(cluster))
        share = rng.dirichlet(np.full(templates, 3.0))
        # With one template each item has its own, so that none hang together by it.
        self.template = rng.choice(templates, len(cluster), p=share) if templates > 1 else self.unit


class OneHoldsHalf(Unbalanced):
    """One video has as many items as all others together."""

    def __init__(self, rng: np.random.Generator, clusters: int, templates: int) -> None:
        others = np.repeat(np.arange(clusters), 1 + rng.poisson(5, clusters))
        self._place(rng, np.r_[others, np.full(len(others), clusters)], templates)


def coverage(make: Callable[[], Estimate], truth: float, sets: int = SETS) -> float:
    return 1 - sum(misses(make, truth, sets))


def test_100_videos_of_pareto_sizes_are_covered() -> None:
    # The bootstrap alone covers 88 to 92% here.
    rng = np.random.default_rng(3)
    found = coverage(lambda: simulated_rate(rng, Unbalanced(rng, 100, 1, 1.2), 0.96, 1), 0.96, 700)
    assert 0.93 <= found <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clusters", "templates", "rate", "seeds", "tail"),
    [
        (100, 1, 0.96, 1, 1.2), (100, 1, 0.8, 1, 1.0), (100, 8, 0.96, 1, 1.2), (100, 40, 0.96, 1, 1.0),
        (30, 40, 0.8, 1, 1.2), (300, 40, 0.9, 1, 1.2), (100, 8, 0.96, 3, 1.5), (20, 8, 0.9, 1, 1.2),
    ],
)  # fmt: skip
def test_intervals_of_rates_cover_93_to_97_per_cent(
    clusters: int, templates: int, rate: float, seeds: int, tail: float
) -> None:
    rng = np.random.default_rng([clusters, templates, round(100 * rate), seeds])
    make = lambda: simulated_rate(rng, Unbalanced(rng, clusters, templates, tail), rate, seeds)  # noqa: E731
    assert 0.93 <= coverage(make, rate) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clusters", "templates", "after", "before", "seeds", "tail"),
    [
        (100, 1, 0.8, 0.8, 1, 1.2), (100, 40, 0.96, 0.96, 1, 1.2), (100, 40, 0.8, 0.8, 1, 1.0),
        (100, 8, 0.96, 0.54, 3, 1.2), (30, 40, 0.8, 0.8, 3, 1.2),
    ],
)  # fmt: skip
def test_changes_are_covered_and_none_is_found_where_there_is_none(
    clusters: int, templates: int, after: float, before: float, seeds: int, tail: float
) -> None:
    rng = np.random.default_rng([clusters, templates, round(100 * after), seeds])
    found = [
        simulated_change(rng, Unbalanced(rng, clusters, templates, tail), (after, before), (seeds, 1))
        for _ in range(SETS)
    ]
    truth = after - before
    assert 0.93 <= np.mean([each.ci_low <= truth <= each.ci_high for each in found]) <= 0.975
    if truth == 0:
        assert 0.025 <= np.mean([each.p_value < 0.05 for each in found]) <= 0.07


@pytest.mark.slow
def test_one_video_of_half_the_items_is_covered_less_than_promised() -> None:
    # docs/evaluation.md says so. Half of the figure hangs on one draw that nothing repeats.
    rng = np.random.default_rng(9)
    found = coverage(lambda: simulated_rate(rng, OneHoldsHalf(rng, 100, 40), 0.96, 1), 0.96)
    assert 0.89 <= found <= 0.93


def test_videos_of_equal_size_keep_the_variance_of_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(40), 6)
    values = rng.normal(size=(240, 1)) + rng.normal(size=40)[cluster][:, None]
    layout = Layout(cluster, np.zeros(240, int), np.zeros(240, int))
    (spread,) = spreads_of([(values, layout)], 500, 0)
    assert spread.alike is not None
    assert spread.along(np.ones(1))[0] == pytest.approx(spread.clusters[0, 0])


def test_equal_clusters_imply_the_variance_that_is_seen() -> None:
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(200), 5)
    values = rng.normal(size=(1000, 1)) + rng.normal(size=200)[cluster][:, None]
    implied = intraclass(values, cluster).along(np.ones(1))
    seen = clustered_covariance(values - values.mean(axis=0), cluster)[0, 0]
    assert implied == pytest.approx(seen, rel=0.01)


def test_the_correlation_is_that_of_the_textbooks_analysis_of_variance() -> None:
    # Shrout and Fleiss 1979, Psychol. Bull. 86, table 2: six targets, four ratings each; ICC(1, 1) is 0.17.
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    ).astype(float)
    found = intraclass(ratings.reshape(-1, 1), np.repeat(np.arange(6), 4))
    assert float(found.between[0, 0]) == pytest.approx(11.24, abs=0.01)
    assert float(found.within[0, 0]) == pytest.approx(6.26, abs=0.01)
    total = float(ratings.var())
    assert found.along(np.ones(1)) == pytest.approx(total * (1 + 0.166 * 3) / 24, rel=0.005)


def test_nothing_tells_how_items_hang_together_where_each_is_alone_or_all_are_one() -> None:
    values = np.random.default_rng(4).normal(size=(9, 1))
    assert intraclass(values, np.arange(9)) is None
    assert intraclass(values, np.zeros(9, int)) is None


def test_answers_of_several_seeds_are_one_item() -> None:
    rng = np.random.default_rng(5)
    cluster, unit = np.repeat(np.arange(30), 4), np.arange(120)
    items = rng.normal(size=(120, 1)) + rng.normal(size=30)[cluster][:, None]
    once = Layout(cluster, np.zeros(120, int), np.zeros(120, int))
    thrice = Layout(np.tile(cluster, 3), np.zeros(360, int), np.repeat(np.arange(3), 120), np.tile(unit, 3))
    (alone,) = spreads_of([(items, once)], 200, 0)
    (seeds,) = spreads_of([(np.tile(items, (3, 1)), thrice)], 200, 0)
    assert seeds.alike.along(np.ones(1)) == pytest.approx(alone.alike.along(np.ones(1)))


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=50))
def test_kishs_number_lies_between_one_and_the_number_of_clusters(sizes: list[int]) -> None:
    found = kish(np.array(sizes))
    assert 1 - 1e-9 <= found <= len(sizes) + 1e-9
    assert kish(np.full(len(sizes), sizes[0])) == pytest.approx(len(sizes))


def test_videos_that_are_all_alike_count_by_their_sizes() -> None:
    even = estimate(sample(np.ones(100), np.repeat(np.arange(10), 10)))
    uneven = estimate(sample(np.ones(100), np.r_[np.zeros(91, int), np.arange(1, 10)]))
    assert kish(np.r_[91, np.ones(9, int)]) == pytest.approx(1.2, abs=0.01)
    assert uneven.ci_low < even.ci_low - 0.3
