"""The tree of any pairs holds each of their rows, and every pair is packed, ordered and trained on once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.alignment.packing import cut_into_trees, fill_passes, training_order
from safevid_core.alignment.tree import Forest, plant, row_tokens, share_a_trunk, tree_tokens

VIDEO = [1, 9, 9, 9]


@dataclass
class Pair:
    clip: str
    prompt_ids: list[int]
    video_end: int
    chosen_ids: list[int]
    rejected_ids: list[int]


few_tokens = st.integers(20, 22)  # so that equal prompts, and one that begins another, are common
pairs_of_some_clips = st.lists(
    st.builds(
        lambda clip, query, chosen, rejected: Pair(clip, [*VIDEO, *query], len(VIDEO), chosen, rejected),
        st.sampled_from("abc"),
        st.lists(few_tokens, max_size=4),
        st.lists(few_tokens, min_size=1, max_size=5),
        st.lists(few_tokens, min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=12,
)


def seen_by(forest: Forest, token: int) -> list[int]:
    """The tokens that one sees, itself the last."""
    stops = forest.stops()
    return [other for other in range(token + 1) if token < stops[other]]


@given(pairs_of_some_clips, st.sampled_from(["pair", "video"]), st.integers(1, 60))
def test_what_predicts_an_answer_sees_its_own_row_and_nothing_else(
    pairs: list[Pair], packing: str, max_tokens: int
) -> None:
    trees = cut_into_trees(pairs, packing, max_tokens)
    forest = plant(trees)
    planted = [pair for tree in trees for pair in tree]
    rows = [(planted[index], planted[index].chosen_ids) for index in forest.pairs]
    rows += [(planted[index], planted[index].rejected_ids) for index in forest.pairs]
    for (pair, answer), found, predictors in zip(rows, forest.responses, forest.predictors, strict=True):
        assert found == answer
        row = [*pair.prompt_ids, *answer]
        for place, token in enumerate(predictors):
            seen = [forest.token_ids[each] for each in seen_by(forest, token)]
            assert seen == row[: len(pair.prompt_ids) + place]


@given(pairs_of_some_clips, st.sampled_from(["pair", "video"]))
def test_positions_follow_the_depth(pairs: list[Pair], packing: str) -> None:
    """A segment's depth is the number of tokens that its first one sees, itself aside."""
    forest = plant(cut_into_trees(pairs, packing, 10**6))
    assert all(each.depth == len(seen_by(forest, each.start)) - 1 for each in forest.segments)
    covered = [token for each in forest.segments for token in range(each.start, each.end)]
    assert covered == list(range(len(forest.token_ids)))


@given(pairs_of_some_clips, st.sampled_from(["pair", "video"]), st.integers(1, 60))
def test_every_pair_is_in_one_pass_and_no_pass_is_over_its_budget(
    pairs: list[Pair], packing: str, max_tokens: int
) -> None:
    passes = fill_passes(cut_into_trees(pairs, packing, max_tokens), max_tokens)
    flat = [pair for trees in passes for tree in trees for pair in tree]
    assert sorted(map(id, flat)) == sorted(map(id, pairs))
    for trees in passes:
        tokens = sum(map(tree_tokens, trees))
        assert tokens == len(plant(trees).token_ids)
        assert tokens <= max_tokens or sum(map(len, trees)) == 1
        assert packing == "video" or all(len(tree) == 1 for tree in trees)


@given(pairs_of_some_clips)
def test_a_tree_is_never_more_than_its_rows(pairs: list[Pair]) -> None:
    trees = cut_into_trees(pairs, "video", 10**6)
    assert sum(map(tree_tokens, trees)) < sum(map(row_tokens, pairs))
    assert len(trees) == len({pair.clip for pair in pairs})


def test_prompts_that_differ_before_the_video_ends_share_nothing() -> None:
    one, other = Pair("a", [1, 9, 9, 20], 3, [5], [6]), Pair("a", [2, 9, 9, 20], 3, [5], [6])
    assert not share_a_trunk([one, other])
    assert len(cut_into_trees([one, other], "video", 100)) == 2
    with pytest.raises(ValueError, match="share no trunk"):
        plant([[one, other]])


clips_of_pairs = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=80)


@given(clips_of_pairs, st.sampled_from(["none", "pair", "video"]), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_pair_once(clips: list[str], packing: str, size: int, seed: int) -> None:
    order = training_order(clips, packing, size, random.Random(seed))
    assert sorted(order) == list(range(len(clips)))
    assert order == training_order(clips, packing, size, random.Random(seed))


@given(clips_of_pairs, st.integers(1, 9))
def test_pairs_of_a_video_come_in_as_few_runs_as_their_size_allows(clips: list[str], size: int) -> None:
    order = training_order(clips, "video", size, random.Random(0))
    runs: list[list[str]] = []
    for index in order:
        if not runs or runs[-1][0] != clips[index] or len(runs[-1]) == size:
            runs.append([])
        runs[-1].append(clips[index])
    # Neighbouring runs of one video may be read as differently cut ones; their number is the same.
    assert len(runs) <= sum(-(-count // size) for count in Counter(clips).values())


def test_a_batch_of_grouped_pairs_still_mixes_videos() -> None:
    """With 28 pairs a video, 8 a tree and 64 a batch: at least 8 videos, and no video twice as often."""
    clips = [f"clip-{number % 100}" for number in range(2800)]
    order = training_order(clips, "video", 8, random.Random(1))
    batches = [Counter(clips[index] for index in order[start : start + 64]) for start in range(0, 2752, 64)]
    assert all(len(batch) >= 7 for batch in batches)
    assert sum(map(len, batches)) / len(batches) > 8
