"""Packing is a way to compute, not another method: figures and gradients equal those of padded rows.

Gradients are what counts: a wrong position moved the loss of a trial by 5e-4 and its gradient by 0.17.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.alignment.exactness import (
    EXACT,
    FAMILIES,
    MISTAKES,
    PACKINGS,
    SOME,
    Drawn,
    Subjects,
    collating,
    few,
    forest_batch,
    largest_relative,
    largest_relative_of_checkpointed_turns,
    one_leaked_cell,
    packed,
)


@pytest.fixture(scope="module")
def subjects(
    checkpoints: dict[str, Path], release: Any, tmp_path_factory: pytest.TempPathFactory
) -> Subjects:
    return Subjects(checkpoints, release, tmp_path_factory.mktemp("runs"))


# Chosen and rejected answers have no token in common: where they are equal, so are their gradients, and
# what is left of the difference is rounding.
chosen_token, rejected_token = st.integers(20, 100), st.integers(101, 200)
drawn_pairs = st.lists(
    st.tuples(
        st.integers(0, 1),
        # Few different queries, so that equal prompts, and prompts that begin another one, are common.
        st.lists(st.integers(20, 22), max_size=4),
        st.lists(chosen_token, min_size=1, max_size=6),
        st.lists(rejected_token, min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("family", FAMILIES)
@few
@given(drawn_pairs)
def test_packed_pairs_have_the_loss_the_log_probabilities_and_the_gradients_of_padded_rows(
    subjects: Subjects, family: str, packing: str, drawn: Drawn
) -> None:
    found, true = subjects(family).packed_and_padded(drawn, packing)
    assert all(gradient.norm() > 0 for gradient in true.gradients.values())
    assert found.largest_difference(true) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_equal_the_dense_mask(subjects: Subjects, family: str) -> None:
    subject = subjects(family)
    pairs = subject.pairs(SOME)
    dense = packed(subject.trainer, subject.store, pairs, "video", way="dense")
    segments = packed(subject.trainer, subject.store, pairs, "video", way="segments")
    assert segments.largest_difference(dense) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(drawn_pairs, st.integers(1, 30), st.sampled_from(["segments", "dense"]))
def test_turns_over_one_trunk_have_the_gradients_of_padded_rows(
    subjects: Subjects, family: str, drawn: Drawn, room: int, way: Any
) -> None:
    """By the trainer's own step, whose passes hold the trunk and so many further tokens."""
    # A query has a token: from the end of a video no answer is predicted.
    asked: Drawn = [(clip, [*query, 25], chosen, rejected) for clip, query, chosen, rejected in drawn]
    found, true, turns = subjects(family).turns_and_padded(asked, room, way)
    event(f"most turns: {min(turns, 3)}")
    assert largest_relative(found, true) < EXACT


def test_turns_under_gradient_checkpointing(subjects: Subjects) -> None:
    assert largest_relative_of_checkpointed_turns(subjects("llava_next_video"), "segments") < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_the_same_in_every_packing(subjects: Subjects, family: str) -> None:
    subject = subjects(family)
    found = []
    for packing, limit in (("none", 1), ("pair", 10**6), ("video", 10**6), ("video", 1)):
        pairs = subject.pairs(SOME)
        with collating(subject.trainer, subject.store, pairs, packing, limit, "segments"):
            subject.trainer.store_reference(pairs)
        found.append([pair.reference for pair in pairs])
    assert len({chosen for chosen, _ in found[0]}) == len(SOME)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("spoil", MISTAKES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_mistake_is_seen(
    subjects: Subjects, family: str, spoil: Callable[[dict[str, Any]], None]
) -> None:
    """The bar of the tests above would fail if packing did any of these."""
    way: Any = "dense" if spoil is one_leaked_cell else "segments"
    found, true = subjects(family).packed_and_padded(SOME, "video", way, spoil)
    assert found.largest_difference(true) > 100 * EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_stands_once_and_prompts_once(subjects: Subjects, family: str) -> None:
    subject = subjects(family)
    pairs = subject.pairs(SOME)
    trunks = [template.video_end for template in subject.templates]
    by_video = forest_batch(subject.trainer, subject.store, pairs, "video", "segments")
    # Queries [30, 31, 32] twice and [30, 33], whose first token they share; [70, 71]; answers less one.
    assert by_video["forest"].token_ids.shape[1] == sum(trunks) + (1 + 2 + 1) + 2 + 23 - 8
    by_pair = forest_batch(subject.trainer, subject.store, pairs, "pair", "segments")
    prompts = sum(len(pair.prompt_ids) for pair in pairs)
    assert by_pair["forest"].token_ids.shape[1] == prompts + 23 - 8
