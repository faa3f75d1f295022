"""Intervals against plain sums, against scipy, and against what they promise: coverage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safevid_core.statistics.intervals import (
    SAMPLE_SCHEMA,
    Estimate,
    Sample,
    Scale,
    bound_with_failures,
    estimate,
    holm,
    non_inferior,
    paired_difference,
    wilson,
)
from safevid_core.statistics.power import non_inferiority, smallest_difference
from safevid_core.statistics.variance import (
    MIN_TEMPLATES,
    Layout,
    bootstrap_covariances,
    clustered_covariance,
    spreads_of,
)

SETS = 2000


def sample(
    values: np.ndarray,
    clusters: np.ndarray | None = None,
    templates: np.ndarray | None = None,
    scale: Scale = "rate",
) -> Sample:
    """Values `[units]` or `[units, seeds]`; without clusters each unit is its own."""
    table = values if values.ndim == 2 else values[:, None]
    units, seeds = table.shape
    clusters = np.arange(units) if clusters is None else clusters
    frame = pl.DataFrame(
        {
            "unit": [f"u{i}" for i in range(units) for _ in range(seeds)],
            "cluster": [f"c{c}" for c in clusters for _ in range(seeds)],
            "template": None if templates is None else [f"t{t}" for t in templates for _ in range(seeds)],
            "seed": list(range(seeds)) * units,
            "value": table.ravel().astype(float),
        },
        schema=SAMPLE_SCHEMA,
    )
    return Sample(frame, scale)


# Simulated benchmarks. Each answer is safe where a sum of normal deviates lies below a threshold, so the true
# rate is known exactly. Shares of the deviates' variance: what hangs together by video, by template, by item
# over seeds, by twin pair, by training seed, and by video within a seed. The rest is each answer's own.
SHARES = {"cluster": 0.15, "template": 0.05, "unit": 0.35, "twins": 0.1, "seed": 0.005, "video_seed": 0.05}
OWN = 1 - sum(SHARES.values())


class SimulatedBenchmark:
    """Videos with about six items each, half of them as twin pairs; templates of unequal frequency."""

    def __init__(self, rng: np.random.Generator, clusters: int, templates: int) -> None:
        sizes = 1 + rng.poisson(5, clusters)
        sizes = np.where(rng.random(clusters) < 0.5, 2 * ((sizes + 1) // 2), sizes)
        self.cluster = np.repeat(np.arange(clusters), sizes)
        place = np.arange(len(self.cluster)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        twin = np.where(sizes[self.cluster] % 2 == 0, place // 2, place + 1000)
        self.twins = np.unique(self.cluster * 10_000 + twin, return_inverse=True)[1]
        share = rng.dirichlet(np.full(templates, 3.0))
        self.template = rng.choice(templates, self.twins.max() + 1, p=share)[self.twins]
        self.unit = np.arange(len(self.cluster))

    def difficulty(self, rng: np.random.Generator) -> np.ndarray:
        """What hangs together over the seeds of a system, `[units]`."""
        total = np.zeros(len(self.unit))
        for name in ("cluster", "template", "unit", "twins"):
            of = getattr(self, name)
            total += math.sqrt(SHARES[name]) * rng.standard_normal(of.max() + 1)[of]
        return total

    def answers(
        self, rng: np.random.Generator, rate: float, difficulty: np.ndarray, seeds: int
    ) -> np.ndarray:
        """Whether each answer is safe, `[units, seeds]`, with the true `rate`."""
        videos = rng.standard_normal((self.cluster.max() + 1, seeds))[self.cluster]
        total = difficulty[:, None] + math.sqrt(SHARES["video_seed"]) * videos
        # One training run is all there is of a system with a single seed: its seed is no draw.
        of_seed = 0.0 if seeds == 1 else rng.standard_normal(seeds)
        own = OWN + (SHARES["seed"] if seeds == 1 else 0.0)
        total = total + math.sqrt(SHARES["seed"]) * of_seed
        total = total + math.sqrt(own) * rng.standard_normal(total.shape)
        return (total < stats.norm.ppf(rate)).astype(float)


def simulated_rate(
    rng: np.random.Generator, made: SimulatedBenchmark, rate: float, seeds: int = 3
) -> Estimate:
    values = made.answers(rng, rate, made.difficulty(rng), seeds)
    return estimate(sample(values, made.cluster, made.template), draws=500)


def simulated_change(
    rng: np.random.Generator, made: SimulatedBenchmark, rates: tuple[float, float], seeds: tuple[int, int]
) -> Estimate:
    """The first rate minus the second on the same items, whose difficulties correlate by 0.6."""
    shared = math.sqrt(0.6) * made.difficulty(rng)
    ours, theirs = (
        sample(
            made.answers(rng, rate, shared + math.sqrt(0.4) * made.difficulty(rng), number),
            made.cluster,
            made.template,
        )
        for rate, number in zip(rates, seeds, strict=True)
    )
    return estimate(paired_difference(ours, theirs), draws=500)


def misses(make: Callable[[], Estimate], truth: float, sets: int) -> tuple[float, float]:
    """The share of intervals that lie wholly above the truth, and wholly below it."""
    found = [make() for _ in range(sets)]
    above = sum(truth < each.ci_low - 1e-9 for each in found)
    below = sum(truth > each.ci_high + 1e-9 for each in found)
    return above / sets, below / sets


@pytest.mark.parametrize(("clusters", "templates", "rate"), [(30, 8, 0.8), (30, 40, 0.96), (12, 8, 0.96)])
def test_intervals_of_rates_cover_about_as_often_as_they_say(
    clusters: int, templates: int, rate: float
) -> None:
    rng = np.random.default_rng(3)
    make = lambda: simulated_rate(rng, SimulatedBenchmark(rng, clusters, templates), rate)  # noqa: E731
    assert 0.01 <= sum(misses(make, rate, 300)) <= 0.08


def test_intervals_of_differences_cover_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    make = lambda: simulated_change(rng, SimulatedBenchmark(rng, 30, 8), (0.96, 0.54), (3, 1))  # noqa: E731
    assert 0.01 <= sum(misses(make, 0.96 - 0.54, 200)) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clusters", "templates", "rate"),
    [
        (12, 40, 0.5), (12, 8, 0.8), (12, 40, 0.96), (30, 8, 0.96), (30, 40, 0.96), (30, 40, 0.98),
        (100, 8, 0.98), (100, 40, 0.99),
    ],
)  # fmt: skip
def test_intervals_of_rates_cover_93_to_97_per_cent(clusters: int, templates: int, rate: float) -> None:
    rng = np.random.default_rng([clusters, templates, round(1000 * rate)])
    make = lambda: simulated_rate(rng, SimulatedBenchmark(rng, clusters, templates), rate)  # noqa: E731
    assert 0.93 <= 1 - sum(misses(make, rate, SETS)) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(("clusters", "rate"), [(12, 0.98), (12, 0.99), (12, 1.0), (30, 1.0)])
def test_where_nearly_all_is_safe_no_interval_lies_above_and_few_below(clusters: int, rate: float) -> None:
    # A tenth of the sets or more have no failure at all. Such a set's interval ends at 1 and holds the truth.
    rng = np.random.default_rng([clusters, round(1000 * rate)])
    make = lambda: simulated_rate(rng, SimulatedBenchmark(rng, clusters, 8), rate)  # noqa: E731
    above, below = misses(make, rate, SETS)
    assert above <= 0.025
    assert below <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clusters", "templates", "after", "before", "seeds_before"),
    [(30, 40, 0.96, 0.54, 1), (30, 40, 0.96, 0.96, 1), (100, 40, 0.8, 0.8, 3), (100, 8, 0.97, 0.99, 3)],
)
def test_intervals_of_paired_differences_cover_93_to_97_per_cent(
    clusters: int, templates: int, after: float, before: float, seeds_before: int
) -> None:
    rng = np.random.default_rng([clusters, templates, round(1000 * after), seeds_before])
    make = lambda: simulated_change(  # noqa: E731
        rng, SimulatedBenchmark(rng, clusters, templates), (after, before), (3, seeds_before)
    )
    assert 0.93 <= 1 - sum(misses(make, after - before, SETS)) <= 0.975


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def pairs_in_common(residuals: np.ndarray, together: Callable[[int, int], bool]) -> float:
    """The sandwich as its definition has it: products over all pairs that hang together, pair by pair."""
    total = 0.0
    for i, j in itertools.product(range(len(residuals)), repeat=2):
        if together(i, j):
            total += residuals[i] * residuals[j]
    return total / len(residuals) ** 2


def test_the_two_way_variance_is_the_sum_over_all_pairs_that_share_a_video_or_a_template() -> None:
    rng = np.random.default_rng(0)
    cluster, template = rng.integers(0, 9, 70), rng.integers(0, 7, 70)
    residuals = rng.normal(size=70) + rng.normal(size=9)[cluster] + rng.normal(size=7)[template]
    residuals -= residuals.mean()
    cells = np.unique(cluster * 7 + template, return_inverse=True)[1]

    def one_way(groups: np.ndarray) -> float:
        number = groups.max() + 1
        return float(clustered_covariance(residuals[:, None], groups)[0, 0]) * (number - 1) / number

    assert one_way(cluster) == pytest.approx(
        pairs_in_common(residuals, lambda i, j: cluster[i] == cluster[j])
    )
    assert one_way(cluster) + one_way(template) - one_way(cells) == pytest.approx(
        pairs_in_common(residuals, lambda i, j: cluster[i] == cluster[j] or template[i] == template[j])
    )


@pytest.mark.parametrize("clusters", [12, 60, 700])
def test_the_bootstrap_agrees_with_scipys_and_with_the_sandwich(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    groups = np.r_[np.arange(clusters), rng.integers(0, clusters, 5 * clusters)]
    values = (rng.normal(size=len(groups)) + rng.normal(size=clusters)[groups] < 0.4).astype(float)
    residuals = (values - values.mean())[:, None]
    ours = math.sqrt(bootstrap_covariances([residuals], [groups], 4000, 0)[0][0, 0])
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    theirs = stats.bootstrap(
        (sums, counts), lambda s, n, axis: s.sum(axis) / n.sum(axis), paired=True, vectorized=True,
        n_resamples=4000, method="percentile", rng=np.random.default_rng(1),
    ).standard_error  # fmt: skip
    # scipy's draws of a fixed number of clusters lack the factor G / (G - 1).
    assert ours == pytest.approx(theirs * math.sqrt(clusters / (clusters - 1)), rel=0.06)
    assert ours == pytest.approx(math.sqrt(clustered_covariance(residuals, groups)[0, 0]), rel=0.08)


def test_units_of_their_own_give_the_t_test_of_scipy() -> None:
    values = np.random.default_rng(6).choice([-1.0, 0.0, 1.0], 400, p=[0.17, 0.6, 0.23])
    found = estimate(sample(values, scale="difference"), draws=4000)
    theirs = stats.ttest_1samp(values, 0)
    assert found.se == pytest.approx(values.std(ddof=1) / 20, rel=0.03)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=0.3)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(theirs.confidence_interval()), abs=0.006)


def test_videos_that_hang_together_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(3).binomial(1, 0.5, 40), 10).astype(float)
    alone, together = estimate(sample(values)), estimate(sample(values, np.repeat(np.arange(40), 10)))
    assert together.clusters == 40
    assert together.n == alone.n == 400
    assert together.ci_high - together.ci_low > 2.5 * (alone.ci_high - alone.ci_low)


def test_templates_that_hang_together_across_videos_widen_the_interval() -> None:
    rng = np.random.default_rng(8)
    template = rng.integers(0, 10, 600)
    values = (rng.normal(size=600) + 1.5 * rng.normal(size=10)[template] < 0).astype(float)
    videos = np.repeat(np.arange(200), 3)
    alone, together = estimate(sample(values, videos)), estimate(sample(values, videos, template))
    assert (alone.templates, together.templates) == (0, 10)
    assert 9 <= together.df < 15
    assert together.ci_high - together.ci_low > 2 * (alone.ci_high - alone.ci_low)


def test_too_few_templates_to_tell_them_apart_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(9)
    template = rng.integers(0, MIN_TEMPLATES - 1, 300)
    values = rng.binomial(1, 0.2 + 0.6 * (template == 0)).astype(float)
    few, none = estimate(sample(values, None, template)), estimate(sample(values))
    assert few.templates == MIN_TEMPLATES - 1
    assert (few.ci_low, few.ci_high) == (none.ci_low, none.ci_high)


def test_the_variance_is_never_below_one_way_nor_below_independent_answers() -> None:
    # Every video has one safe and one unsafe answer: no video differs from another, answers do.
    values = np.tile([0.0, 1.0], 50)
    layout = Layout(np.repeat(np.arange(50), 2), np.arange(100) % 10, np.zeros(100, int))
    (spread,) = spreads_of([(values[:, None], layout)], 1000, 0)
    assert spread.clusters[0, 0] == pytest.approx(0, abs=1e-12)
    assert spread.along(np.ones(1))[0] >= 0.25 / 100


@pytest.mark.parametrize(("value", "bounds"), [(0.0, (0.0, 0.2775)), (1.0, (0.7225, 1.0))])
def test_a_rate_of_none_or_all_has_wilsons_interval_over_clusters(
    value: float, bounds: tuple[float, float]
) -> None:
    found = estimate(sample(np.full(100, value), np.repeat(np.arange(10), 10)))
    assert (found.ci_low, found.ci_high) == pytest.approx(bounds, abs=1e-3)
    assert (found.se, found.df) == (0.0, None)


def test_one_video_says_nothing_of_others() -> None:
    found = estimate(sample(np.array([0, 1, 1, 1.0]), np.zeros(4, int)))
    assert (found.value, found.ci_low, found.ci_high) == (0.75, 0.0, 1.0)
    gap = estimate(sample(np.array([0, 1.0]), np.zeros(2, int), scale="difference"))
    assert gap.ci_low < 0 < gap.ci_high
    assert gap.p_value > 0.05


def test_a_constant_difference_has_an_interval_around_it() -> None:
    bound = wilson(0, 50)[1]
    found = estimate(sample(np.zeros(50), scale="difference"))
    assert (found.value, found.p_value) == (0, 1)
    assert (found.ci_low, found.ci_high) == pytest.approx((-bound, bound))
    one = estimate(sample(np.ones(50), scale="difference"))
    assert (one.ci_low, one.ci_high) == pytest.approx((1 - math.sqrt(2) * bound, 1.0))
    assert one.p_value < 1e-6


def test_seeds_that_differ_widen_the_interval_and_take_degrees_of_freedom() -> None:
    rng = np.random.default_rng(5)
    values = np.column_stack([rng.binomial(1, rate, 120) for rate in (0.5, 0.7, 0.9)]).astype(float)
    found = estimate(sample(values))
    assert (found.n, found.seeds, found.clusters) == (120, 3, 120)
    assert found.value == pytest.approx(values.mean())
    assert found.se == pytest.approx(np.std(values.mean(axis=0), ddof=1) / math.sqrt(3), rel=0.1)
    assert found.df < 4
    narrow = estimate(sample(np.repeat(values[:, [1]], 3, axis=1)))
    assert narrow.df == pytest.approx(119)
    assert found.ci_high - found.ci_low > 3 * (narrow.ci_high - narrow.ci_low)


def test_scores_stay_on_their_scale_and_other_values_are_refused() -> None:
    values = np.random.default_rng(7).choice([2.0, 3.0], 60, p=[0.1, 0.9])
    found = estimate(sample(values, scale="score"))
    assert 2.5 < found.ci_low < values.mean() < found.ci_high <= 3
    assert found.se == pytest.approx(values.std(ddof=1) / math.sqrt(60), rel=0.05)
    with pytest.raises(ValueError, match="4 is not between 0 and 3"):
        estimate(sample(np.array([1.0, 4.0]), scale="score"))
    with pytest.raises(ValueError, match="nan is not between"):
        estimate(sample(np.array([1.0, math.nan])))


def test_the_paired_difference_is_over_common_units_only() -> None:
    before, after = sample(np.array([0, 0, 1, 1.0])), sample(np.array([1, 0, 1.0]))
    difference = paired_difference(after, before)
    assert difference.frame["value"].to_list() == [1, 0, 0]
    assert difference.frame.schema == SAMPLE_SCHEMA
    assert estimate(difference).value == pytest.approx(1 / 3)
    assert difference.scale == "difference"


def test_the_same_seeds_are_paired_and_others_averaged() -> None:
    after = sample(np.array([[1.0, 0.0], [1.0, 1.0]]))
    same = paired_difference(after, sample(np.array([[0.0, 0.0], [1.0, 0.0]])))
    assert same.frame["value"].to_list() == [1, 0, 0, 1]
    one = paired_difference(after, sample(np.array([[0.0], [1.0]])))
    assert one.frame["value"].to_list() == [1, 0, 0, 0]
    three = paired_difference(after, sample(np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])))
    assert three.frame["value"].to_list() == pytest.approx([2 / 3, -1 / 3, 0, 0])


def test_differences_of_gaps_and_of_scores_have_their_own_ranges() -> None:
    gaps = paired_difference(
        sample(np.ones(20), scale="difference"), sample(-np.ones(20), scale="difference")
    )
    assert (gaps.scale, estimate(gaps).value) == ("gap_difference", 2)
    scores = paired_difference(sample(np.full(20, 3.0), scale="score"), sample(np.zeros(20), scale="score"))
    found = estimate(scores)
    assert (found.value, found.ci_high) == (3, 3)
    with pytest.raises(ValueError, match="no paired difference"):
        paired_difference(gaps, gaps)
    with pytest.raises(ValueError, match="no paired difference"):
        paired_difference(sample(np.ones(2)), sample(np.ones(2), scale="score"))


values_of_pairs = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([-1.0, 0.0, 0.5, 1.0])),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(deadline=None)
@given(values_of_pairs)
def test_an_interval_holds_its_estimate_stays_in_range_and_agrees_with_its_p_value(
    rows: list[tuple[int, int, float]],
) -> None:
    clusters, templates, values = (np.array(column) for column in zip(*rows, strict=True))
    gap = estimate(sample(values, clusters, templates, "difference"), draws=100)
    assert -1 <= gap.ci_low <= gap.value <= gap.ci_high <= 1
    assert 0 < gap.p_value <= 1
    if abs(gap.p_value - 0.05) > 1e-6:
        assert (gap.p_value < 0.05) == (not gap.ci_low <= 0 <= gap.ci_high)
    rate = estimate(sample(np.abs(values), clusters, templates), draws=100)
    assert 0 <= rate.ci_low <= rate.value <= rate.ci_high <= 1
    assert rate.p_value is None


@settings(deadline=None)
@given(values_of_pairs, st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(rows: list[tuple[int, int, float]], order: int) -> None:
    clusters, templates, values = (np.array(column) for column in zip(*rows, strict=True))
    made = sample(values, clusters, templates, "difference")
    shuffled = Sample(made.frame.sample(fraction=1.0, shuffle=True, seed=order), made.scale)
    one, other = estimate(made, draws=100), estimate(shuffled, draws=100)
    assert (one.ci_low, one.ci_high, one.p_value) == pytest.approx(
        (other.ci_low, other.ci_high, other.p_value), abs=1e-5
    )


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).binomial(1, 0.4, 80).astype(float)
    assert estimate(sample(values)) == estimate(sample(values))
    assert estimate(sample(values), seed=1).se != estimate(sample(values)).se


def test_units_without_a_verdict_count_as_failures_in_the_bound() -> None:
    bound = bound_with_failures(sample(np.ones(9)), [("u9", "c9", None, 0)])
    assert estimate(bound).value == pytest.approx(0.9)


def test_no_unit_gives_no_figure_and_no_cluster_raises() -> None:
    assert estimate(sample(np.zeros(0))).value is None
    frame = sample(np.ones(3)).frame.with_columns(cluster=pl.lit(None, pl.String))
    with pytest.raises(ValueError, match="no cluster"):
        estimate(Sample(frame))


# Holm 1979, by way of its definition: the largest Bonferroni p value of any set of hypotheses that holds it.
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(dict(enumerate(p_values)))
    for each in range(len(p_values)):
        wanted = max(
            min(1.0, size * min(p_values[i] for i in chosen))
            for size in range(1, len(p_values) + 1)
            for chosen in itertools.combinations(range(len(p_values)), size)
            if each in chosen
        )
        assert adjusted[each] == pytest.approx(wanted)


def test_holm_leaves_unknown_ones_out() -> None:
    assert holm({"a": 0.03, "b": None, "c": 0.01}) == pytest.approx({"a": 0.03, "b": None, "c": 0.02})
    assert holm({}) == {}


def test_non_inferiority_goes_by_the_lower_bound() -> None:
    worse = np.r_[np.full(8, -1.0), np.zeros(192)]
    found = estimate(sample(worse, scale="difference"))
    assert found.value == pytest.approx(-0.04)
    assert not non_inferior(found, 0.05)
    assert non_inferior(found, 0.09)
    assert not non_inferior(estimate(sample(np.zeros(0))), 0.05)
    for margin in (0.05, 0.09):
        test = non_inferiority(found, margin)
        assert test.shown == non_inferior(found, margin) == (test.p_value < 0.025)
    assert non_inferiority(found, 0.09).verdict == "no loss of 9 points or more"
    small = non_inferiority(
        estimate(sample(np.array([-1.0, 1, 0, 0, 0, 1, -1, 0]), scale="difference")), 0.05
    )
    assert small.power < 0.2
    assert "too small" in small.verdict
    assert non_inferiority(estimate(sample(np.zeros(0))), 0.05).shown is None
    with pytest.raises(ValueError, match="must be above 0"):
        non_inferiority(found, 0.0)


def test_a_larger_margin_has_more_power_and_the_smallest_one_has_80_per_cent() -> None:
    values = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 300, p=[0.05, 0.9, 0.05])
    found = estimate(sample(values, scale="difference"))
    powers = [non_inferiority(found, margin).power for margin in (0.01, 0.03, 0.05, 0.08)]
    assert powers == sorted(powers)
    smallest = non_inferiority(found, 0.05).smallest_margin
    assert non_inferiority(found, smallest).power == pytest.approx(0.8, abs=0.01)


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(2)

    def drawn(gain: float) -> Estimate:
        share = [0.1 - gain / 2, 0.8, 0.1 + gain / 2]
        return estimate(sample(rng.choice([-1.0, 0.0, 1.0], 250, p=share), scale="difference"), draws=500)

    smallest = float(np.mean([smallest_difference(drawn(0.0)) for _ in range(20)]))
    assert smallest == pytest.approx(2.8 * math.sqrt(0.2 / 250), rel=0.05)
    assert np.mean([drawn(smallest).p_value < 0.05 for _ in range(400)]) == pytest.approx(0.8, abs=0.06)
    assert smallest_difference(estimate(sample(np.zeros(0)))) is None


def test_the_power_is_how_often_non_inferiority_is_shown() -> None:
    rng = np.random.default_rng(12)
    tests = [
        non_inferiority(
            estimate(
                sample(rng.choice([-1.0, 0.0, 1.0], 200, p=[0.08, 0.84, 0.08]), scale="difference"), 500
            ),
            0.08,
        )
        for _ in range(400)
    ]
    assert np.mean([test.shown for test in tests]) == pytest.approx(
        np.mean([test.power for test in tests]), abs=0.06
    )
