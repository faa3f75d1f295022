"""Batches of video preference pairs, as padded rows or as a forest, in the form that trl's loss takes."""

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
    """Joins encoded pairs into one batch of 2 x B rows: chosen, then rejected, padded on the right.

    Args:
        pairs: Every pair that a batch may name.
        clips: Gives each row's video; chosen and rejected see the same one.
        pad_token_id: Fills rows up to the longest.
    """

    def __init__(self, pairs: Sequence[EncodedPair], clips: ClipStore, pad_token_id: int) -> None:
        self.pairs = pairs
        self._by_id = {pair.pair_id: pair for pair in pairs}
        self._clips = clips
        self._pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of the pairs that the rows name by `pair_id`.

        Returns:
            int64 token columns `[2B, S]`, video arguments, `pair_ids`, and, where all pairs carry their
            reference, `ref_chosen_logps` and `ref_rejected_logps` `[B]`.
        """
        return self.batch([self._by_id[row["pair_id"]] for row in rows])

    def batch(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """The batch of these pairs."""
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
    """A forest as the model reads it.

    Attributes:
        token_ids: int64 `[1, N]`.
        position_ids: int64 `[1, N]` or `[3, 1, N]`.
        predictors: int64 `[M]`: the tokens that predict the answers' tokens, answer by answer.
        segments: Who sees whom.
        way: How attention is computed; None is what suits the device.
        trunk: What the forest's tokens see beside their own.
        kept: Where the forest's keys and values are kept, for a forest that is a trunk.
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
        """The predicting tokens, each once and in order, and for each predictor its place among them."""
        asked, places = self.predictors.unique(return_inverse=True)
        return asked, places

    def arguments(self) -> dict[str, Any]:
        """Arguments of a model whose language model attends by :mod:`tree_attention`.

        Its last hidden states are those of the asked tokens.
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
    """Plants groups of pairs as a forest. To trl the batch has one row an answer, and no prompts.

    Args:
        clips: Gives each tree's video, once.
        trunk_positions: As :func:`~safevid_core.alignment.positions.trunk_positions`, for one model.
        way: How attention is computed. Defaults to what suits the device.
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
        """A forward pass over these trees.

        Returns:
            `input_ids` and `completion_mask` `[2B, 1 + A]` of the answers alone, behind a column that
            stands for what precedes them; `attention_mask` `[1, N]`, for trl's count of tokens; `forest`;
            video arguments with one video a tree; `pair_ids`, and the references if all pairs have them.
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
        """A forward pass over the first tokens of a prompt, whose keys and values `states` keeps."""
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
        """A forward pass over a tree without its trunk of so many tokens, which was computed before."""
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
        length = 1 + max(map(len, forest.answers))
        return {
            "input_ids": _padded([[0, *answer] for answer in forest.answers], length),
            "completion_mask": _padded([[0, *(1 for _ in answer)] for answer in forest.answers], length),
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
    """The pairs of one optimizer step as forward passes.

    Args:
        pairs: Every pair that a step may name.
        rows: For `packing` none.
        forests: For the other packings.
        pass_pairs: Most pairs of a pass without packing.
        pass_tokens: Most tokens of a pass with packing; a single pair may have more.
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
        """`passes`: how the pairs that the rows name by `pair_id` go through the model."""
        return {"passes": self.cuts([self._by_id[row["pair_id"]] for row in rows])}

    def cuts(self, pairs: Sequence[EncodedPair]) -> list[Turns[EncodedPair]]:
        """These pairs by pass; passes that come as turns share a trunk, which is computed before them."""
        if self.packing == "none":
            starts = range(0, len(pairs), self._pass_pairs)
            return [[list(pairs[start : start + self._pass_pairs])] for start in starts]
        return cut_into_turns(pairs, self.packing, self._pass_tokens, share_trunks=process_count() == 1)

    def forward_pass(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """The batch of one pass that shares no trunk with another."""
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
    """int64 `[rows, length]`."""
    import torch

    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
