"""First training: tower and projector learn to spell what a frame shows in SmolLM2's own word embeddings.

The language model does not take part. A visual token of a frame should lie near the input embedding of one
word, so that the frozen language model reads a clip as it reads text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safevid_core.pocket.build.samples import FRAMES, Samples
from safevid_core.pocket.build.vision import pixels_of, possible_values
from safevid_core.small.resuming import Report, Schedule, Training, drawn_rows, plan_hash
from safevid_core.small.words import label_rows, possible_tokens, slots_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, ProcessorMixin

# Distances are divided by this share of the embedding's mean squared length before the softmax.
_WIDTH = 0.06
_PULL = 0.2


@dataclass(frozen=True)
class Spelling(Schedule):
    """Length and rate of the first training. A batch holds single frames."""

    steps: int = 3000
    batch: int = 48
    rate: float = 1.5e-3
    every: int = 250


def seeing_parts(model: PreTrainedModel) -> nn.ModuleDict:
    """Tower and projector: all that is trained here."""
    from torch import nn

    return nn.ModuleDict({"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector})


def freeze_language(model: PreTrainedModel) -> None:
    """Let no gradient reach the weights of the language model."""
    model.requires_grad_(False)
    seeing_parts(model).requires_grad_(True)


def visual_tokens(model: PreTrainedModel, frames: torch.Tensor) -> torch.Tensor:
    """Visual tokens of single frames: float `[B, TOKENS_A_FRAME, hidden]`.

    Args:
        frames: Pixels as from the processor, `[B, 3, side, side]`.
    """
    import torch

    features = model.model.get_video_features(frames[:, None]).pooler_output
    return torch.stack([part.reshape(-1, part.shape[-1]) for part in features])


def learn_spelling(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Samples,
    plan: Spelling,
    seed: int,
    file: Path,
    report: Report,
    stop: int | None = None,
) -> None:
    """Train tower and projector on single frames. See `Training` for `file` and `stop`."""
    import torch

    pixels = pixels_of(processor, samples.frames)["pixel_values_videos"]
    pixels = pixels.reshape(len(samples.truths), FRAMES, *pixels.shape[-3:])
    slots = slots_of(processor.tokenizer)
    labels = label_rows(samples, slots)
    allowed = possible_tokens(possible_values(samples), slots)
    table = model.get_input_embeddings().weight.detach()
    targets = [table[slot.tokens] for slot in slots]
    length = torch.cat(targets).pow(2).sum(1).mean()

    def loss_of(step: int) -> tuple[torch.Tensor, Mapping[str, float]]:
        rows = drawn_rows(seed, step, len(labels), plan.batch)
        generator = torch.Generator().manual_seed(seed + 7919 * step)
        frames = pixels[rows, torch.randint(FRAMES, (len(rows),), generator=generator)]
        tokens = visual_tokens(model, frames)
        loss, right = tokens.new_zeros(()), {}
        for place, slot in enumerate(slots):
            distance = (tokens[:, place, None] - targets[place][None]).pow(2).sum(-1) / length
            wanted = labels[rows, place]
            logits = -distance / _WIDTH + allowed[place][rows]
            loss = loss + torch.nn.functional.cross_entropy(logits, wanted)
            loss = loss + _PULL * distance[torch.arange(len(rows)), wanted].mean()
            if place == 0 or slots[place - 1].attribute != slot.attribute:
                right[slot.attribute] = float((logits.argmax(1) == wanted).float().mean())
        return loss, right

    model.train()
    identity = plan_hash("spelling/1", plan.__dict__, seed, len(samples.truths))
    Training("spelling", seeing_parts(model), plan, file, identity, report).run(loss_of, stop)
    model.eval()
