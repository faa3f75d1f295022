"""The families of video language models: what differs between them, and the inputs they are fed.

Training and generation build their inputs here, so a model is aligned on what it will be asked.
Frames are decoded by :mod:`safevid_core.video.decoding` and handed over as arrays: a processor that
opened the file itself would choose other frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safevid_core.video.decoding import Frames

if TYPE_CHECKING:
    import torch


class FamilyError(ValueError):
    """A family that is not in the table."""


@dataclass(frozen=True)
class Family:
    """How one family takes a video; `name` is its `model_type` in transformers.

    The chat template and the size of the pictures come with the checkpoint's own processor. A server is sent
    frames as a list of images, whatever the family.

    Attributes:
        pixels: Name of the model input that holds the frames.
        rows_a_video: Whether `pixels` has one row a video (else rows of all videos follow each other).
        feature_key: The key under which cached vision features go into `mm_encoder_outputs`.
        timed: Whether the frames' times reach the model.
        projector: The part of the model under its language head that turns what the tower sees into tokens.
        frame_side: Longest side in pixels of a frame that is sent to a server. More is not seen: the family's
            processor scales a frame down to it.
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
        # 672: the largest of LLaVA-NeXT's image grids. A video's frames are cut to 336.
        Family("llava_next_video", "pixel_values_videos", rows_a_video=True, feature_key="video"),
        # 776: the square of 768 tokens of 28 x 28 pixels, the most that qwen-vl-utils gives a frame.
        Family(
            "qwen2_5_vl",
            "pixel_values_videos",
            rows_a_video=False,
            feature_key="video",
            timed=True,
            frame_side=776,
            projector="visual.merger",
        ),
        # InternVL's video reaches the model as images: `pixel_values`, one row a frame, one tile of 448.
        Family("internvl", "pixel_values", rows_a_video=False, feature_key="image", frame_side=448),
    )
}


def family_of(name: str) -> Family:
    """The entry of the table.

    Raises:
        FamilyError: If there is none.
    """
    if name not in FAMILIES:
        raise FamilyError(f"no model family {name!r}; mend the model's `family`: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def conversation(
    prompt: str, *, system: str | None = None, video: bool = True, image: bool = False
) -> list[dict[str, Any]]:
    """Chat messages of one question, as `apply_chat_template` takes them; what is shown comes first.

    Args:
        video: Whether something is shown.
        image: Whether it is shown as an image. Defaults to a video.
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
    """The model inputs of a batch of prompts, padded on the left, each ending where the answer begins.

    Args:
        conversations: Messages from :func:`conversation`, `B` of them.
        videos: The frames of each conversation, None for one without a video. All or none must have one.
        as_images: Feed the first frame of each as an image, the way the family takes images, which is
            another input than a video of one frame. Defaults to a video.

    Returns:
        `input_ids` and `attention_mask` `[B, S]`, and what the family's processor makes of the videos.

    Raises:
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
    """The chat template's text of a conversation, up to where the answer begins."""
    special = _special_tokens(processor)
    safe = [{**message, "content": _without(special, message["content"])} for message in messages]
    return str(processor.apply_chat_template(safe, add_generation_prompt=True, tokenize=False))


def _without(special: Sequence[str], content: Any) -> Any:
    # A query or a description that spells out a control token must not act as one.
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
    # Single characters are punctuation that some tokenizer calls special.
    known = processor.tokenizer.added_tokens_decoder.values()
    return [token.content for token in known if token.special and len(token.content) > 1]


def _wants_start(processor: Any, texts: Sequence[str]) -> bool:
    """transformers' own rule (`apply_chat_template`): a start token, unless the template wrote it."""
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
    """Frames shown a second of video; 1 where their times do not say.

    By the span that they are uniform frames of, exactly: 8 frames of 4 s are 2 a second. Frames' own times
    are those of the pictures nearest to the wanted moments, and their distances only nearly equal.
    """
    if video.span_s:
        return len(video.times_s) / video.span_s
    span = float(np.ptp(video.times_s)) if len(video.times_s) > 1 else 0.0
    return (len(video.times_s) - 1) / span if span > 0 else 1.0
