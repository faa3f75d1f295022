"""Layout of preference pairs as trees of tokens. A shared prefix is in the tree once.

Example: two queries about one video.

::

    video and what precedes it ──┬── query 1 ──┬── chosen
                                 │             └── rejected
                                 └── query 2 ──┬── chosen
                                               └── rejected

A token attends to itself and to its ancestors only. The segments are in depth-first order, so each subtree is
one run of tokens. One number for each token is therefore enough for the mask: token `i` attends to token `j`
if `j <= i` and `i` is before the end of `j`'s subtree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from safevid_core.models.prompts import common_prefix_length


class TokenPair(Protocol):
    """The fields of an encoded pair that a tree needs. See `EncodedPair`."""

    clip: str
    prompt_ids: list[int]
    video_end: int
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True)
class Segment:
    """A run of tokens without a branch inside it.

    Attributes:
        start: Index of its first token.
        end: Index after its last token.
        stop: Index after the last token of its subtree.
        depth: Number of tokens between the root and its first token.
        tree: Index of its tree.
    """

    start: int
    end: int
    stop: int
    depth: int
    tree: int


@dataclass(frozen=True)
class Forest:
    """Trees side by side in one row of N tokens.

    Attributes:
        token_ids: The N tokens.
        segments: The segments in the order of their tokens. They cover the row, and none is empty.
        responses: Token ids of the chosen responses of all pairs, then of the rejected responses.
        predictors: For each response the indices of the tokens whose hidden states predict it, one for each
            of its tokens.
        pairs: Index of each pair in the flattened groups of :func:`plant`, in the order of the chosen
            responses.
    """

    token_ids: list[int]
    segments: list[Segment]
    responses: list[list[int]]
    predictors: list[list[int]]
    pairs: list[int]

    @property
    def trunks(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.depth == 0]

    def stops(self) -> list[int]:
        """Return for each of the N tokens the end of its segment's subtree. The mask needs no more."""
        return [segment.stop for segment in self.segments for _ in range(segment.start, segment.end)]

    def branches(self) -> Forest:
        """Return the branches of a forest with one tree, without the trunk. Token indices start at 0 again.

        No token of the trunk may predict a response. :func:`plant` with `trunk_tokens` of
        :func:`lasting_trunk` ensures this.
        """
        trunk = self.segments[0]
        cut = trunk.end
        segments = [
            Segment(each.start - cut, each.end - cut, each.stop - cut, each.depth, each.tree)
            for each in self.segments[1:]
        ]
        predictors = [[token - cut for token in tokens] for tokens in self.predictors]
        return Forest(self.token_ids[cut:], segments, self.responses, predictors, self.pairs)


def plant(groups: Sequence[Sequence[TokenPair]], trunk_tokens: int | None = None) -> Forest:
    """Return a forest with one tree for each group of pairs.

    The last token of a response is left out, because it predicts nothing.

    Args:
        groups: Groups of pairs that share a trunk (:func:`share_a_trunk`).
        trunk_tokens: Length of each trunk. None means the common prefix of the group's prompts.

    Raises:
        ValueError: If the pairs of a group do not share a trunk.
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
    """Return the length of the longest trunk that predicts no response token.

    Such a trunk can be computed separately from its branches. None if it would not contain the whole video.
    """
    length = min(common_prefix(pairs), min(len(pair.prompt_ids) for pair in pairs) - 1)
    return length if length >= max(1, pairs[0].video_end) else None


def share_a_trunk(pairs: Sequence[TokenPair]) -> bool:
    """Return whether the pairs can be in one tree: one video, and equal prompts up to its end."""
    first = pairs[0]
    one_video = all((pair.clip, pair.video_end) == (first.clip, first.video_end) for pair in pairs)
    return one_video and common_prefix(pairs) >= max(1, first.video_end)


def tree_tokens(pairs: Sequence[TokenPair]) -> int:
    """Return the number of tokens in the tree of these pairs."""
    trunk = common_prefix(pairs)
    answers = sum(len(pair.chosen_ids) + len(pair.rejected_ids) - 2 for pair in pairs)
    return trunk + sum(map(len, _by_query(pairs, trunk))) + answers


def row_tokens(pair: TokenPair) -> int:
    """Return the number of tokens in the pair's two rows without sharing and padding."""
    return 2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids)


def common_prefix(pairs: Sequence[TokenPair]) -> int:
    """Return the length of the longest common prefix of all prompts."""
    return common_prefix_length([pair.prompt_ids for pair in pairs])


def _by_query(pairs: Sequence[TokenPair], trunk: int) -> dict[tuple[int, ...], list[int]]:
    """Return: tokens of a prompt after the trunk -> indices of the pairs with that prompt."""
    queries: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        queries.setdefault(tuple(pair.prompt_ids[trunk:]), []).append(index)
    return queries


class _Row:
    """A row under construction. Segments must be appended in depth-first order."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._ends: list[int] = []
        self._parents: list[int | None] = []

    def append(self, token_ids: list[int], parent: int | None) -> int:
        """Append a segment and return its index."""
        self.token_ids += token_ids
        self._ends.append(len(self.token_ids))
        self._parents.append(parent)
        return len(self._ends) - 1

    def append_answer(self, answer: list[int], branch: int) -> list[int]:
        """Append a response without its last token. Return the indices of the tokens that predict it."""
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
