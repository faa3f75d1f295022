"""Power of a sample: non-inferiority tests, and the smallest difference that a sample can detect.

Both use the interval of an estimate, whose half-width is Student's t times the standard error, and the
noncentral t distribution with `df` degrees of freedom and noncentrality difference / standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from safevid_core.statistics.intervals import CONFIDENCE, Estimate

POWER = 0.8


@dataclass(frozen=True)
class NonInferiority:
    """The result of a non-inferiority test, with the power of the sample.

    Attributes:
        margin: The largest loss that does not matter, as a positive fraction. Example: 0.02 for 2 points.
        shown: Whether the lower 95% bound of after minus before is above minus the margin. None without
            units.
        p_value: One-sided p value against a loss of the margin or more. Below 0.025 if `shown` is true.
        power: Probability to show non-inferiority with this sample size if the true loss is 0.
        smallest_margin: The margin at which the power is 80%.
    """

    margin: float
    shown: bool | None
    p_value: float | None
    power: float | None
    smallest_margin: float | None

    @property
    def verdict(self) -> str:
        """The result in words. It distinguishes a possible loss from a sample that is too small."""
        if self.shown is None or self.power is None:
            return "nothing was compared"
        points = f"{100 * self.margin:g} points"
        if self.shown:
            return f"no loss of {points} or more"
        if self.power < POWER:
            return (
                f"a loss of {points} is not excluded, and the sample is too small to (power {self.power:.0%})"
            )
        return f"a loss of {points} is not excluded"


def non_inferiority(difference: Estimate, margin: float) -> NonInferiority:
    """Return the result of a non-inferiority test.

    Args:
        difference: Estimate of after minus before, paired.
        margin: The largest loss that does not matter, above 0.

    Raises:
        ValueError: If the margin is not above 0.
    """
    from scipy.special import nctdtr, stdtr

    if margin <= 0:
        raise ValueError(f"margin {margin:g} must be above 0; give the largest loss that does not matter")
    if difference.value is None or difference.ci_low is None:
        return NonInferiority(margin, None, None, None, None)
    df = _df(difference)
    quantile = _quantile(df, 1 - (1 - CONFIDENCE) / 2)
    error = (difference.value - difference.ci_low) / quantile
    if error == 0:  # the value is the minimum of its scale
        return NonInferiority(margin, difference.value > -margin, None, None, None)
    return NonInferiority(
        margin=margin,
        shown=difference.ci_low > -margin,
        p_value=float(stdtr(df, -(difference.value + margin) / error)),
        power=1 - _missed(float(nctdtr(df, margin / error, quantile))),
        smallest_margin=(quantile + _quantile(df, POWER)) * error,
    )


def _missed(chance: float) -> float:
    # scipy 1.17 returns NaN for probabilities near the smallest double.
    return 0.0 if math.isnan(chance) else chance


def smallest_difference(figure: Estimate, power: float = POWER) -> float | None:
    """Return the true difference that a two-sided test at 5% detects with probability `power`.

    It is `(t(0.975) + t(power)) * standard error` (Bloom 1995, Evaluation Review 19). For a paired difference
    it is the smallest detectable change. For a rate it is the smallest detectable distance from a known
    value.

    Args:
        figure: An estimate.
        power: Probability, 0 to 1. Defaults to 0.8.

    Returns:
        None if the estimate has no units.
    """
    if figure.ci_low is None or figure.ci_high is None:
        return None
    df = _df(figure)
    quantile = _quantile(df, 1 - (1 - CONFIDENCE) / 2)
    error = (figure.ci_high - figure.ci_low) / 2 / quantile
    return (quantile + _quantile(df, power)) * error


def _df(figure: Estimate) -> float:
    """Return the degrees of freedom. If all values are equal, they follow from the number of clusters."""
    return figure.df if figure.df is not None else max(1.0, figure.clusters - 1.0)


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))
