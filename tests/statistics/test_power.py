"""Non-inferiority and its power against scipy's and statsmodels' t tests, and by their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from safevid_core.statistics.intervals import NOTHING, Estimate
from safevid_core.statistics.power import NonInferiority, non_inferiority, smallest_difference

dfs = st.floats(3, 500)
errors = st.floats(0.001, 0.2)


def known(value: float, error: float, df: float) -> Estimate:
    """An estimate whose interval is Student's."""
    half = float(stats.t.ppf(0.975, df)) * error
    return Estimate(value, value - half, value + half, 1000, round(df) + 1, se=error, df=df)


@given(st.floats(-0.3, 0.3), errors, dfs, st.floats(0.001, 0.5))
def test_the_test_is_the_one_sided_t_test_against_the_margin(
    value: float, error: float, df: float, margin: float
) -> None:
    found = non_inferiority(known(value, error, df), margin)
    assert found.p_value == pytest.approx(stats.t.sf((value + margin) / error, df), rel=1e-6, abs=1e-12)
    if abs(found.p_value - 0.025) > 1e-6:
        assert found.shown == (found.p_value < 0.025)


@example(error=0.001, df=20.0, margin=0.0390625)
@given(errors, dfs, st.floats(0.001, 0.5))
def test_the_power_is_that_of_the_noncentral_t(error: float, df: float, margin: float) -> None:
    found = non_inferiority(known(0.0, error, df), margin)
    wanted = stats.nct.sf(stats.t.ppf(0.975, df), df, margin / error)
    if math.isfinite(wanted):
        assert found.power == pytest.approx(wanted, abs=1e-6)
    # It does not depend on what was found, only on the size of the sample.
    assert non_inferiority(known(-0.1, error, df), margin).power == pytest.approx(found.power)


@pytest.mark.parametrize("n", [10, 30, 200])
def test_power_and_size_are_statsmodels(n: int) -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    error, margin = 1 / math.sqrt(n), 0.4
    found = non_inferiority(known(0.0, error, n - 1), margin)
    assert found.power == pytest.approx(power.power(margin, n, 0.025, alternative="larger"), abs=1e-6)
    assert found.smallest_margin == pytest.approx(
        power.solve_power(None, n, 0.025, 0.8, alternative="larger"), rel=0.03
    )


@given(errors, dfs)
def test_the_smallest_difference_is_blooms_multiple_of_the_standard_error(error: float, df: float) -> None:
    wanted = (stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * error
    assert smallest_difference(known(0.1, error, df)) == pytest.approx(wanted, rel=1e-6)
    assert non_inferiority(known(0.1, error, df), 0.05).smallest_margin == pytest.approx(wanted, rel=1e-6)


def test_of_many_clusters_it_is_the_textbooks_two_point_eight_standard_errors() -> None:
    assert smallest_difference(known(0.5, 0.01, 1e6)) == pytest.approx(0.028, abs=2e-4)
    assert smallest_difference(known(0.5, 0.01, 1e6), power=0.9) == pytest.approx(0.0324, abs=2e-4)


@given(errors, dfs)
def test_a_larger_margin_has_more_power_and_the_smallest_has_about_80_per_cent(
    error: float, df: float
) -> None:
    figure = known(0.0, error, df)
    smallest = non_inferiority(figure, 0.05).smallest_margin
    assert smallest is not None
    less, enough, more = (non_inferiority(figure, part * smallest).power for part in (0.5, 1, 2))
    assert less < enough < more
    assert enough == pytest.approx(0.8, abs=0.05)


def test_where_all_values_are_alike_the_clusters_are_the_degrees_of_freedom() -> None:
    alike = Estimate(0.0, -0.07, 0.07, 50, 50, se=0.0, df=None, p_value=1.0)
    assert smallest_difference(alike) == pytest.approx(
        (stats.t.ppf(0.975, 49) + stats.t.ppf(0.8, 49)) * 0.07 / stats.t.ppf(0.975, 49)
    )
    assert non_inferiority(alike, 0.08).shown
    assert not non_inferiority(alike, 0.06).shown


def test_at_the_end_of_the_scale_there_is_a_verdict_and_no_power() -> None:
    worst = Estimate(-1.0, -1.0, -0.9, 20, 20)
    assert non_inferiority(worst, 0.05) == NonInferiority(0.05, False, None, None, None)


def test_nothing_compared_says_so_and_a_margin_of_nothing_is_refused() -> None:
    assert non_inferiority(NOTHING, 0.05).verdict == "nothing was compared"
    assert smallest_difference(NOTHING) is None
    with pytest.raises(ValueError, match="must be above 0"):
        non_inferiority(NOTHING, 0.0)


@pytest.mark.parametrize(
    ("shown", "power", "says"),
    [
        (True, 0.99, "no loss of 5 points or more"),
        (False, 0.99, "a loss of 5 points is not excluded"),
        (False, 0.31, "a loss of 5 points is not excluded, and the sample is too small to (power 31%)"),
    ],
)
def test_a_loss_is_distinguished_from_a_small_sample(shown: bool, power: float, says: str) -> None:
    assert NonInferiority(0.05, shown, 0.5, power, 0.1).verdict == says
