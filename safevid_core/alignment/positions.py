"""Positions in a forest: a branch goes on where its parent ends, as if it were the only one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.tree import Forest


def trunk_positions(
    backbone: Any, token_ids: Sequence[int], modalities: Sequence[int] | None, grids: Mapping[str, Any]
) -> torch.Tensor:
    """Positions of a trunk's tokens and of the text token that would follow.

    Args:
        backbone: The model under the language head; one with `get_rope_index` has three axes.
        modalities: Which of the `T` tokens are video; None where the family does not say.
        grids: How the trunk's video lies in time and space, as the processor has it.

    Returns:
        int64 `[axes, T + 1]`.
    """
    import torch

    if modalities is None or not hasattr(backbone, "get_rope_index"):
        return torch.arange(len(token_ids) + 1)[None]
    # The text after a video goes on at a place that depends on the video's grid: let the model say where.
    positions, _ = backbone.get_rope_index(
        torch.tensor([[*token_ids, token_ids[-1]]]),
        mm_token_type_ids=torch.tensor([[*modalities, 0]]),
        **grids,
    )
    return positions[:, 0]


def forest_positions(forest: Forest, trunks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Positions of all tokens, from those of each tree's trunk (:func:`trunk_positions`).

    Returns:
        int64 `[1, N]`, with three axes `[3, 1, N]`: as the model's `position_ids`.
    """
    import torch

    parts = []
    for segment in forest.segments:
        trunk = trunks[segment.tree]
        if segment.depth == 0:
            parts.append(trunk[:, :-1])
            continue
        # Beyond the trunk all is text, whose positions are the same on every axis.
        start = int(trunk[0, -1]) + segment.depth - (trunk.shape[1] - 1)
        parts.append(torch.arange(start, start + segment.end - segment.start).expand(len(trunk), -1))
    positions = torch.cat(parts, dim=1)
    return positions if len(positions) == 1 else positions[:, None]
