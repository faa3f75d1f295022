"""The parts of a variance: by videos, by templates, by both, by seeds, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from safevid_core.statistics import variance
from safevid_core.statistics.variance import (
    MIN_TEMPLATES,
    Layout,
    Spread,
    bootstrap_covariances,
    clustered_covariance,
    spreads_of,
)


def layout(cluster: np.ndarray, template: np.ndarray | None = None, seed: np.ndarray | None = None) -> Layout:
    nothing = np.zeros(len(cluster), int)
    return Layout(cluster, nothing if template is None else template, nothing if seed is None else seed)


def spread(**parts: float) -> Spread:
    """One mean's variances by name, and degrees of freedom that differ."""
    zero = dict.fromkeys(("clusters", "templates", "both", "alone", "seeds"), 0.0)
    return Spread(**{name: np.array([[value]]) for name, value in (zero | parts).items()}, dfs=(99, 9, 2))


def test_each_cluster_of_one_value_is_the_textbook_variance_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=(50, 2))
    residuals = values - values.mean(axis=0)
    found = clustered_covariance(residuals, np.arange(50))
    assert found == pytest.approx(np.cov(values.T) / 50)
    # Numbers of clusters that do not occur are no clusters.
    assert clustered_covariance(residuals, 3 * np.arange(50)) == pytest.approx(found)


def test_values_repeated_within_clusters_add_nothing() -> None:
    values = np.random.default_rng(1).normal(size=(30, 1))
    once = clustered_covariance(values - values.mean(), np.arange(30))
    tenfold = np.repeat(values, 10, axis=0)
    groups = np.repeat(np.arange(30), 10)
    assert clustered_covariance(tenfold - tenfold.mean(), groups) == pytest.approx(once)


def test_against_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 25, 300)
    values = rng.normal(size=300) + rng.normal(size=25)[groups]
    fitted = sm.OLS(values, np.ones(300)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "df_correction": False, "use_correction": False}
    )
    ours = clustered_covariance((values - values.mean())[:, None], groups)[0, 0]
    assert ours == pytest.approx(fitted.bse[0] ** 2 * 25 / 24)


def test_many_samples_at_once_are_each_alone_and_longer_than_one_block() -> None:
    rng = np.random.default_rng(3)
    samples = []
    for clusters in (5, variance._ROWS, variance._ROWS + 1, 3 * variance._ROWS):
        groups = np.r_[np.arange(clusters), rng.integers(0, clusters, 100)]
        values = rng.normal(size=(len(groups), 2))
        samples.append((values - values.mean(axis=0), groups))
    together = bootstrap_covariances([s[0] for s in samples], [s[1] for s in samples], 500, 0)
    for (residuals, groups), found in zip(samples, together, strict=True):
        (alone,) = bootstrap_covariances([residuals], [groups], 500, 0)
        assert found == pytest.approx(alone, rel=1e-4)
        assert np.allclose(found, found.T)
        assert np.linalg.eigvalsh(found).min() > -1e-9
    assert bootstrap_covariances([], [], 500, 0) == []


def test_the_weights_are_poissons_of_mean_one() -> None:
    table = variance._poisson()
    counts = np.bincount(table.astype(int)) / len(table)
    assert counts == pytest.approx(stats.poisson.pmf(np.arange(len(counts)), 1), abs=2e-5)


def test_ways_seeds_and_blocks_draw_apart() -> None:
    one = variance._weights(0, 0, 200, 0)
    for other in ((1, 0, 200, 0), (0, 1, 200, 0), (0, 0, 200, 1)):
        assert not np.array_equal(one, variance._weights(*other))
    assert np.array_equal(one, variance._weights(0, 0, 200, 0))


def test_templates_count_from_three_on() -> None:
    rng = np.random.default_rng(4)
    cluster = rng.integers(0, 40, 400)
    values = rng.normal(size=(400, 1))
    for number in (1, MIN_TEMPLATES - 1, MIN_TEMPLATES):
        template = np.arange(400) % number
        (found,) = spreads_of([(values, layout(cluster, template))], 500, 0)
        assert (found.templates[0, 0] > 0) == (number >= MIN_TEMPLATES)
        assert found.dfs[1] == (number - 1 if number >= MIN_TEMPLATES else 0)


def test_pairs_of_video_and_template_are_counted_the_same_whatever_their_number() -> None:
    rng = np.random.default_rng(5)
    cluster, template = rng.integers(0, 30, 500), rng.integers(0, 20, 500)
    values = rng.normal(size=(500, 1))
    (few,) = spreads_of([(values, layout(cluster, template))], 300, 0)
    # The same groups under large numbers: more cells than are kept for all pairs.
    far = layout(np.r_[cluster, 9_999], np.r_[template, 19])
    assert far.clusters * far.templates > variance._MOST_CELLS
    (many,) = spreads_of([(np.r_[values, values.mean(axis=0, keepdims=True)], far)], 300, 0)
    assert many.both[0, 0] * 501**2 == pytest.approx(few.both[0, 0] * 500**2, rel=0.01)


def test_seeds_add_what_their_means_differ_by_beyond_the_videos() -> None:
    rng = np.random.default_rng(6)
    videos, seeds = 200, 4
    cluster, seed = np.repeat(np.arange(videos), seeds), np.tile(np.arange(seeds), videos)
    shifts = np.array([-0.6, -0.1, 0.2, 0.5])
    noise = rng.normal(size=videos * seeds) + rng.normal(size=videos)[cluster]
    (apart,) = spreads_of([((noise + shifts[seed])[:, None], layout(cluster, seed=seed))], 300, 0)
    assert apart.seeds[0, 0] == pytest.approx(shifts.var(ddof=1) / seeds, rel=0.35)
    (alike,) = spreads_of([(noise[:, None], layout(cluster, seed=seed))], 300, 0)
    assert abs(alike.seeds[0, 0]) < apart.seeds[0, 0] / 10
    assert alike.dfs == (videos - 1, 0, seeds - 1)


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(1e-6, 1), st.floats(-1, 1)
)  # fmt: skip
def test_no_part_is_ever_lost(
    clusters: float, templates: float, both: float, alone: float, seeds: float
) -> None:
    total, df = spread(clusters=clusters, templates=templates, both=both, alone=alone, seeds=seeds).along(
        np.ones(1)
    )
    assert total >= max(clusters, templates, alone) - 1e-12
    assert total >= clusters + templates - both - 1e-12
    assert total == pytest.approx(
        max(clusters, templates, clusters + templates - both, alone) + max(seeds, 0.0)
    )
    assert 2 - 1e-6 <= df <= 99 + 1e-6


def test_the_degrees_of_freedom_are_those_of_the_mean_quantile() -> None:
    _, of_one = spread(clusters=1.0).along(np.ones(1))
    assert of_one == 99
    _, df = spread(clusters=3.0, seeds=1.0).along(np.ones(1))
    wanted = (3 * stats.t.ppf(0.975, 99) + stats.t.ppf(0.975, 2)) / 4
    assert stats.t.ppf(0.975, df) == pytest.approx(wanted, rel=1e-6)


def test_a_contrast_of_two_means_has_their_covariance_in_it() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(300, 2)) + rng.normal(size=(300, 1))
    cluster = rng.integers(0, 50, 300)
    (found,) = spreads_of([(values, layout(cluster))], 4000, 0)
    (difference,) = spreads_of([(values[:, [0]] - values[:, [1]], layout(cluster))], 4000, 0)
    assert found.along(np.array([1.0, -1.0]))[0] == pytest.approx(difference.along(np.ones(1))[0], rel=1e-4)
