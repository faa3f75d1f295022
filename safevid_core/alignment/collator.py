"""Batches of video preference pairs, as padded rows or as a forest, in the form of trl's DPO loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safevid_core.alignment.packing import Turns, cut_into_trees, cut_into_turns
from safevid_core.alignment.processes import process_count
from safevid_core.alignment.tree import Forest, Segment, common_prefix, plant

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.clips import ClipStore
    from safevid_core.alignment.encoding import EncodedPair
    from safevid_core.alignment.tree_attention import TrunkStates, Way
    from safevid_core.settings import Packing


class VideoPreferenceCollator:
    """Joins B encoded pairs into one batch of 2B rows: the chosen rows, then the rejected ones.

    Rows are padded on the right. Both rows of a pair have the same video.

    Args:
        pairs: All pairs that a batch may name.
        clips: Store of the videos.
        pad_token_id: Fills each row up to the length of the longest.
    """

    def __init__(self, pairs: Sequence[EncodedPair], clips: ClipStore, pad_token_id: int) -> None:
        self.pairs = pairs
        self._by_id = {pair.pair_id: pair for pair in pairs}
        self._clips = clips
        self._pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch of the pairs whose `pair_id` the rows hold.

        Returns:
            int64 token columns `[2B, S]`, the video arguments and `pair_ids`. If all pairs have their
            reference, also `ref_chosen_logps` and `ref_rejected_logps` `[B]`.
        """
        return self.batch([self._by_id[row["pair_id"]] for row in rows])

    def batch(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """Return the batch of these pairs, as :meth:`__call__` does."""
        answers = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
        twice = [*pairs, *pairs]
        prompts = [pair.prompt_ids for pair in twice]
        length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        joined = list(zip(prompts, answers, strict=True))
        batch = {
            "input_ids": _padded([p + a for p, a in joined], length, self._pad_token_id),
            "attention_mask": _padded([[1] * len(p + a) for p, a in joined], length),
            "completion_mask": _padded([[0] * len(p) + [1] * len(a) for p, a in joined], length),
            **self._clips.batch([pair.clip for pair in twice]),
            **_names_and_references(pairs),
        }
        modalities = [pair.prompt_modalities for pair in twice if pair.prompt_modalities is not None]
        if modalities:
            batch["mm_token_type_ids"] = _padded(modalities, length)
        return batch


@dataclass(frozen=True)
class PackedForest:
    """A forest as model inputs.

    Attributes:
        token_ids: int64 `[1, N]`.
        position_ids: int64 `[1, N]`, or `[3, 1, N]` for Qwen2.5-VL.
        predictors: int64 `[M]`: indices of the tokens that predict the response tokens, response by response.
        segments: The segments of the forest. The attention mask follows from them.
        way: How attention is computed. None chooses by the device: `flex` on a GPU, `segments` on a CPU.
        trunk: Keys and values of a trunk that all tokens attend to. None if the forest holds its own trunks.
        kept: Receives the keys and values of the forest, if the forest is itself a trunk. Else None.
    """

    token_ids: torch.Tensor
    position_ids: torch.Tensor
    predictors: torch.Tensor
    segments: Sequence[Segment]
    way: Way | None = None
    trunk: TrunkStates | None = None
    kept: TrunkStates | None = None

    def to(self, device: torch.device, **_: Any) -> PackedForest:
        names = ("token_ids", "position_ids", "predictors")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @functools.cached_property
    def asked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The predicting tokens.

        Returns:
            The distinct predicting tokens in ascending order, int64 `[W]`, and for each of the M predictors
            its index among them, int64 `[M]`.
        """
        asked, places = self.predictors.unique(return_inverse=True)
        return asked, places

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a model that uses :mod:`tree_attention`.

        The model returns last hidden states for the tokens of :attr:`asked` only.
        """
        from safevid_core.alignment.tree_attention import TreeMask, way_for

        device = self.token_ids.device
        return {
            "input_ids": self.token_ids,
            "position_ids": self.position_ids,
            "attention_mask": None,
            "tree": TreeMask(
                self.segments,
                self.way or way_for(device),
                device,
                trunk=self.trunk,
                kept=self.kept,
                asked=self.asked[0],
            ),
        }


class ForestCollator:
    """Lays out groups of pairs as a forest. For trl the batch has one row for each response and no prompts.

    Args:
        clips: Store of the videos. Each tree has its video once.
        trunk_positions: :func:`~safevid_core.models.rope.trunk_positions` with the model filled in.
        way: How attention is computed. None chooses by the device.
    """

    def __init__(
        self,
        clips: ClipStore,
        trunk_positions: Callable[[Sequence[int], Sequence[int] | None, Mapping[str, Any]], torch.Tensor],
        way: Way | None = None,
    ) -> None:
        self._clips = clips
        self._trunk_positions = trunk_positions
        self._way = way

    def batch(self, trees: Sequence[Sequence[EncodedPair]]) -> dict[str, Any]:
        """Return the batch of one forward pass over these trees.

        Returns:
            `input_ids` and `completion_mask` `[2B, 1 + A]` of the responses alone. Their first column is a
            placeholder for the prompt. `attention_mask` `[1, N]` serves trl's count of tokens. `forest` is a
            :class:`PackedForest`. The video arguments hold one video for each tree. `pair_ids`, and the
            references if all pairs have them.
        """
        from safevid_core.alignment.positions import forest_positions

        forest = plant(trees)
        positions = forest_positions(
            forest, [self._positions_of(tree[0], common_prefix(tree)) for tree in trees]
        )
        pairs = [pair for tree in trees for pair in tree]
        return {
            **self._answers(forest, positions, pairs),
            **self._clips.batch([tree[0].clip for tree in trees]),
        }

    def trunk(self, pair: EncodedPair, tokens: int, states: TrunkStates) -> dict[str, Any]:
        """Return the batch of a forward pass over the first `tokens` tokens of a prompt.

        Args:
            pair: Any pair of the tree.
            tokens: Length of the trunk.
            states: Receives the keys and values.
        """
        import torch

        positions = self._positions_of(pair, tokens)[:, :-1]
        trunk = PackedForest(
            torch.tensor([pair.prompt_ids[:tokens]]),
            positions if len(positions) == 1 else positions[:, None],
            torch.empty(0, dtype=torch.int64),
            [Segment(0, tokens, tokens, 0, 0)],
            self._way,
            kept=states,
        )
        return {"forest": trunk, **self._clips.batch([pair.clip])}

    def turn(self, tree: Sequence[EncodedPair], tokens: int, states: TrunkStates) -> dict[str, Any]:
        """Return the batch of a forward pass over a tree without its trunk.

        Args:
            tree: The pairs of one turn.
            tokens: Length of the trunk.
            states: Keys and values of the trunk, which an earlier pass computed.
        """
        from safevid_core.alignment.positions import forest_positions

        forest = plant([tree], tokens)
        positions = forest_positions(forest, [self._positions_of(tree[0], tokens)])[..., tokens:]
        return self._answers(forest.branches(), positions, tree, states)

    def _answers(
        self,
        forest: Forest,
        positions: torch.Tensor,
        planted: Sequence[EncodedPair],
        states: TrunkStates | None = None,
    ) -> dict[str, Any]:
        import torch

        pairs = [planted[index] for index in forest.pairs]
        length = 1 + max(map(len, forest.responses))
        return {
            "input_ids": _padded([[0, *answer] for answer in forest.responses], length),
            "completion_mask": _padded([[0, *(1 for _ in answer)] for answer in forest.responses], length),
            "attention_mask": torch.ones(1, len(forest.token_ids), dtype=torch.int64),
            "forest": PackedForest(
                torch.tensor([forest.token_ids]),
                positions,
                torch.tensor([token for predictors in forest.predictors for token in predictors]),
                forest.segments,
                self._way,
                states,
            ),
            **_names_and_references(pairs),
        }

    def _positions_of(self, pair: EncodedPair, length: int) -> torch.Tensor:
        modalities = None if pair.prompt_modalities is None else pair.prompt_modalities[:length]
        return self._trunk_positions(pair.prompt_ids[:length], modalities, self._clips.grids(pair.clip))


class StepCollator:
    """Splits the pairs of one optimizer step into forward passes.

    Args:
        pairs: All pairs that a step may name.
        rows: Collator for packing `none`.
        forests: Collator for packing `pair` and `video`.
        packing: `none`, `pair` or `video`.
        pass_pairs: Maximum number of pairs in a pass with packing `none`.
        pass_tokens: Maximum number of tokens in a pass with the other packings. A single pair may have more.
    """

    def __init__(
        self,
        pairs: Sequence[EncodedPair],
        rows: VideoPreferenceCollator,
        forests: ForestCollator,
        packing: Packing,
        pass_pairs: int,
        pass_tokens: int,
    ) -> None:
        self.pairs, self.packing = pairs, packing
        self._by_id = {pair.pair_id: pair for pair in pairs}
        self._rows, self._forests = rows, forests
        self._pass_pairs, self._pass_tokens = pass_pairs, pass_tokens

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return `passes`: the forward passes over the pairs whose `pair_id` the rows hold (:meth:`cuts`)."""
        return {"passes": self.cuts([self._by_id[row["pair_id"]] for row in rows])}

    def cuts(self, pairs: Sequence[EncodedPair]) -> list[Turns[EncodedPair]]:
        """Return the passes over these pairs.

        Returns:
            One entry for each pass, or for each tree that is computed in turns. An entry with several turns
            shares one trunk, which is computed before the turns.
        """
        if self.packing == "none":
            starts = range(0, len(pairs), self._pass_pairs)
            return [[list(pairs[start : start + self._pass_pairs])] for start in starts]
        return cut_into_turns(pairs, self.packing, self._pass_tokens, share_trunks=process_count() == 1)

    def forward_pass(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """Return the batch of a pass that shares no trunk with another pass."""
        if self.packing == "none":
            return self._rows.batch(pairs)
        return self._forests.batch(cut_into_trees(pairs, self.packing, self._pass_tokens))

    def trunk(self, pair: EncodedPair, tokens: int, states: TrunkStates) -> dict[str, Any]:
        """See :meth:`ForestCollator.trunk`."""
        return self._forests.trunk(pair, tokens, states)

    def turn(self, tree: Sequence[EncodedPair], tokens: int, states: TrunkStates) -> dict[str, Any]:
        """See :meth:`ForestCollator.turn`."""
        return self._forests.turn(tree, tokens, states)


def _names_and_references(pairs: Sequence[EncodedPair]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"pair_ids": [pair.pair_id for pair in pairs]}
    references = [pair.reference for pair in pairs if pair.reference is not None]
    if len(references) == len(pairs):
        found["ref_chosen_logps"], found["ref_rejected_logps"] = torch.tensor(references).unbind(1)
    return found


def _padded(rows: Sequence[list[int]], length: int, value: int = 0) -> torch.Tensor:
    """Return the rows padded on the right with `value`, int64 `[rows, length]`."""
    import torch

    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
