"""How a local model chooses the next token: greedy, or sampled with noise of the question's own.

A sampled response does not depend on the other questions of its batch, because each row draws from a
generator that is seeded by the key of its question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def repetition_penalty(penalty: float, prompt_length: int) -> list[Any]:
    """Return transformers' processor of the repetition penalty on generated tokens. Empty if it is 1.

    `generate(repetition_penalty=...)` also penalises the words of the prompt, which a response has to repeat.

    Args:
        penalty: The factor.
        prompt_length: Number of leading tokens of each row that belong to the prompt.
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    if penalty == 1:
        return []
    return [RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=prompt_length)]


def generators_of(keys: Sequence[str], device: Any) -> list[torch.Generator]:
    """Return one source of noise for each question, seeded by its key (hexadecimal)."""
    import torch

    return [torch.Generator(device=device).manual_seed(int(key[:15], 16)) for key in keys]


def with_gumbel_noise(
    scores: torch.Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """Return scores whose argmax is a sample of the softmax at this temperature.

    Args:
        scores: Logits, `[B, vocabulary]`.
        temperature: The temperature, above 0.
        generators: The source of noise of each row.
    """
    import torch

    uniform = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
    for row, generator in zip(uniform, generators, strict=True):
        row.uniform_(generator=generator)
    return scores.float() / temperature - torch.log(-torch.log(uniform.clamp_min(1e-20)))


def gumbel_noise(temperature: float, keys: Sequence[str], device: Any) -> Any:
    """Return :func:`with_gumbel_noise` as a logits processor of `generate`, for rows with these keys."""
    from transformers import LogitsProcessor

    generators = generators_of(keys, device)

    class GumbelNoise(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return with_gumbel_noise(scores, temperature, generators)

    return GumbelNoise()
