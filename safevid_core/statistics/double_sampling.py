"""The share of a class from a cheap reading of many units and a true label of some of them.

The scheme is Tenenbein's double sampling (1970, Journal of the American Statistical Association
65:1350-1361). A fallible reader flags units of a large random sample. People label a random subsample, or a
second random sample that the reader has read too. The share is

    flagged * P(class | flagged) + (1 - flagged) * P(class | not flagged)

The reader may err in any way, also where other readers err, because the two conditional shares are measured
on the population itself. Rogan and Gladen's estimator (`detection.corrected_rate`) needs the reader's
sensitivity instead, which is a share of the labelled units of the class. Of a rare class there are too few:
at 1% and 200 labels there are two.
"""

from __future__ import annotations

import numpy as np

from safevid_core.statistics.agreement import Figure
from safevid_core.statistics.detection import Proportion
from safevid_core.statistics.intervals import CONFIDENCE, wilson

_DRAWS = 20_000


def double_sampled_share(
    flagged: Proportion,
    among_flagged: Proportion,
    among_others: Proportion,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Figure:
    """The share of the class, with its 95% interval.

    The interval has the quantiles of the estimate over draws of the three shares from their Beta
    distributions (prior of Jeffreys). If no labelled unit is flagged, or all are, one conditional share is
    unknown. The labels then count alone, with Wilson's interval. Example: a reader flags 30 of 400 units. Of
    200 labelled units it flags 15, and 9 of these are of the class, as is 1 of the other 185. The share is
    0.075 * 9/15 + 0.925 * 1/185 = 5.0%.

    Args:
        flagged: Units that the reader flags, of those that it has read.
        among_flagged: Units of the class, of the labelled ones that the reader flags.
        among_others: Units of the class, of the labelled ones that it does not flag.
        draws: Number of draws. Defaults to 20,000.
        seed: Seed of the draws. Defaults to 0.
    """
    labelled = round(among_flagged.n + among_others.n)
    if labelled == 0:
        return Figure(None, None, None, 0)
    if flagged.n <= 0 or among_flagged.n <= 0 or among_others.n <= 0:
        number = among_flagged.number + among_others.number
        n = among_flagged.n + among_others.n
        return Figure(number / n, *wilson(number, n), labelled)
    rng = np.random.default_rng(seed)
    share, one, other = (_drawn(rng, each, draws) for each in (flagged, among_flagged, among_others))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(share * one + (1 - share) * other, [tail, 1 - tail])
    value = flagged.value * among_flagged.value + (1 - flagged.value) * among_others.value
    return Figure(value, min(float(low), value), max(float(high), value), labelled)


def _drawn(rng: np.random.Generator, share: Proportion, draws: int) -> np.ndarray:
    return rng.beta(share.number + 0.5, share.n - share.number + 0.5, draws)
