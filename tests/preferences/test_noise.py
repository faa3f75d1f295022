"""The figures of label noise, on judges whose errors are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from safevid_core.contracts.tables import PAIR_NOISE
from safevid_core.judging.judges.judge import Verdict
from safevid_core.preferences.noise import PairNoise, noise_of, preferred
from safevid_core.preferences.pair_judge import Assessment


def rows_of(prefers: list[str], people: list[str | None] | None = None, **columns: Any) -> pl.DataFrame:
    """Rows of `pair_noise`, each about a video of its own unless `cluster` is given."""
    rows = [
        {
            "pair_id": f"pair-{number:04}",
            "cluster": f"video-{number}",
            "sampled": True,
            "first": "chosen" if number % 2 else "rejected",
            "prefers": given,
            "chosen_success": given == "chosen",
            "rejected_success": given == "rejected",
            "people": None if people is None else people[number],
            **{name: values[number] for name, values in columns.items()},
        }
        for number, given in enumerate(prefers)
    ]
    return PAIR_NOISE.frame(rows)


class Simulated:
    """Pairs with known labels and a second judge with known errors.

    Attributes:
        swapped: Whether the label of a pair is swapped.
        prefers: What the second judge prefers.
    """

    def __init__(
        self, rng: np.random.Generator, n: int, share: float, errors: tuple[float, float], a_video: int = 1
    ) -> None:
        """Draw the pairs.

        Args:
            errors: How often the judge prefers the worse response of a right and of a swapped pair.
            a_video: Pairs about a video. Half of the videos have 1.8 times the share of swapped pairs, the
                others 0.2 times.
        """
        of_video = np.repeat(rng.choice([0.2, 1.8], -(-n // a_video)), a_video)[:n]
        self.swapped = rng.random(n) < share * of_video
        wrong = rng.random(n) < np.where(self.swapped, errors[1], errors[0])
        says_swapped = self.swapped ^ wrong
        even = rng.random(n) < 0.05
        self.prefers = np.where(even, "neither", np.where(says_swapped, "rejected", "chosen")).tolist()
        self.cluster = [f"video-{number // a_video}" for number in range(n)]

    def noise(self, labelled: int) -> PairNoise:
        """The figures if people label the last pairs, which are then not of the sample."""
        n = len(self.prefers)
        told = np.where(self.swapped, "swapped", "right").tolist()
        people = [None if number < n - labelled else told[number] for number in range(n)]
        sampled = [number < n - labelled for number in range(n)]
        rows = rows_of(self.prefers, people, cluster=self.cluster, sampled=sampled)
        return noise_of(rows, {}, "second", 200)


@pytest.mark.parametrize("errors", [(0.03, 0.03), (0.02, 0.5), (0.2, 0.1)])
@pytest.mark.parametrize(("a_video", "sets", "most"), [(1, 200, 0.99), (5, 60, 1.0)])
def test_with_labels_the_interval_covers_the_share_of_swapped_labels(
    errors: tuple[float, float], a_video: int, sets: int, most: float
) -> None:
    """400 sampled and 250 labelled pairs; 5% are swapped. Of 600 other sets 95% to 99% cover.

    With the second errors the judge misses half of the swapped pairs: it makes the pair judge's mistakes.
    With five pairs a video the interval is wide, because labels that are all equal count once a video.
    """
    rng, held = np.random.default_rng(3), 0
    for _ in range(sets):
        found = Simulated(rng, 650, 0.05, errors, a_video).noise(250).true_share
        assert found.n == 250
        held += (found.ci_low or 0) <= 0.05 <= (found.ci_high or 0)
    assert 0.92 <= held / sets <= most


@pytest.mark.parametrize("error", [0.0, 0.02, 0.15])
def test_without_labels_the_upper_limit_holds_if_the_errors_are_independent(error: float) -> None:
    """60 sets of 400 sampled pairs about 80 videos; 5% are swapped."""
    rng, held = np.random.default_rng(4), 0
    for _ in range(60):
        found = Simulated(rng, 400, 0.05, (error, error), 5).noise(0)
        assert not found.calibrated
        held += (found.would_swap.ci_high or 0) >= 0.05
    assert held / 60 >= 0.93


def test_without_labels_the_limit_does_not_hold_for_shared_mistakes_and_the_sentence_says_so() -> None:
    rng = np.random.default_rng(5)
    found = Simulated(rng, 400, 0.2, (0.0, 0.9)).noise(0)
    assert (found.would_swap.ci_high or 0) < 0.2
    assert "If both judges make the same mistakes, it may be higher" in found.sentence


def test_alpha_is_that_of_the_known_error() -> None:
    rng = np.random.default_rng(6)
    simulated = Simulated(rng, 4000, 0.0, (0.1, 0.1))
    simulated.prefers = ["chosen" if each == "neither" else each for each in simulated.prefers]
    found = simulated.noise(0)
    error = found.swapped / 4000
    # Both responses of a pair are read wrong together, so both alphas are 1 - 2 error.
    assert found.alpha_pairs.value == pytest.approx(1 - 2 * error, abs=0.01)
    assert found.alpha_responses.value == pytest.approx(1 - 2 * error, abs=0.01)
    assert found.alpha_pairs.n == 4000
    assert found.alpha_responses.n == 8000


def test_the_counts_and_what_is_missing() -> None:
    found = noise_of(
        rows_of(["chosen"] * 6 + ["rejected"] * 2 + ["neither"]), {"undecidable": 3}, "second", 200
    )
    assert (found.sampled, found.same, found.swapped, found.neither) == (12, 6, 2, 1)
    assert found.would_swap.value == 0.25
    assert found.would_swap.n == 8
    assert found.true_share.value is None
    assert found.sentence.startswith(
        "UNCALIBRATED: people labelled 0 of the judged pairs, and 200 are needed"
    )


def test_a_sheet_that_leaves_out_what_is_swapped_calibrates_nothing() -> None:
    people: list[str | None] = ["right"] * 250 + ["unsound_unsaid"]
    found = noise_of(rows_of(["chosen"] * 251, people), {}, "second", 200)
    assert not found.calibrated
    assert (
        "people call 1 of 251 labelled pairs unsound without saying whether they are swapped"
        in found.sentence
    )


@pytest.mark.parametrize(
    ("noise", "sentence"),
    [
        (PairNoise(), "not measured: the setting `preferences.second_judge` names no judge"),
        (
            PairNoise("second", sampled=7, no_verdict={"undecidable": 7}),
            "not measured: the second judge decided on none of 7 sampled pairs",
        ),
        (
            noise_of(rows_of(["neither"] * 3), {}, "second", 200),
            "UNCALIBRATED: people labelled 0 of the judged pairs, and 200 are needed to say how often the "
            "second judge is right. The second judge prefers neither response of any pair, so nothing is "
            "known of the share",
        ),
    ],
)
def test_what_is_not_known_is_said(noise: PairNoise, sentence: str) -> None:
    assert noise.sentence == sentence


@pytest.mark.parametrize(
    ("chosen", "rejected", "wanted"),
    [
        ((True, 1.0), (False, 0.5), "chosen"),
        ((False, 0.9), (True, 1.0), "rejected"),
        ((True, 0.5), (False, 0.9), "chosen"),
        ((False, 0.5), (False, 0.75), "rejected"),
        ((False, 0.5), (False, 0.5), "neither"),
        ((True, 1.0), (True, 1.0), "neither"),
    ],
)
def test_a_success_counts_before_the_criteria(
    chosen: tuple[bool, float], rejected: tuple[bool, float], wanted: str
) -> None:
    one, other = (Assessment(Verdict("refuse", success), score) for success, score in (chosen, rejected))
    assert preferred(one, other) == wanted
