"""The control runs must spoil exactly one thing, and spoil all of it."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.perturbations import CLIP_COLUMNS, perturb

# A clip number with or without a twin: clips 2n and 2n+1 share a twin group where `twinned`.
owners = st.lists(st.integers(0, 7), min_size=2, max_size=60)


def frame(numbers: list[int], twinned: bool) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "pair_id": [f"pair-{index}" for index in range(len(numbers))],
            "clip_id": [f"clip-{number}" for number in numbers],
            "twin_group": [f"twins-{number // 2}" if twinned else None for number in numbers],
            "media_sha256": [f"hash-{number}" for number in numbers],
            "start_s": [float(number) for number in numbers],
            "end_s": [None for _ in numbers],
            "chosen": [f"chosen-{index}" for index in range(len(numbers))],
            "rejected": [f"rejected-{index}" for index in range(len(numbers))],
        },
        schema_overrides={"twin_group": pl.String, "end_s": pl.Float64},
    )


@given(owners, st.booleans(), st.integers(0, 5))
def test_permuted_videos_never_meet_their_own_clip_or_its_twin(
    numbers: list[int], twinned: bool, seed: int
) -> None:
    groups = [number // 2 if twinned else number for number in numbers]
    assume(2 * max(groups.count(group) for group in groups) <= len(groups))
    pairs = frame(numbers, twinned)
    permuted = perturb(pairs, "permuted_videos", seed)
    key = "twin_group" if twinned else "clip_id"
    assert (pairs[key] != permuted[key]).all()
    assert sorted(pairs["media_sha256"]) == sorted(permuted["media_sha256"])
    rows = pairs.select(CLIP_COLUMNS).rows()
    assert all(row in rows for row in permuted.select(CLIP_COLUMNS).rows())
    assert permuted.drop(CLIP_COLUMNS).equals(pairs.drop(CLIP_COLUMNS))
    assert permuted.equals(perturb(pairs, "permuted_videos", seed))


def test_videos_that_cannot_be_permuted_are_refused() -> None:
    with pytest.raises(AlignmentError, match="one clip holds 3 of 4 pairs"):
        perturb(frame([0, 0, 0, 1], twinned=False), "permuted_videos", 0)


@given(st.integers(1, 60), st.integers(0, 5))
def test_shuffled_labels_exchange_half_of_the_pairs_and_nothing_else(count: int, seed: int) -> None:
    pairs = frame([0] * count, twinned=False)
    shuffled = perturb(pairs, "shuffled_labels", seed)
    exchanged = shuffled["chosen"] == pairs["rejected"]
    assert exchanged.sum() == count // 2
    assert ((shuffled["rejected"] == pairs["chosen"]) == exchanged).all()
    assert shuffled.drop("chosen", "rejected").equals(pairs.drop("chosen", "rejected"))


def test_without_perturbation_the_pairs_stay() -> None:
    pairs = frame([0, 1], twinned=True)
    assert perturb(pairs, "none", 0).equals(pairs)
