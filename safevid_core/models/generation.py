"""Generates responses of a local model in batches of padded rows. Each row computes its own video.

:mod:`safevid_core.models.shared_generation` gives the same responses and computes a video once for all
questions about it. A local chat uses this module for the other questions:

- a question without a video, and the only question about a video,
- questions whose prompts differ before the end of the video, and
- questions to a model that cannot share, such as one with sliding-window attention
  (:func:`~safevid_core.models.shared_generation.can_share`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safevid_core.models.families import build_inputs
from safevid_core.models.prompts import on_device
from safevid_core.models.sampling import gumbel_noise, repetition_penalty
from safevid_core.models.thinking import is_thinking_token
from safevid_core.settings import VideoModel
from safevid_core.video.decoding import Frames


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated answer. `finish_reason` is `stop`, or `length` if the limit cut it."""

    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int


def generate(
    model: VideoModel,
    loaded: Any,
    processor: Any,
    conversations: Sequence[list[dict[str, Any]]],
    videos: Sequence[Frames | None],
    keys: Sequence[str],
    *,
    as_images: bool = False,
) -> list[Generated]:
    """Return the answers of a batch, greedy at temperature 0, else sampled with noise drawn from each key.

    Args:
        model: Settings of the model.
        loaded: The model.
        processor: Its processor.
        conversations: The conversation of each row.
        videos: The video of each row.
        keys: Key of each question, the seed of its noise.
        as_images: See :func:`~safevid_core.models.families.build_inputs`.
    """
    generated = generate_ids(model, loaded, processor, conversations, videos, keys, as_images=as_images)
    return [read_ids(processor, loaded, ids, given) for given, ids in generated]


def generate_ids(
    model: VideoModel,
    loaded: Any,
    processor: Any,
    conversations: Sequence[list[dict[str, Any]]],
    videos: Sequence[Frames | None],
    keys: Sequence[str],
    *,
    as_images: bool = False,
) -> list[tuple[int, list[int]]]:
    """Return the number of prompt tokens and the generated tokens of each row.

    Padding follows the end token. The arguments are those of :func:`generate`.
    """
    import torch

    inputs = build_inputs(model.family, processor, conversations, videos, as_images=as_images)
    inputs = on_device(inputs, loaded)
    prompt_length = inputs["input_ids"].shape[1]
    processors = repetition_penalty(model.repetition_penalty, prompt_length)
    if model.temperature > 0:
        processors.append(gumbel_noise(model.temperature, keys, loaded.device))
    with torch.inference_mode():
        out = loaded.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=model.max_new_tokens,
            logits_processor=processors,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    answers = out[:, prompt_length:].tolist()
    given = inputs["attention_mask"].sum(1).tolist()
    return [(int(n), ids) for n, ids in zip(given, answers, strict=True)]


def read_ids(processor: Any, loaded: Any, ids: list[int], given: int) -> Generated:
    """Return the response in generated tokens, up to the end token.

    Args:
        processor: The processor of the checkpoint.
        loaded: The model.
        ids: The generated tokens.
        given: Number of prompt tokens.
    """
    ends = loaded.generation_config.eos_token_id
    stops = set(ends) if isinstance(ends, list) else {ends}
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    content = ids if end is None else ids[:end]
    text = _decoded(processor.tokenizer, content).strip()
    return Generated(text, "length" if end is None else "stop", given, len(content) + (end is not None))


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    """The text of token ids without special tokens, but with those that mark thinking."""
    special = {
        place: token.content for place, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    marks = {place for place, token in special.items() if is_thinking_token(token)}
    if marks.isdisjoint(ids):
        return str(tokenizer.decode(ids, skip_special_tokens=True))
    kept = [each for each in ids if each in marks or each not in special]
    return str(tokenizer.decode(kept, skip_special_tokens=False))
