"""A seeded stratified sample in which every unit has the same probability.

A stratum of N_h of N units gets n N_h / N of n places, rounded down or up so that the expected number is
exact (systematic rounding with one random start). Within a stratum the units with the smallest hashes are
drawn. So plain means over the sample are unbiased, and a new unit changes few places of the sample
(permanent random numbers: Ohlsson 1995, in Business Survey Methods, Wiley, 153-169).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from safevid_core.contracts.ids import content_id


def stratified_sample(strata: Mapping[str, str], size: int, seed: int, purpose: str) -> list[str]:
    """The ids of the sample, sorted. All ids if there are no more than `size`.

    Args:
        strata: Id -> its stratum.
        size: Number of units.
        seed: Seed of the sample.
        purpose: Name of the sample. Samples of the same seed with different names are independent.
    """
    if len(strata) <= size:
        return sorted(strata)
    units: dict[str, list[str]] = defaultdict(list)
    for unit, stratum in strata.items():
        units[stratum].append(unit)
    drawn: list[str] = []
    start = uniform(purpose, seed, "start")
    total = 0
    for stratum in sorted(units):
        before = math.floor(size * total / len(strata) + start)
        total += len(units[stratum])
        places = math.floor(size * total / len(strata) + start) - before
        drawn += sorted(units[stratum], key=lambda unit: content_id(purpose, seed, unit))[:places]
    return sorted(drawn)


def uniform(*parts: object) -> float:
    """A number in [0, 1) that is a hash of the parts."""
    return int(content_id(*parts, length=13), 16) / 16**13
