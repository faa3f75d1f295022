"""Preference pairs laid out as a tree: what they share stands once, and a token sees its ancestors only.

::

    video and what precedes it ──┬── query 1 ──┬── chosen
                                 │             └── rejected
                                 └── query 2 ──┬── chosen
                                               └── rejected

The segments stand in depth-first order, so every subtree is one run of tokens, and a token's ancestry
follows from one number: token `i` sees token `j` if `j <= i` and `i` lies before the end of `j`'s subtree.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class TokenPair(Protocol):
    """What of an encoded pair the tree is made of; see `EncodedPair`."""

    clip: str
    prompt_ids: list[int]
    video_end: int
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True)
class Segment:
    """A run of tokens that no branch leaves: tokens `start` to `end`, its subtree up to `stop`.

    Attributes:
        depth: Tokens between the root and its first token.
        tree: Index of its tree.
    """

    start: int
    end: int
    stop: int
    depth: int
    tree: int


@dataclass(frozen=True)
class Forest:
    """Trees side by side in one row of `N` tokens.

    Attributes:
        segments: In the order of their tokens; together they cover the row, and none is empty.
        answers: The chosen answers of all pairs, then the rejected ones.
        predictors: For each answer the tokens whose hidden states predict it, one for each of its tokens.
        pairs: Indices of the pairs in `plant`'s flattened groups, in the order of `answers`' halves.
    """

    token_ids: list[int]
    segments: list[Segment]
    answers: list[list[int]]
    predictors: list[list[int]]
    pairs: list[int]

    @property
    def trunks(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.depth == 0]

    def stops(self) -> list[int]:
        """For each token the end of its segment's subtree, `N` numbers: all that a mask needs."""
        return [segment.stop for segment in self.segments for _ in range(segment.start, segment.end)]

    def branches(self) -> Forest:
        """The only tree without its trunk: its branches side by side, each token's number less the trunk's.

        What predicts an answer must not be in the trunk (:func:`plant` with a `trunk` sees to it).
        """
        trunk = self.segments[0]
        cut = trunk.end
        segments = [
            Segment(each.start - cut, each.end - cut, each.stop - cut, each.depth, each.tree)
            for each in self.segments[1:]
        ]
        predictors = [[token - cut for token in tokens] for tokens in self.predictors]
        return Forest(self.token_ids[cut:], segments, self.answers, predictors, self.pairs)


def plant(groups: Sequence[Sequence[TokenPair]], trunk_tokens: int | None = None) -> Forest:
    """One tree for each group of pairs that share a trunk (:func:`share_a_trunk`).

    The last token of an answer is left out: it is predicted, and predicts nothing.

    Args:
        trunk_tokens: Tokens of the trunks. Defaults to all that a group's prompts share.

    Raises:
        ValueError: If a group shares no trunk.
    """
    row = _Row()
    chosen: list[tuple[list[int], list[int]]] = []
    rejected: list[tuple[list[int], list[int]]] = []
    order: list[int] = []
    first = 0
    for group in groups:
        if not share_a_trunk(group):
            raise ValueError(
                "these pairs share no trunk: another video, or prompts that differ before its end"
            )
        length = common_prefix(group) if trunk_tokens is None else trunk_tokens
        trunk = row.append(group[0].prompt_ids[:length], None)
        for query, asked in _by_query(group, length).items():
            branch = row.append(list(query), trunk) if query else trunk
            for index in asked:
                pair = group[index]
                chosen.append((pair.chosen_ids, row.append_answer(pair.chosen_ids, branch)))
                rejected.append((pair.rejected_ids, row.append_answer(pair.rejected_ids, branch)))
                order.append(first + index)
        first += len(group)
    answers, predictors = zip(*chosen, *rejected, strict=True)
    return Forest(row.token_ids, row.segments(), list(answers), list(predictors), order)


def lasting_trunk(pairs: Sequence[TokenPair]) -> int | None:
    """Tokens of a trunk from which nothing is predicted, so that it can be computed apart from its branches.

    None where the video would not be whole in it.
    """
    length = min(common_prefix(pairs), min(len(pair.prompt_ids) for pair in pairs) - 1)
    return length if length >= max(1, pairs[0].video_end) else None


def share_a_trunk(pairs: Sequence[TokenPair]) -> bool:
    """Whether the pairs can stand in one tree: one video, and prompts that are alike until it ends."""
    first = pairs[0]
    one_video = all((pair.clip, pair.video_end) == (first.clip, first.video_end) for pair in pairs)
    return one_video and common_prefix(pairs) >= max(1, first.video_end)


def tree_tokens(pairs: Sequence[TokenPair]) -> int:
    """Tokens of the tree of these pairs."""
    trunk = common_prefix(pairs)
    answers = sum(len(pair.chosen_ids) + len(pair.rejected_ids) - 2 for pair in pairs)
    return trunk + sum(map(len, _by_query(pairs, trunk))) + answers


def row_tokens(pair: TokenPair) -> int:
    """Tokens of the pair's two rows when nothing is shared, padding aside."""
    return 2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids)


def common_prefix(pairs: Sequence[TokenPair]) -> int:
    """Length of the longest prefix that all prompts have."""
    prompts = [pair.prompt_ids for pair in pairs]
    least, greatest = min(prompts), max(prompts)  # they differ where any two do
    shorter = range(min(len(least), len(greatest)))
    return bisect.bisect_left(shorter, True, key=lambda end: least[: end + 1] != greatest[: end + 1])


def _by_query(pairs: Sequence[TokenPair], trunk: int) -> dict[tuple[int, ...], list[int]]:
    """What follows the trunk in a prompt -> indices of the pairs that ask it."""
    queries: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        queries.setdefault(tuple(pair.prompt_ids[trunk:]), []).append(index)
    return queries


class _Row:
    """Segments as they are appended, in depth-first order."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._ends: list[int] = []
        self._parents: list[int | None] = []

    def append(self, token_ids: list[int], parent: int | None) -> int:
        """Append a segment; returns its index."""
        self.token_ids += token_ids
        self._ends.append(len(self.token_ids))
        self._parents.append(parent)
        return len(self._ends) - 1

    def append_answer(self, answer: list[int], branch: int) -> list[int]:
        """Append all of an answer but its last token; returns the tokens that predict it."""
        start = len(self.token_ids)
        if len(answer) > 1:
            self.append(answer[:-1], branch)
        return [self._ends[branch] - 1, *range(start, len(self.token_ids))]

    def segments(self) -> list[Segment]:
        starts = [0, *self._ends[:-1]]
        stops, depths, trees = list(self._ends), [0] * len(starts), [0] * len(starts)
        for index in reversed(range(len(starts))):
            parent = self._parents[index]
            if parent is not None:
                stops[parent] = max(stops[parent], stops[index])
        tree = -1
        for index, parent in enumerate(self._parents):
            if parent is None:
                tree += 1
            else:
                depths[index] = depths[parent] + self._ends[parent] - starts[parent]
            trees[index] = tree
        return [Segment(*each) for each in zip(starts, self._ends, stops, depths, trees, strict=True)]
