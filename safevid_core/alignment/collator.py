"""Batches of video preference pairs: chosen rows, then rejected rows, padded right, as trl's loss wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.clips import ClipStore
    from safevid_core.alignment.encoding import EncodedPair


class VideoPreferenceCollator:
    """Joins encoded pairs into one batch of 2 x B rows.

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
        import torch

        pairs = [self._by_id[row["pair_id"]] for row in rows]
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
            "pair_ids": [pair.pair_id for pair in pairs],
        }
        modalities = [pair.prompt_modalities for pair in twice if pair.prompt_modalities is not None]
        if modalities:
            batch["mm_token_type_ids"] = _padded(modalities, length)
        references = [pair.reference for pair in pairs if pair.reference is not None]
        if len(references) == len(pairs):
            batch["ref_chosen_logps"], batch["ref_rejected_logps"] = torch.tensor(references).unbind(1)
        return batch


def _padded(rows: Sequence[list[int]], length: int, value: int = 0) -> torch.Tensor:
    """int64 `[rows, length]`."""
    import torch

    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
