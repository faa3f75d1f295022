"""First training: the vision tower and the projector learn what frames show, without text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from safevid_core.pocket.build.architectures import (
    HIDDEN,
    INTERNVL,
    QWEN,
    TOKENS_A_GROUP,
    visual_tokens,
)
from safevid_core.pocket.build.optimisation import Optimiser, Shuffle
from safevid_core.pocket.build.samples import BLANK_SHADES, FRAMES, Samples
from safevid_core.pocket.world import COLOURS, EVENTS, OBJECTS, SCENES, split_of_combination

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

ATTRIBUTES = {
    "object": OBJECTS,
    "colour": COLOURS,
    "event": tuple(EVENTS),
    "scene": SCENES,
}

Report = Callable[[str], None]


@dataclass(frozen=True)
class WarmUp:
    """Length and rate of the vision tower's training."""

    steps: int = 1500
    batch: int = 48
    rate: float = 2e-3


def pixels_of(processor: ProcessorMixin, frames: np.ndarray, batch: int = 256) -> dict[str, torch.Tensor]:
    """The processor's output for uint8 `[N, FRAMES, H, W, 3]`: tensors with one row for each clip."""
    import torch

    parts: list[dict[str, torch.Tensor]] = []
    for start in range(0, len(frames), batch):
        chunk = list(frames[start : start + batch])
        made = processor.video_processor(videos=chunk, return_tensors="pt")
        parts.append({name: value for name, value in made.items() if isinstance(value, torch.Tensor)})
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: value.reshape(len(frames), -1, *value.shape[1:]) for name, value in joined.items()}


