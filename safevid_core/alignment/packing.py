"""Packing: splits pairs into trees, trees into forward passes, and orders the pairs for training."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from safevid_core.alignment.tree import TokenPair, lasting_trunk, share_a_trunk, tree_tokens
from safevid_core.settings import Packing

AnyPair = TypeVar("AnyPair", bound=TokenPair)
_NO_LIMIT = 2**62


def cut_into_trees(pairs: Sequence[AnyPair], packing: Packing, max_tokens: int) -> list[list[AnyPair]]:
    """Return the pairs as trees, in the order of the first pair of each tree.

    Args:
        pairs: Encoded pairs.
        packing: `video` joins pairs of one video. Any other packing makes one tree for each pair.
        max_tokens: Maximum number of tokens in a tree. A single pair may have more.
    """
    trees: list[list[AnyPair]] = []
    open_trees: dict[str, list[AnyPair]] = {}
    for pair in pairs:
        tree = open_trees.get(pair.clip) if packing == "video" else None
        if tree is not None and share_a_trunk([*tree, pair]) and tree_tokens([*tree, pair]) <= max_tokens:
            tree.append(pair)
        else:
            trees.append([pair])
            open_trees[pair.clip] = trees[-1]
    return trees


# Either several passes over parts of one tree, which share its trunk, or one pass over one or more trees.
Turns = list[list[AnyPair]]


def cut_into_turns(
    pairs: Sequence[AnyPair], packing: Packing, max_tokens: int, *, share_trunks: bool
) -> list[Turns[AnyPair]]:
    """Return the passes over these pairs.

    Args:
        pairs: Encoded pairs.
        packing: `pair` or `video`.
        max_tokens: Maximum number of tokens in a pass. A single pair may have more.
        share_trunks: Whether a tree with more tokens is computed in turns that share its trunk. If false, the
            tree is cut into parts, and each part computes the trunk again.
    """
    turns: list[Turns[AnyPair]] = []
    small: list[list[AnyPair]] = []
    for tree in cut_into_trees(pairs, packing, _NO_LIMIT if share_trunks else max_tokens):
        parts = cut_into_trees(tree, packing, max_tokens)
        if len(parts) > 1 and lasting_trunk(tree) is not None:
            turns.append(parts)
        else:
            small += parts
    passes = fill_passes(small, max_tokens)
    return turns + [[[pair for tree in trees for pair in tree]] for trees in passes]


def fill_passes(trees: Sequence[Sequence[AnyPair]], max_tokens: int) -> list[list[Sequence[AnyPair]]]:
    """Return the trees in their order, grouped so that each group has at most `max_tokens` tokens."""
    passes: list[list[Sequence[AnyPair]]] = []
    room = 0
    for tree in trees:
        tokens = tree_tokens(tree)
        if not passes or tokens > room:
            passes.append([])
            room = max_tokens
        passes[-1].append(tree)
        room -= tokens
    return passes


def training_order(
    clips: Sequence[str], packing: Packing, pairs_a_tree: int, rng: random.Random
) -> list[int]:
    """Return a random permutation of the pairs' indices.

    Args:
        clips: The clip of each pair.
        packing: With `video`, up to `pairs_a_tree` pairs of one video follow each other. These runs are drawn
            at random from the pairs of the video, and their order is random. Any other packing gives a plain
            random permutation.
        pairs_a_tree: Maximum length of such a run.
        rng: Source of the random numbers.
    """
    shuffled = rng.sample(range(len(clips)), len(clips))
    if packing != "video":
        return shuffled
    by_clip: dict[str, list[int]] = {}
    for index in shuffled:
        by_clip.setdefault(clips[index], []).append(index)
    runs = [run for indices in by_clip.values() for run in _cut(indices, pairs_a_tree)]
    rng.shuffle(runs)
    return [index for run in runs for index in run]


def _cut(indices: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
