"""Position ids of a forest. Each branch continues from the last position of its parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.tree import Forest


def forest_positions(forest: Forest, trunks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the positions of all tokens of a forest.

    Args:
        forest: A forest of N tokens.
        trunks: For each tree the positions of its trunk (:func:`~safevid_core.models.rope.trunk_positions`).

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
