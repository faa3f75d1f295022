"""Second training: tower and projector learn, through the frozen language model, to have a clip described.

The loss is the cross-entropy of the answer's tokens. Its gradient passes through SmolLM2 and changes tower
and projector only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safevid_core.contracts.errors import SafeVidError
from safevid_core.models.families import build_inputs, conversation
from safevid_core.pocket.build.grammar import EVENTS, MOTION_SAID, scene_names
from safevid_core.pocket.build.samples import Samples
from safevid_core.pocket.world import ClipTruth
from safevid_core.small.resuming import Report, Schedule, Training, drawn_rows, plan_hash
from safevid_core.small.vision import seeing_parts
from safevid_core.video.decoding import Frames

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

FAMILY = "llava_next_video"
DESCRIBE = "Describe the video."
# Times of the frames in seconds. LLaVA-NeXT-Video does not read them.
_TIMES_S = [0.0, 0.5, 1.0, 1.5]
_QUESTIONS = {
    "colour": "What colour is the {object}?",
    "object": "Which object does the video show?",
    "event": "What happens to the {object}?",
    "scene": "Where is the {object}?",
}
_ANSWERS = {
    "colour": "The {object} is {colour}.",
    "object": "It is a {colour} {object}.",
    "event": "The {object} {event}.",
    "scene": "The {object} is in {scene}.",
}


class TokenLimitError(SafeVidError, ValueError):
    """A training would read more tokens than its plan allows. The message says how to change the plan."""


@dataclass(frozen=True)
class Reading(Schedule):
    """Length and rate of the second training.

    Attributes:
        described: Share of the examples that ask for a description. The others ask for one attribute.
        most_tokens: Most tokens that the training may read, the prompts and the padding included.
    """

    steps: int = 30
    batch: int = 8
    rate: float = 5e-4
    every: int = 5
    described: float = 0.8
    most_tokens: int = 700_000


@dataclass(frozen=True)
class Exchange:
    """A question about a clip and its true answer."""

    query: str
    answer: str


def description(truth: ClipTruth) -> str:
    """A clip in plain English: "The video shows a red crate in a kitchen. It moves left. It is on fire."."""
    return (
        f"The video shows a {truth.colour} {truth.object} in {scene_names()[truth.scene]}. "
        f"It {MOTION_SAID[truth.motion]}. It {EVENTS[truth.event]}."
    )


def draw_exchange(truth: ClipTruth, rng: random.Random, described: float) -> Exchange:
    """A request for a description, or a question about one attribute."""
    if rng.random() < described:
        return Exchange(DESCRIBE, description(truth))
    kind = rng.choice(list(_QUESTIONS))
    words = {
        "object": truth.object,
        "colour": truth.colour,
        "event": EVENTS[truth.event],
        "scene": scene_names()[truth.scene],
    }
    return Exchange(_QUESTIONS[kind].format(**words), _ANSWERS[kind].format(**words))


def as_frames(pixels: Sequence[np.ndarray]) -> list[Frames]:
    """Decoded frames of each clip, as generation takes them."""
    return [Frames(clip, list(_TIMES_S)) for clip in pixels]


def answer_loss(
    model: PreTrainedModel, processor: ProcessorMixin, exchanges: Sequence[Exchange], videos: Sequence[Frames]
) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy of the answers' tokens, and the number of tokens read, padding included."""
    import torch

    tokenizer = processor.tokenizer
    inputs = build_inputs(FAMILY, processor, [conversation(each.query) for each in exchanges], videos)
    answers = [
        [*tokenizer(each.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        for each in exchanges
    ]
    longest = max(map(len, answers))
    padded = torch.tensor([[*ids, *[tokenizer.eos_token_id] * (longest - len(ids))] for ids in answers])
    is_answer = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in answers])
    ids = torch.cat([inputs["input_ids"], padded], 1)
    mask = torch.cat([inputs["attention_mask"], is_answer], 1)
    hidden = model.model(
        input_ids=ids,
        attention_mask=mask,
        pixel_values_videos=inputs["pixel_values_videos"],
        use_cache=False,
    )[0]
    logits = model.lm_head(hidden[:, -longest - 1 : -1][is_answer.bool()])
    return torch.nn.functional.cross_entropy(logits, padded[is_answer.bool()]), ids.numel()


def learn_reading(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Samples,
    plan: Reading,
    seed: int,
    file: Path,
    report: Report,
    stop: int | None = None,
) -> int:
    """Train tower and projector through the frozen language model. See `Training` for `file` and `stop`.

    Returns:
        The number of tokens that this call read.

    Raises:
        TokenLimitError: If the training reads more than `plan.most_tokens` tokens.
    """

    read = 0

    def loss_of(step: int) -> tuple[torch.Tensor, Mapping[str, float]]:
        nonlocal read
        rng = random.Random(seed * 1_000_003 + step)
        rows = drawn_rows(seed + 1, step, len(samples.truths), plan.batch).tolist()
        exchanges = [draw_exchange(samples.truths[row], rng, plan.described) for row in rows]
        loss, tokens = answer_loss(model, processor, exchanges, as_frames([samples.frames[r] for r in rows]))
        read += tokens
        if read > plan.most_tokens:
            raise TokenLimitError(
                f"step {step} of the second training passes {plan.most_tokens} tokens; give it fewer steps"
            )
        return loss, {}

    model.eval()
    identity = plan_hash("reading/1", plan.__dict__, seed, len(samples.truths))
    Training("reading", seeing_parts(model), plan, file, identity, report).run(loss_of, stop)
    return read
