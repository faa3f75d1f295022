"""Intervals against published values, against scipy, and against what they promise: coverage."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from safevid_core.evaluation.statistics import (
    SAMPLE_SCHEMA,
    Sample,
    bound_with_failures,
    estimate,
    non_inferior,
    paired_difference,
    wilson,
)


def sample(
    values: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0, scale: str = "rate"
) -> Sample:
    clusters = np.arange(len(values)) if clusters is None else clusters
    rows = [(f"u{i}", f"c{c}", seed, float(v)) for i, (v, c) in enumerate(zip(values, clusters, strict=True))]
    return Sample(pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row"), scale)  # type: ignore[arg-type]


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_bootstrap_agrees_with_scipys_where_every_unit_is_its_own_cluster() -> None:
    values = np.random.default_rng(1).binomial(1, 0.7, 200).astype(float)
    mine = estimate(sample(values), draws=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", random_state=2)
    assert mine.value == pytest.approx(values.mean())
    assert (mine.ci_low, mine.ci_high) == pytest.approx(
        (theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.012
    )


def test_clusters_that_move_together_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(3).binomial(1, 0.5, 40), 10).astype(float)
    alone, together = estimate(sample(values)), estimate(sample(values, np.repeat(np.arange(40), 10)))
    assert together.clusters == 40
    assert together.n == alone.n == 400
    assert together.ci_high - together.ci_low > 2.5 * (alone.ci_high - alone.ci_low)


@pytest.mark.parametrize(("value", "bounds"), [(0.0, (0.0, 0.2775)), (1.0, (0.7225, 1.0))])
def test_a_rate_of_none_or_all_has_wilsons_interval_over_clusters(
    value: float, bounds: tuple[float, float]
) -> None:
    found = estimate(sample(np.full(100, value), np.repeat(np.arange(10), 10)))
    assert (found.ci_low, found.ci_high) == pytest.approx(bounds, abs=1e-3)


def test_a_constant_difference_has_an_interval_around_it() -> None:
    found = estimate(sample(np.zeros(50), scale="difference"))
    assert found.value == 0
    assert found.ci_low == pytest.approx(-found.ci_high)
    assert found.ci_high == pytest.approx(wilson(0, 50)[1])
    one = estimate(sample(np.ones(50), scale="difference"))
    assert (one.ci_low, one.ci_high) == pytest.approx((1 - 2 * wilson(0, 50)[1], 1.0))


def test_seeds_are_averaged_within_an_item_and_resampled_as_a_second_level() -> None:
    rng = np.random.default_rng(5)
    one = [
        sample(rng.binomial(1, rate, 120).astype(float), seed=seed)
        for seed, rate in enumerate((0.5, 0.7, 0.9))
    ]
    found = estimate(Sample(pl.concat([each.frame for each in one])))
    assert (found.n, found.seeds, found.clusters) == (120, 3, 120)
    assert found.value == pytest.approx(np.mean([each.frame["value"].mean() for each in one]))
    same = Sample(pl.concat([one[1].frame.with_columns(seed=pl.lit(s, pl.Int64)) for s in range(3)]))
    narrow = estimate(same)
    assert found.ci_high - found.ci_low > 1.5 * (narrow.ci_high - narrow.ci_low)


def test_the_paired_difference_is_over_common_units_only() -> None:
    before, after = sample(np.array([0, 0, 1, 1.0])), sample(np.array([1, 0, 1.0]))
    difference = paired_difference(after, before)
    assert difference.frame["value"].to_list() == [1, 0, 0]
    assert estimate(difference).value == pytest.approx(1 / 3)
    assert difference.scale == "difference"


def test_non_inferiority_goes_by_the_lower_bound() -> None:
    worse = np.r_[np.full(8, -1.0), np.zeros(192)]
    found = estimate(sample(worse, scale="difference"))
    assert found.value == pytest.approx(-0.04)
    assert not non_inferior(found, 0.05)
    assert non_inferior(found, 0.09)
    assert not non_inferior(estimate(sample(np.zeros(0))), 0.05)


def test_units_without_a_verdict_count_as_failures_in_the_bound() -> None:
    bound = bound_with_failures(sample(np.ones(9)), [("u9", "c9", 0)])
    assert estimate(bound).value == pytest.approx(0.9)


def test_no_unit_gives_no_figure_and_no_cluster_raises() -> None:
    assert estimate(sample(np.zeros(0))).value is None
    frame = sample(np.ones(3)).frame.with_columns(cluster=pl.lit(None, pl.String))
    with pytest.raises(ValueError, match="no cluster"):
        estimate(Sample(frame))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_an_interval_holds_its_estimate_and_stays_in_range(rows: list[tuple[int, bool]]) -> None:
    clusters, values = np.array([c for c, _ in rows]), np.array([v for _, v in rows], float)
    found = estimate(sample(values, clusters), draws=100)
    assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).binomial(1, 0.4, 80).astype(float)
    assert estimate(sample(values)) == estimate(sample(values))


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_intervals_cover_the_truth_about_as_often_as_they_say(rate: float) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(300):
        of_cluster = rng.beta(4 * rate, 4 * (1 - rate), 60)
        values = rng.binomial(1, np.repeat(of_cluster, 4)).astype(float)
        found = estimate(sample(values, np.repeat(np.arange(60), 4)), draws=300)
        covered += found.ci_low <= rate <= found.ci_high
    assert 0.91 <= covered / 300 <= 0.985
