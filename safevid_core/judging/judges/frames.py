"""Adds frames of the shown clip to the request of a judge that can see pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

from safevid_core.judging.judge_input import ShownMedia
from safevid_core.models.llm import ChatRequest
from safevid_core.models.video_chat import VideoQuestion, frames_of
from safevid_core.storage.frames import FrameCache

_JPEG_QUALITY = 90


def with_frames(
    request: ChatRequest,
    shown: ShownMedia | None,
    frames: int,
    stored: FrameCache | None = None,
) -> ChatRequest:
    """The request with frames of the shown file at the start of its first user turn.

    The frames are decoded only if the call is made. Until then the messages, and with them the request's
    key, hold the hash of the file, the span and the number of frames. If no file was shown or `frames` is 0,
    the request is returned unchanged.

    Args:
        frames: Number of uniform frames of a video. A picture is a single frame.
        stored: Cache of decoded frames. None decodes them.
    """
    if not shown or not frames:
        return request
    picture = shown.media == "image"
    taken: list[object] = ["image", shown.media_sha256]
    if not picture:
        taken = ["video", shown.media_sha256, f"uniform/{frames}", shown.start_s, shown.end_s]
    stand_in = [{"type": "frames", "frames": taken, "jpeg": _JPEG_QUALITY}]
    question = VideoQuestion(
        "",
        path=shown.file,
        media_sha256=shown.media_sha256,
        start_s=shown.start_s or 0.0,
        end_s=shown.end_s,
        video="image" if picture else "right",
    )

    def render() -> tuple[list[dict[str, Any]], tuple[float, ...]]:
        found = frames_of(question, frames, stored)
        if found is None:
            return request.messages, ()
        return _in_front(request.messages, [_part(pixels) for pixels in found.pixels]), tuple(found.times_s)

    return replace(
        request,
        messages=_in_front(request.messages, stand_in),
        media=(*request.media, shown.media_sha256),
        render=render,
    )


def _in_front(messages: list[dict[str, Any]], parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first = next(place for place, message in enumerate(messages) if message["role"] == "user")
    text = {"type": "text", "text": messages[first]["content"]}
    asked = {"role": "user", "content": [*parts, text]}
    return [*messages[:first], asked, *messages[first + 1 :]]


def _part(pixels: Any) -> dict[str, Any]:
    """One frame, uint8 RGB `[H, W, 3]`, as a message part."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
