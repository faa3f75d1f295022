"""Token ids of prompts about one video. Training and shared generation use the same."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safevid_core.models.families import Family, build_inputs, prompt_text
from safevid_core.video.decoding import Frames

if TYPE_CHECKING:
    import torch

# Processor outputs with one row for each prompt. All other outputs belong to the videos.
_TOKEN_COLUMNS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True)
class Prompt:
    """One prompt as token ids.

    Attributes:
        ids: The tokens, with the placeholder tokens of the video.
        modalities: For each token 1 or 2 if it is image or video, else 0. None if the family has no such
            column.
        video_end: Index of the first token after the video. 0 without a video.
    """

    ids: list[int]
    modalities: list[int] | None
    video_end: int = 0


def encode_prompts(
    family: str | Family,
    processor: Any,
    conversations: Sequence[list[dict[str, Any]]],
    frames: Frames | None,
    *,
    as_images: bool = False,
) -> tuple[list[Prompt], dict[str, torch.Tensor]]:
    """Return the ids of all prompts about one video, and the model inputs of the video.

    The processor would process the video once for each prompt. To save time it processes the first two
    prompts only. The other prompts are the beginning of the first, with the video, and their own text. The
    second prompt checks this: if the shortcut does not give its ids, the processor processes all prompts.

    Args:
        family: A family or its name.
        processor: The processor of the checkpoint.
        conversations: The conversations. Only the text of the user may differ.
        frames: The video. None if the conversations have none.
        as_images: See :func:`~safevid_core.models.families.build_inputs`.
    """
    visual_ids = {getattr(processor, name, None) for name in ("video_token_id", "image_token_id")}

    def processed(some: Sequence[list[dict[str, Any]]]) -> tuple[list[_Ids], dict[str, torch.Tensor]]:
        return _processed(family, processor, some, frames, as_images)

    if frames is None or len(conversations) < 3:
        encoded, clip = processed(conversations)
    else:
        (first, second), clip = processed(conversations[:2])
        texts = [prompt_text(processor, each) for each in conversations]
        plain = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        others = [_with_prefix_of(first, plain[0], each) for each in plain[1:]]
        if others[0] != second or None in others:
            encoded, clip = processed(conversations)
        else:
            encoded = [first, *(other for other in others if other is not None)]
    return [Prompt(ids, modalities, _video_end(ids, visual_ids)) for ids, modalities in encoded], clip


def common_prefix_length(sequences: Sequence[list[int]]) -> int:
    """Return the length of the longest common prefix of all sequences."""
    least, greatest = min(sequences), max(sequences)  # their common prefix is that of all sequences
    shorter = range(min(len(least), len(greatest)))
    return bisect.bisect_left(shorter, True, key=lambda end: least[: end + 1] != greatest[: end + 1])


def on_device(inputs: Mapping[str, Any], loaded: Any) -> dict[str, Any]:
    """Return model inputs on the device of a model, and pixels in its number format."""

    def placed(value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return value.to(loaded.device, loaded.dtype if value.is_floating_point() else None)

    return {name: placed(value) for name, value in inputs.items()}


# Token ids of a prompt, and for each token whether it is image or video.
_Ids = tuple[list[int], list[int] | None]


def _video_end(ids: list[int], visual_ids: set[int | None]) -> int:
    return max((index + 1 for index, token in enumerate(ids) if token in visual_ids), default=0)


def _with_prefix_of(first: _Ids, first_plain: list[int], plain: list[int]) -> _Ids | None:
    """Return a prompt that starts like `first`, with its video tokens, and ends like `plain`.

    Args:
        first: A processed prompt about the same clip.
        first_plain: Ids of its text, in which one placeholder stands for the video.
        plain: Ids of the text of the wanted prompt.

    Returns:
        None if the two texts do not begin alike.
    """
    ids, modalities = first
    pairs = zip(reversed(ids), reversed(first_plain), strict=False)
    alike = len(list(itertools.takewhile(lambda two: two[0] == two[1], pairs)))
    beginning, begins = len(ids) - alike, len(first_plain) - alike
    if plain[:begins] != first_plain[:begins]:
        return None
    rest = plain[begins:]
    if modalities is None:
        return [*ids[:beginning], *rest], None
    # The common ending may begin within the video, because all video tokens are the same.
    video = sum(1 for each in modalities[beginning:] if each)
    return [*ids[:beginning], *rest], [*modalities[: beginning + video], *(0 for _ in rest[video:])]


def _processed(
    family: str | Family,
    processor: Any,
    conversations: Sequence[list[dict[str, Any]]],
    frames: Frames | None,
    as_images: bool,
) -> tuple[list[_Ids], dict[str, torch.Tensor]]:
    """Return the processor's ids and modalities of the conversations, and one copy of the video's inputs."""
    import torch

    count = len(conversations)
    inputs = build_inputs(family, processor, conversations, [frames] * count, as_images=as_images)
    shown = inputs["attention_mask"].bool()
    ids, modalities = inputs["input_ids"], inputs.get("mm_token_type_ids")
    encoded = [
        (ids[row][shown[row]].tolist(), None if modalities is None else modalities[row][shown[row]].tolist())
        for row in range(count)
    ]
    clip = {name: torch.as_tensor(value) for name, value in inputs.items() if name not in _TOKEN_COLUMNS}
    return encoded, {name: value[: len(value) // count].clone() for name, value in clip.items()}
