"""Position ids of a forest. Each branch continues from the last position of its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.tree import Forest


def trunk_positions(
    backbone: Any, token_ids: Sequence[int], modalities: Sequence[int] | None, grids: Mapping[str, Any]
) -> torch.Tensor:
    """Return the positions of the T tokens of a trunk and of the text token that would follow.

    Args:
        backbone: The model without its language head. A model with `get_rope_index` has three axes.
        token_ids: The T tokens.
        modalities: For each token 1 if it is video. None if the family has no such column.
        grids: The time and space grid of the video, as the processor returns it.

    Returns:
        int64 `[axes, T + 1]`.
    """
    import torch

    if modalities is None or not hasattr(backbone, "get_rope_index"):
        return torch.arange(len(token_ids) + 1)[None]
    # The position of the text after a video depends on the video's grid, so the model computes it.
    positions, _ = backbone.get_rope_index(
        torch.tensor([[*token_ids, token_ids[-1]]]),
        mm_token_type_ids=torch.tensor([[*modalities, 0]]),
        **grids,
    )
    return positions[:, 0]


def forest_positions(forest: Forest, trunks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the positions of all tokens of a forest.

    Args:
        forest: A forest of N tokens.
        trunks: For each tree the positions of its trunk (:func:`trunk_positions`).

    Returns:
        The model's `position_ids`: int64 `[1, N]`, or `[3, 1, N]` with three axes.
    """
    import torch

    parts = []
    for segment in forest.segments:
        trunk = trunks[segment.tree]
        if segment.depth == 0:
            parts.append(trunk[:, :-1])
            continue
        # All tokens after the trunk are text. A text token has the same position on each axis.
        start = int(trunk[0, -1]) + segment.depth - (trunk.shape[1] - 1)
        parts.append(torch.arange(start, start + segment.end - segment.start).expand(len(trunk), -1))
    positions = torch.cat(parts, dim=1)
    return positions if len(positions) == 1 else positions[:, None]
