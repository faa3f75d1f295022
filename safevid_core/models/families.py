"""The families of video language models: their differences, and functions that build their inputs.

Training and generation both build their inputs here, so a model is aligned on the prompts of generation.
:mod:`safevid_core.video.decoding` decodes the frames, and the processor receives arrays. A processor that
opens the file itself chooses other frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safevid_core.contracts.errors import SafeVidError
from safevid_core.video.decoding import Frames

if TYPE_CHECKING:
    import torch


class FamilyError(SafeVidError, ValueError):
    """The family is not in the table. The message lists the known families."""


@dataclass(frozen=True)
class Family:
    """How one family receives a video.

    The checkpoint's processor determines the chat template and the size of the frames. A server receives
    frames as a list of images for all families.

    Attributes:
        name: `model_type` of the family in transformers.
        pixels: Name of the model input that holds the frames.
        rows_a_video: Whether `pixels` has one row for each video. If false, it has the rows of all videos one
            after the other.
        feature_key: Key of cached vision features in `mm_encoder_outputs`.
        timed: Whether the model receives the times of the frames. Defaults to false.
        frame_side: Maximum length in pixels of the longer side of a frame that is sent to a server. The
            family's processor would scale a larger frame down to it. Defaults to 672.
        projector: Path of the module that turns vision features into tokens, below the language head.
    """

    name: str
    pixels: str
    rows_a_video: bool
    feature_key: str
    timed: bool = False
    frame_side: int = 672
    projector: str = "multi_modal_projector"


FAMILIES = {
    family.name: family
    for family in (
        # 672 is the largest image grid of LLaVA-NeXT. Frames of a video are scaled to 336.
        Family("llava_next_video", "pixel_values_videos", rows_a_video=True, feature_key="video"),
        # 776 is the side of a square with 768 tokens of 28 x 28 pixels, the maximum that qwen-vl-utils allows
        # for a frame.
        Family(
            "qwen2_5_vl",
            "pixel_values_videos",
            rows_a_video=False,
            feature_key="video",
            timed=True,
            frame_side=776,
            projector="visual.merger",
        ),
        # InternVL receives a video as images: `pixel_values` with one row, one tile of 448, for each frame.
        Family("internvl", "pixel_values", rows_a_video=False, feature_key="image", frame_side=448),
    )
}


def family_of(name: str) -> Family:
    """Return the family with this name.

    Raises:
        FamilyError: If the name is unknown.
    """
    if name not in FAMILIES:
        raise FamilyError(
            f"no model family {name!r}; set the model's `family` to one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def conversation(
    prompt: str, *, system: str | None = None, video: bool = True, image: bool = False
) -> list[dict[str, Any]]:
    """Return the chat messages of one question, in the form of `apply_chat_template`.

    The video or image comes before the text.

    Args:
        prompt: The question.
        system: The system message. None means no system message.
        video: Whether the question has a video or an image. Defaults to true.
        image: Whether it is an image. Defaults to false, a video.
    """
    asked = [{"type": "image" if image else "video"}] if video else []
    user = {"role": "user", "content": [*asked, {"type": "text", "text": prompt}]}
    if system is None:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, user]


def build_inputs(
    family: str | Family,
    processor: Any,
    conversations: Sequence[list[dict[str, Any]]],
    videos: Sequence[Frames | None],
    *,
    as_images: bool = False,
) -> dict[str, torch.Tensor]:
    """Return the model inputs of B prompts, padded on the left. Each prompt ends where the response begins.

    Args:
        family: A family or its name.
        processor: The processor of the checkpoint.
        conversations: B conversations from :func:`conversation`.
        videos: The frames of each conversation, or None for one without a video. All or none must have one.
        as_images: Whether to pass the first frame of each video as an image. Most families treat an image
            differently from a video of one frame. Defaults to false.

    Returns:
        `input_ids` and `attention_mask` `[B, S]`, and the processor's inputs for the videos.

    Raises:
        FamilyError: If the family is unknown.
        ValueError: If only some conversations have a video.
    """
    family = family_of(family) if isinstance(family, str) else family
    shown = [video for video in videos if video is not None]
    if len(videos) != len(conversations) or len(shown) not in (0, len(conversations)):
        raise ValueError("a batch must have a video for each conversation, or for none")
    texts = [prompt_text(processor, messages) for messages in conversations]
    arguments: dict[str, Any] = {}
    if shown and as_images:
        arguments = {"images": [[video.pixels[0]] for video in shown]}
    elif shown:
        arguments = {
            "videos": [video.pixels for video in shown],
            "video_metadata": [_metadata(video) for video in shown],
            "do_sample_frames": False,
        }
    inputs = processor(
        text=texts,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=_wants_start(processor, texts),
        **arguments,
    )
    return {name: value for name, value in inputs.items() if name != "token_type_ids"}


def prompt_text(processor: Any, messages: list[dict[str, Any]]) -> str:
    """Return the chat template's text of a conversation, up to where the response begins.

    Control tokens in the messages are broken up, so a query or a description cannot act as one.
    """
    special = _special_tokens(processor)
    safe = [{**message, "content": _without(special, message["content"])} for message in messages]
    return str(processor.apply_chat_template(safe, add_generation_prompt=True, tokenize=False))


def _without(special: Sequence[str], content: Any) -> Any:
    # Example: a control token `<|im_end|>` in a query becomes `< |im_end|>`.
    if isinstance(content, str):
        for token in special:
            if token in content:
                content = content.replace(token, f"{token[0]} {token[1:]}")
        return content
    return [
        {**part, "text": _without(special, part["text"])} if part.get("type") == "text" else part
        for part in content
    ]


def _special_tokens(processor: Any) -> list[str]:
    # Some tokenizers mark single punctuation characters as special.
    known = processor.tokenizer.added_tokens_decoder.values()
    return [token.content for token in known if token.special and len(token.content) > 1]


def _wants_start(processor: Any, texts: Sequence[str]) -> bool:
    """Return whether to add a start token: only if the template did not. transformers has the same rule."""
    start = processor.tokenizer.bos_token
    return not (start is not None and all(text.startswith(start) for text in texts))


def _metadata(video: Frames) -> Any:
    from transformers.video_utils import VideoMetadata

    frames, height, width, _ = video.pixels.shape
    rate = frames_a_second(video)
    return VideoMetadata(
        total_num_frames=frames,
        fps=rate,
        width=width,
        height=height,
        duration=frames / rate,
        frames_indices=list(range(frames)),
    )


def frames_a_second(video: Frames) -> float:
    """Return the number of frames per second of video. 1 if the frames have no distinct times.

    If the frames have a span, the rate follows from it exactly. Example: 8 frames over 4 s give 2. The times
    of the frames are less exact: each is the time of the decoded picture nearest to the wanted time.
    """
    if video.span_s:
        return len(video.times_s) / video.span_s
    span = float(np.ptp(video.times_s)) if len(video.times_s) > 1 else 0.0
    return (len(video.times_s) - 1) / span if span > 0 else 1.0
