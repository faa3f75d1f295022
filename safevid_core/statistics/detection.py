"""How well a judge finds failures, and rates corrected for its errors.

A failure is the positive class, as unsafe responses are what a judge has to find. Example: people find 50 of
400 responses unsafe; the judge flags 80, and 40 of them are among the 50. Its recall is 40/50, its precision
40/80, its specificity 310/350, and F1 is 2 x 40 / (50 + 80).

Shares have Wilson's intervals. F1 is 2 J / (1 + J), with J the share of true positives among all responses
that people or the judge call failures. So its interval is Wilson's for J, put through that formula.

A rate by a judge is corrected by Rogan and Gladen (1978, American Journal of Epidemiology 107:71-76). Its
interval is that of Lang and Reiczigel (2014, Preventive Veterinary Medicine 113:13-22), which counts the
uncertainty of the judge's sensitivity and specificity in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safevid_core.statistics.agreement import Figure, share
from safevid_core.statistics.intervals import Estimate, wilson

MEASURES = ("prevalence", "precision", "recall", "specificity", "f1")
_Z = 1.959963984540054  # normal quantile of a two-sided 95% interval


@dataclass(frozen=True)
class Counts:
    """Responses by the labels of people and of a judge.

    Attributes:
        both: Both say failure.
        judge_only: Only the judge says failure.
        people_only: Only people say failure.
        neither: Both say success.
    """

    both: int
    judge_only: int
    people_only: int
    neither: int

    @classmethod
    def of(cls, people: Sequence[bool], judge: Sequence[bool]) -> Counts:
        """The counts of two lists of successes, one entry for each response."""
        first, second = ~np.asarray(people, dtype=bool), ~np.asarray(judge, dtype=bool)
        if first.shape != second.shape:
            raise ValueError(f"{first.size} labels of people, and {second.size} of the judge")
        both = int((first & second).sum())
        return cls(
            both, int(second.sum()) - both, int(first.sum()) - both, int(first.size - (first | second).sum())
        )

    @property
    def failures(self) -> int:
        return self.both + self.people_only

    @property
    def successes(self) -> int:
        return self.judge_only + self.neither

    @property
    def n(self) -> int:
        return self.failures + self.successes

    def figures(self) -> dict[str, Figure]:
        """Measure (:data:`MEASURES`) -> its value with its interval. `n` is the size of its denominator."""
        return {
            "prevalence": share(self.failures, self.n),
            "precision": share(self.both, self.both + self.judge_only),
            "recall": share(self.both, self.failures),
            "specificity": share(self.neither, self.successes),
            "f1": self._f1(),
        }

    def _f1(self) -> Figure:
        union = self.both + self.judge_only + self.people_only
        if not union:
            return Figure(None, None, None, 0)
        low, high = wilson(self.both, union)
        return Figure(_f1_of(self.both / union), _f1_of(low), _f1_of(high), union)


@dataclass(frozen=True)
class Proportion:
    """`number` of `n`. Neither needs to be whole: an effective sample size counts as well."""

    number: float
    n: float

    @property
    def value(self) -> float:
        return self.number / self.n

    def plus(self, number: float, n: float) -> Proportion:
        return Proportion(self.number + number, self.n + n)

    @property
    def variance(self) -> float:
        return self.value * (1 - self.value) / self.n

    @classmethod
    def effective(cls, rate: Estimate) -> Proportion:
        """A rate over clusters with its effective sample size: a binomial of that size has the same error.

        If all values are equal, the standard error is 0, and each cluster counts once.
        """
        value, error = rate.value or 0.0, rate.se or 0.0
        n = min(rate.n, value * (1 - value) / error**2) if error > 0 else max(1, rate.clusters)
        return cls(value * n, n)


def corrected_rate(apparent: Proportion, sensitivity: Proportion, specificity: Proportion) -> Figure:
    """The true share of a class, from the share that a judge finds and the judge's errors.

    The point estimate is `(apparent + specificity - 1) / (sensitivity + specificity - 1)`, cut to [0, 1]. The
    result has no value if the judge does no better than chance on the labels, or if the whole interval lies
    outside [0, 1], because then the judge errs otherwise on these responses than on the labelled ones.
    Example: a judge finds 30% of 500 responses unsafe, and recognises 40 of 50 unsafe and 310 of 350 safe
    labelled ones. The true share is 27.1%, with the interval 19.7% to 36.4%.

    Args:
        apparent: Share of the class by the judge, over the responses to be measured.
        sensitivity: Share that the judge recognises, of labelled responses of the class.
        specificity: Share that the judge recognises, of labelled responses of the other class.
    """
    n = round(apparent.n)
    if not (apparent.n > 0 and sensitivity.n > 0 and specificity.n > 0):
        return Figure(None, None, None, n)
    # One success and one failure more on each side keep a share of 0 or 1 from having no variance.
    seen, kept = sensitivity.plus(1, 2), specificity.plus(1, 2)
    found = apparent.plus(_Z**2 / 2, _Z**2)
    better = sensitivity.value + specificity.value - 1
    adjusted = seen.value + kept.value - 1
    if better <= 0 or adjusted <= 0:
        return Figure(None, None, None, n)
    value = _in_unit((apparent.value + specificity.value - 1) / better)
    centre = (found.value + kept.value - 1) / adjusted
    shift = 2 * _Z**2 * (centre * seen.variance - (1 - centre) * kept.variance)
    error = (
        math.sqrt(found.variance + centre**2 * seen.variance + (1 - centre) ** 2 * kept.variance) / adjusted
    )
    low, high = (centre + shift + sign * _Z * error for sign in (-1, 1))
    if low > 1 or high < 0:
        return Figure(None, None, None, n)
    return Figure(value, min(_in_unit(low), value), max(_in_unit(high), value), n)


def _f1_of(overlap: float) -> float:
    return 2 * overlap / (1 + overlap)


def _in_unit(value: float) -> float:
    return min(1.0, max(0.0, value))
