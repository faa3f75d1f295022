"""The double-sampled share: the published formula, coverage of its interval, and the stratified sample."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.statistics.detection import Proportion
from safevid_core.statistics.double_sampling import double_sampled_share
from safevid_core.statistics.intervals import wilson
from safevid_core.statistics.sampling import stratified_sample, uniform

shares = st.tuples(st.integers(0, 200), st.integers(0, 200)).map(
    lambda each: Proportion(min(each), max(each))
)


def test_the_share_of_the_docstring() -> None:
    found = double_sampled_share(Proportion(30, 400), Proportion(9, 15), Proportion(1, 185))
    assert found.value == pytest.approx(0.075 * 9 / 15 + 0.925 / 185)
    assert found.n == 200
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert 0.02 < found.ci_low < 0.05 < found.ci_high < 0.09


@given(shares, shares, shares)
def test_a_share_is_inside_its_interval(flagged: Proportion, one: Proportion, other: Proportion) -> None:
    found = double_sampled_share(flagged, one, other, draws=200)
    if one.n + other.n == 0:
        assert found.value is None
    else:
        assert found.value is not None
        assert found.ci_low is not None
        assert found.ci_high is not None
        assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1


def test_labels_count_alone_if_none_of_them_is_flagged() -> None:
    found = double_sampled_share(Proportion(4, 400), Proportion(0, 0), Proportion(2, 200))
    assert (found.value, found.ci_low, found.ci_high) == (0.01, *wilson(2, 200))


@pytest.mark.parametrize(
    ("share", "sensitivity", "specificity"),
    [(0.05, 0.8, 0.97), (0.02, 0.9, 0.97), (0.01, 0.6, 0.99), (0.3, 0.8, 0.8), (0.03, 0.3, 0.9)],
)
def test_the_interval_covers_the_share_by_a_reader_of_any_quality(
    share: float, sensitivity: float, specificity: float
) -> None:
    """1,000 sets of 400 read and 200 labelled units. Coverage of 2,000 other sets: 94% to 97%."""
    rng, held = np.random.default_rng(7), 0
    for _ in range(1000):
        flags = rng.binomial(400, share * sensitivity + (1 - share) * (1 - specificity))
        truth = rng.random(200) < share
        flagged = np.where(truth, rng.random(200) < sensitivity, rng.random(200) < 1 - specificity)
        found = double_sampled_share(
            Proportion(flags, 400),
            Proportion(int((truth & flagged).sum()), int(flagged.sum())),
            Proportion(int((truth & ~flagged).sum()), int((~flagged).sum())),
            draws=2000,
        )
        held += (found.ci_low or 0) <= share <= (found.ci_high or 0)
    assert 0.93 <= held / 1000 <= 0.985


# --------------------------------------------------------------------------------------------- sample


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 80),
    st.integers(0, 5),
)
def test_a_sample_has_its_size_and_each_stratum_its_share(sizes: list[int], size: int, seed: int) -> None:
    strata = {f"{place}-{unit}": str(place) for place, n in enumerate(sizes) for unit in range(n)}
    drawn = stratified_sample(strata, size, seed, "test")
    assert len(drawn) == len(set(drawn)) == min(size, len(strata))
    assert set(drawn) <= set(strata)
    assert drawn == sorted(drawn) == stratified_sample(dict(reversed(strata.items())), size, seed, "test")
    counts = Counter(strata[unit] for unit in drawn)
    for place, n in enumerate(sizes):
        due = n * min(1, size / len(strata))
        assert abs(counts[str(place)] - due) < 1 + 1e-9


def test_every_unit_is_drawn_as_often_as_any_other() -> None:
    """3,000 seeds, 4 of 13 units in strata of 1, 5 and 7: each is due 923 times, with an error of 25."""
    strata = {f"{name}{unit}": name for name, n in (("a", 1), ("b", 5), ("c", 7)) for unit in range(n)}
    counts = Counter(unit for seed in range(3000) for unit in stratified_sample(strata, 4, seed, "test"))
    assert set(counts) == set(strata)
    assert all(abs(count - 3000 * 4 / 13) < 4 * 25.3 for count in counts.values())


def test_new_units_change_little_of_a_sample() -> None:
    strata = {f"unit {number}": str(number % 10) for number in range(1000)}
    before = set(stratified_sample(strata, 200, 0, "test"))
    more = strata | {f"new {number}": str(number % 10) for number in range(50)}
    after = set(stratified_sample(more, 200, 0, "test"))
    assert len(before & after) >= 170  # the new units are due 10 places


def test_hashes_are_uniform() -> None:
    numbers = [uniform("test", number) for number in range(2000)]
    assert 0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert abs(np.mean(numbers) - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
