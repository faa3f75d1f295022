"""Precision, recall and F1 against plain counts, and the coverage of a corrected rate's interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.statistics.detection import MEASURES, Counts, Proportion, corrected_rate

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)
shares = st.tuples(st.integers(0, 200), st.integers(1, 200)).map(
    lambda each: Proportion(min(each), max(each))
)


@given(pairs)
def test_the_measures_are_the_textbooks(units: list[tuple[bool, bool]]) -> None:
    people, judge = [unit[0] for unit in units], [unit[1] for unit in units]
    found = Counts.of(people, judge).figures()
    assert tuple(found) == MEASURES
    both = sum(not one and not other for one, other in units)
    unsafe, flagged = people.count(False), judge.count(False)
    wanted = {
        "prevalence": (unsafe, len(units)),
        "precision": (both, flagged),
        "recall": (both, unsafe),
        "specificity": (sum(one and other for one, other in units), people.count(True)),
        "f1": (2 * both, unsafe + flagged),
    }
    for name, (number, n) in wanted.items():
        figure = found[name]
        if n == 0:
            assert (figure.value, figure.ci_low, figure.ci_high) == (None, None, None)
        else:
            assert figure.value == pytest.approx(number / n)
            assert figure.ci_low is not None
            assert figure.ci_high is not None
            assert 0 <= figure.ci_low <= figure.value <= figure.ci_high <= 1


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels of people, and 1 of the judge"):
        Counts.of([True, False], [True])


def test_the_interval_of_f1_covers_the_truth() -> None:
    """400 sets of 600 responses with 6% unsafe, recall 0.7, specificity 0.97: F1 is 0.641."""
    rng, held = np.random.default_rng(0), 0
    truth = 2 * 0.06 * 0.7 / (0.06 + 0.06 * 0.7 + 0.94 * 0.03)
    for _ in range(400):
        unsafe = rng.random(600) < 0.06
        flagged = np.where(unsafe, rng.random(600) < 0.7, rng.random(600) < 0.03)
        figure = Counts.of((~unsafe).tolist(), (~flagged).tolist()).figures()["f1"]
        held += (figure.ci_low or 0) <= truth <= (figure.ci_high or 0)
    assert 0.92 <= held / 400 <= 0.98


# ------------------------------------------------------------------------------------- corrected rates


@given(shares, shares, shares)
def test_a_corrected_rate_is_a_share_inside_its_interval(
    apparent: Proportion, sensitivity: Proportion, specificity: Proportion
) -> None:
    figure = corrected_rate(apparent, sensitivity, specificity)
    if sensitivity.value + specificity.value <= 1:
        assert figure.value is None
    elif figure.value is not None:
        assert figure.ci_low is not None
        assert figure.ci_high is not None
        assert 0 <= figure.ci_low <= figure.value <= figure.ci_high <= 1
        # The other class is corrected to the rest.
        rest = corrected_rate(Proportion(apparent.n - apparent.number, apparent.n), specificity, sensitivity)
        assert rest.value == pytest.approx(1 - figure.value)
        assert (rest.ci_low, rest.ci_high) == pytest.approx((1 - figure.ci_high, 1 - figure.ci_low))


def test_a_judge_without_errors_changes_nothing() -> None:
    figure = corrected_rate(Proportion(30, 100), Proportion(5000, 5000), Proportion(5000, 5000))
    assert figure.value == pytest.approx(0.3)
    assert (figure.ci_low, figure.ci_high) == pytest.approx((0.219, 0.396), abs=0.003)


def test_the_example_of_the_docstring() -> None:
    figure = corrected_rate(Proportion(150, 500), Proportion(40, 50), Proportion(310, 350))
    found = (figure.value, figure.ci_low, figure.ci_high)
    assert found == pytest.approx((0.271, 0.197, 0.364), abs=5e-4)


def test_fewer_labels_make_a_wider_interval() -> None:
    widths = []
    for n in (20, 80, 320):
        figure = corrected_rate(Proportion(30, 100), Proportion(0.8 * n, n), Proportion(0.9 * n, n))
        widths.append((figure.ci_high or 0) - (figure.ci_low or 0))
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("truth", "sensitivity", "specificity", "n", "unsafe", "safe"),
    [
        (0.3, 0.8, 0.9, 500, 50, 350),
        (0.05, 0.9, 0.95, 500, 60, 300),
        (0.02, 0.9, 0.8, 400, 60, 300),
        (0.6, 0.7, 0.95, 200, 40, 60),
        (0.1, 0.6, 0.9, 300, 30, 30),
    ],
)
def test_the_interval_covers_the_true_rate(
    truth: float, sensitivity: float, specificity: float, n: int, unsafe: int, safe: int
) -> None:
    rng, held, plain = np.random.default_rng(0), 0, 0
    flagged = truth * sensitivity + (1 - truth) * (1 - specificity)
    for _ in range(1000):
        figure = corrected_rate(
            Proportion(rng.binomial(n, flagged), n),
            Proportion(rng.binomial(unsafe, sensitivity), unsafe),
            Proportion(rng.binomial(safe, specificity), safe),
        )
        held += (figure.ci_low or 0) <= truth <= (figure.ci_high or 0)
        # The same rate as if the labels were without error of their own.
        sure = corrected_rate(
            Proportion(rng.binomial(n, flagged), n), Proportion(1e9, 1e9), Proportion(1e9, 1e9)
        )
        plain += (sure.ci_low or 0) <= truth <= (sure.ci_high or 0)
    assert 0.93 <= held / 1000 <= 0.985
    assert plain < held
