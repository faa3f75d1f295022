"""What a sample can and cannot show: non-inferiority with its power, and the smallest difference seen.

Both go by the interval of an estimate, whose half-width is Student's t times a standard error, and by the
noncentral t distribution: `df` degrees of freedom, and the true difference over that standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from safevid_core.evaluation.statistics import CONFIDENCE, Estimate

POWER = 0.8


@dataclass(frozen=True)
class NonInferiority:
    """Whether nothing more than a margin was lost, and what this sample could have shown.

    Attributes:
        margin: The loss that would not matter, as a positive fraction.
        shown: Whether the lower 95% bound of after minus before lies above minus the margin; None where
            there is no unit.
        p_value: One-sided, against a loss of the margin or more; below 0.025 where it is shown.
        power: The chance of showing it at this size if nothing at all was lost.
        smallest_margin: The margin that would have had 80% power.
    """

    margin: float
    shown: bool | None
    p_value: float | None
    power: float | None
    smallest_margin: float | None

    @property
    def verdict(self) -> str:
        """In words; a loss that is not excluded is told apart from a sample too small to exclude it."""
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
    """The verdict on after minus before, paired.

    Args:
        margin: The loss that would not matter, above 0.

    Raises:
        ValueError: If the margin is not above 0.
    """
    from scipy.special import nctdtr, stdtr

    if margin <= 0:
        raise ValueError(f"a margin of {margin:g} is no margin; give a loss above 0 that would not matter")
    if difference.value is None or difference.ci_low is None:
        return NonInferiority(margin, None, None, None, None)
    df = _df(difference)
    quantile = _quantile(df, 1 - (1 - CONFIDENCE) / 2)
    error = (difference.value - difference.ci_low) / quantile
    if error == 0:  # The value lies at the lower end of its scale.
        return NonInferiority(margin, difference.value > -margin, None, None, None)
    return NonInferiority(
        margin=margin,
        shown=difference.ci_low > -margin,
        p_value=float(stdtr(df, -(difference.value + margin) / error)),
        power=1 - _missed(float(nctdtr(df, margin / error, quantile))),
        smallest_margin=(quantile + _quantile(df, POWER)) * error,
    )


def _missed(chance: float) -> float:
    # scipy 1.17 gives NaN where the chance is about to be too small for a double.
    return 0.0 if math.isnan(chance) else chance


def smallest_difference(figure: Estimate, power: float = POWER) -> float | None:
    """The true difference that a two-sided test at 5% finds with a chance of `power`, at this sample's size.

    `(t(0.975) + t(power)) * standard error` (Bloom 1995, Evaluation Review 19). Of a paired difference it
    is the change that can be seen; of a rate, the distance from a value that is known. None where there is
    no unit.
    """
    if figure.ci_low is None or figure.ci_high is None:
        return None
    df = _df(figure)
    quantile = _quantile(df, 1 - (1 - CONFIDENCE) / 2)
    error = (figure.ci_high - figure.ci_low) / 2 / quantile
    return (quantile + _quantile(df, power)) * error


def _df(figure: Estimate) -> float:
    """Where all values are alike, the interval goes by the number of clusters alone."""
    return figure.df if figure.df is not None else max(1.0, figure.clusters - 1.0)


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))
