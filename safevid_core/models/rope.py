"""Position ids of Qwen2.5-VL, as in the training of the model.

The grids of a video are spaced by real seconds, and the text after a video continues from the largest
position so far. vLLM computes positions this way. transformers 4.57.3 does so for whole seconds only: it
truncates the seconds between two grids to an integer, so grids half a second apart have the same position.

transformers 5.23 continues the text from the side of a grid. Example: 4 grids 5 s apart are at 3, 13, 23 and
33. The model was trained with the question at 34, and transformers 5.23 puts it at 7, inside the video.

Training, reference and generation take their positions from the model, so this module corrects the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import groupby
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_TEXT, _VIDEO = 0, 2


def space_as_trained(model: Any) -> None:
    """Replace `get_rope_index` of a loaded Qwen2.5-VL. Models of other families are not changed."""
    backbone: Any = getattr(model, "model", None)
    stock = getattr(backbone, "get_rope_index", None)
    if getattr(model.config, "model_type", "") != "qwen2_5_vl" or stock is None:
        return
    if "mm_token_type_ids" in inspect.signature(stock).parameters:
        backbone.get_rope_index = MethodType(rope_index, backbone)


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


def rope_index(
    backbone: Any,
    input_ids: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    image_grid_thw: torch.Tensor | None = None,
    video_grid_thw: torch.Tensor | None = None,
    second_per_grid_ts: Any = None,
    attention_mask: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return time, height and width of each token. The signature is that of transformers' `get_rope_index`.

    Args:
        backbone: The model without its language head.
        input_ids: `[B, S]`.
        mm_token_type_ids: 0 text, 1 image, 2 video, `[B, S]`.
        image_grid_thw: Patches of each image in time, height and width, `[images, 3]`.
        video_grid_thw: Patches of each video in time, height and width, `[videos, 3]`.
        second_per_grid_ts: Seconds between two grids of each video, `[videos]`. None means 1.
        attention_mask: 0 for padding tokens, `[B, S]`. None means no padding.

    Returns:
        The positions, int64 `[3, B, S]`, and the next position minus the number of tokens, `[B, 1]`.
    """
    import torch

    grids = {1: iter(image_grid_thw if image_grid_thw is not None else ()),
             _VIDEO: iter(video_grid_thw if video_grid_thw is not None else ())}  # fmt: skip
    seconds = iter(second_per_grid_ts) if second_per_grid_ts is not None else None
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
    deltas = []
    for row, kinds in enumerate(mm_token_type_ids):
        here = slice(None) if attention_mask is None else attention_mask[row].bool()
        parts: list[torch.Tensor] = []
        begins = 0
        for kind, group in groupby(kinds[here].tolist()):
            count = len(list(group))
            while count > 0:
                if kind == _TEXT:
                    part = torch.arange(count).expand(3, -1)
                else:
                    interval = _interval(backbone, seconds) if kind == _VIDEO else 1
                    part = _grid_positions(backbone, next(grids[kind]), interval)
                parts.append(part + begins)
                begins = int(parts[-1].max()) + 1
                count -= part.shape[1]
        placed = torch.cat(parts, dim=1) if parts else torch.zeros(3, 0, dtype=torch.long)
        positions[:, row, here] = placed.to(positions.device)
        deltas.append(begins - placed.shape[1])
    return positions, torch.tensor(deltas, device=input_ids.device)[:, None]


def _interval(backbone: Any, seconds: Any) -> Any:
    """Return the number of positions between two grids of the next video."""
    return backbone.config.vision_config.tokens_per_second * (1 if seconds is None else next(seconds))


def _grid_positions(backbone: Any, grid: Any, interval: Any) -> torch.Tensor:
    """Return the positions of the tokens of one image or video, starting at 0: `[3, tokens]`."""
    import torch

    merged = backbone.config.vision_config.spatial_merge_size
    times, rows, columns = (int(each) for each in grid)
    axes = (
        (torch.arange(times) * float(interval)).long(),
        torch.arange(rows // merged),
        torch.arange(columns // merged),
    )
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