def model_pixels(
    family: str, pixels: dict[str, torch.Tensor], rows: torch.Tensor, group: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The forward arguments for some clips of `pixels_of`. With `group` `[rows]`, for one group of each clip.

    Args:
        rows: Indices of the clips, int64 `[rows]`.
    """
    import torch

    if family == QWEN:
        patches, grid = pixels["pixel_values_videos"][rows], pixels["video_grid_thw"][rows].flatten(0, 1)
        if group is not None:
            split = patches.unflatten(1, (groups_of(family), -1))
            patches, grid = split[torch.arange(len(rows)), group], grid.clone()
            grid[:, 0] = 1
        return {"pixel_values_videos": patches.flatten(0, 1), "video_grid_thw": grid}
    frames = pixels["pixel_values_videos"][rows].flatten(1, 2)
    if group is not None:
        frames = frames[torch.arange(len(rows)), group][:, None]
    if family == INTERNVL:
        return {"pixel_values": frames.flatten(0, 1)}
    return {"pixel_values_videos": frames}


def groups_of(family: str) -> int:
    """The number of groups of visual tokens of a clip."""
    return FRAMES // 2 if family == QWEN else FRAMES


def labels_of(samples: Samples) -> dict[str, torch.Tensor]:
    """Attribute -> class number of each clip, `[N]`."""
    import torch

    return {
        name: torch.tensor([values.index(getattr(truth, name)) for truth in samples.truths])
        for name, values in ATTRIBUTES.items()
    }


def possible_values(samples: Samples) -> dict[str, torch.Tensor]:
    """Attribute -> a term to add to its logits, `[N, values]`: 0, or -inf for values the build side lacks.

    With a given object and event, only some colours occur on the build side. The colour of a corpus clip is
    never one of them. Without the impossible values in the loss, the model gains nothing by guessing an
    attribute from the others (logit adjustment, Menon et al. 2021).
    """
    import torch

    possible = {name: torch.zeros(len(samples.truths), len(values)) for name, values in ATTRIBUTES.items()}
    for row, truth in enumerate(samples.truths):
        for name in ("object", "colour", "event"):
            for column, value in enumerate(ATTRIBUTES[name]):
                other = replace(truth, **{name: value})
                if split_of_combination(other.object, other.colour, other.event) != "build":
                    possible[name][row, column] = -torch.inf
    return possible


def warm_up(
    family: str,
    model: PreTrainedModel,
    pixels: dict[str, torch.Tensor],
    samples: Samples,
    plan: WarmUp,
    seed: int,
    report: Report,
) -> None:
    """Train tower and projector so that the mean of a frame's visual tokens predicts its attributes.

    The heads are temporary. A frame does not show its motion. The tokens learn the position of the object's
    centre instead, as an angle on the ring along each axis, so that the language model can compare frames. In
    Qwen2.5-VL, which sees two frames at once, they learn the motion too.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    labels, possible = labels_of(samples), possible_values(samples)
    names = list(ATTRIBUTES)
    heads = nn.ModuleDict({name: nn.Linear(HIDDEN, len(ATTRIBUTES[name])) for name in names})
    groups = groups_of(family)
    angles = 2 * torch.pi * torch.from_numpy(samples.centres).reshape(len(samples.truths), groups, -1)
    centres = torch.cat([angles.sin(), angles.cos()], -1)
    place = nn.Linear(HIDDEN, centres.shape[-1])
    nearness = torch.from_numpy(nearness_of(samples.centres)).unflatten(1, (groups, -1)).transpose(2, 3)
    near = nn.Linear(HIDDEN, nearness.shape[-1])
    learnt = [part for name, part in model.model.named_children() if name != "language_model"]
    optimiser = Optimiser([*learnt, heads, place, near], plan.rate, plan.steps)
    began, order = time.monotonic(), Shuffle(len(samples.truths), seed)
    right = dict.fromkeys(names, 0.0)
    model.train()
    for step in range(plan.steps):
        rows, group = order.take(plan.batch), torch.randint(groups, (plan.batch,))
        seen = visual_tokens(family, model, model_pixels(family, pixels, rows, group))
        mean = seen.mean(1)
        loss = 5.0 * nn.functional.mse_loss(place(mean), centres[rows, group])
        loss = loss + 10.0 * nn.functional.mse_loss(near(seen), nearness[rows, group])
        for name in names:
            logits, wanted = heads[name](mean), labels[name][rows]
            loss = loss + nn.functional.cross_entropy(logits + possible[name][rows], wanted)
            share = float((logits.argmax(-1) == wanted).float().mean())
            right[name] += (share - right[name]) * 0.03
        optimiser.step(loss)
        if (step + 1) % 250 == 0 or step + 1 == plan.steps:
            shares = " ".join(f"{name} {share:.2f}" for name, share in right.items())
            seconds = time.monotonic() - began
            report(f"{family} vision {step + 1}/{plan.steps} loss {loss.item():.2f} {shares} {seconds:.0f} s")


def nearness_of(centres: np.ndarray) -> np.ndarray:
    """How near each token's cell is to the object on the ring, 0 to 1: `[N, FRAMES, TOKENS_A_GROUP]`.

    Args:
        centres: x and y as shares of the side, `[N, FRAMES, 2]`.
    """
    import numpy as np

    side = int(TOKENS_A_GROUP**0.5)
    middles = (np.arange(side) + 0.5) / side
    cells = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
    away = np.abs(centres[:, :, None] - cells)
    away = np.minimum(away, 1 - away)
    near: np.ndarray = np.exp(-(away**2).sum(-1) / 0.2**2).astype(np.float32)
    return near


def features_of(
    family: str, model: PreTrainedModel, pixels: dict[str, torch.Tensor], batch: int = 64
) -> torch.Tensor:
    """Visual tokens of each clip: float `[N, groups * tokens, HIDDEN]`, without gradient."""
    import torch

    model.eval()
    count = len(next(iter(pixels.values())))
    parts = []
    with torch.no_grad():
        for start in range(0, count, batch):
            rows = torch.arange(start, min(start + batch, count))
            tokens = visual_tokens(family, model, model_pixels(family, pixels, rows))
            parts.append(tokens.reshape(len(rows), -1, HIDDEN))
    return torch.cat(parts)


def blank_frames(side: int) -> np.ndarray:
    """Clips of one plain shade each: uint8 `[len(BLANK_SHADES), FRAMES, side, side, 3]`."""
    import numpy as np

    return np.stack([np.full((FRAMES, side, side, 3), shade, np.uint8) for shade in BLANK_SHADES])
