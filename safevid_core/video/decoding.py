"""Decodes frames of video files. Every failure is an error with a message of one line.

PyAV determines which frame is shown at a time: it is the frame that playing the file from the start shows.
decord decodes H.264 faster. It is used for files that :mod:`safevid_core.video.decord_reader` accepts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from safevid_core.storage.frames import Frames
from safevid_core.video.decord_reader import decode_with_decord, suits_decord
from safevid_core.video.errors import VideoError, quoted
from safevid_core.video.lengths import tolerance
from safevid_core.video.light import Picture
from safevid_core.video.opening import DECODING_REVISION, SAME_INSTANT_S, OpenVideo, VideoInfo, opened_video

__all__ = [
    "DECODING_REVISION",
    "Frames",
    "VideoError",
    "VideoInfo",
    "blank_like",
    "decode_uniform",
    "iterate_frames",
    "probe",
    "quoted",
    "resize",
]


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Length, frame rate, displayed size and codec of a file's best video stream.

    All packets are read and one frame is decoded. If the packets have no times, as in raw streams, all frames
    are decoded.

    Raises:
        VideoError: If the file is missing, empty or not a video, or if its first frame cannot be decoded.
    """
    with opened_video(path) as opened:
        return opened.info


def decode_uniform(
    path: str | os.PathLike[str],
    n: int,
    start_s: float = 0.0,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
) -> Frames:
    """The frames shown at the centres of `n` equal segments of a span.

    Frames are returned as displayed: upright, with square pixels, and at the size of the first frame.
    Transparent parts are white, high dynamic range is converted to sRGB, and interlaced frames are
    deinterlaced.

    Args:
        path: A video file.
        n: Number of frames. If the clip has fewer frames, frames are repeated.
        start_s: Start of the span, in seconds from the video's start.
        end_s: End of the span. Defaults to the video's end.
        size: Height and width to resize to. Defaults to the video's own.

    Returns:
        Frames with `pixels` `[n, H, W, 3]`. `times_s` are the presentation times of the frames.

    Raises:
        VideoError: If the file cannot be decoded or ends before the span does, or if the span is empty.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    with opened_video(path) as opened:
        frames = _decode_with_decord(opened, n, start_s, end_s) if suits_decord(opened) else None
        if frames is None:
            frames = _decode_with_av(opened, n, start_s, end_s)
    if size is None:
        return frames
    resized = np.stack([resize(frame, size) for frame in frames.pixels])
    return Frames(resized, frames.times_s, frames.span_s)


def iterate_frames(
    path: str | os.PathLike[str],
    max_side: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield every frame of a span in presentation order: its time in seconds and uint8 RGB `[H, W, 3]`.

    Frames are displayed as in :func:`decode_uniform`.

    Args:
        path: A video file.
        max_side: Upper limit of a frame's longer side. Larger frames are scaled down, with the same aspect
            ratio. None means no limit.
        start_s: Start of the span. Defaults to the video's start.
        end_s: End of the span. Defaults to the video's end.

    Raises:
        VideoError: As in :func:`decode_uniform`, during the iteration.
    """
    with opened_video(path) as opened:
        start_s, end_s = _span(opened, start_s, end_s)
        last = None
        for picture in opened.frames_from(start_s):
            if picture.time_s < start_s - SAME_INSTANT_S:
                continue
            if picture.time_s >= end_s:
                break
            last = opened.end_of(picture.time_s)
            yield picture.time_s, opened.to_rgb(picture, max_side)
        _refuse_shortfall(opened, end_s, last)


def blank_like(n: int, height: int, width: int) -> np.ndarray:
    """`n` mid-grey frames: uint8 `[n, height, width, 3]`."""
    return np.full((n, height, width, 3), 128, np.uint8)


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 RGB frame resized to a height and width. Each new pixel is the mean of those that it covers."""
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def _decode_with_decord(opened: OpenVideo, n: int, start_s: float, end_s: float | None) -> Frames | None:
    """Uniform frames by decord. None if PyAV has to decode."""
    start_s, end_s = _span(opened, start_s, end_s)
    targets = _centres(n, start_s, end_s)
    chosen = np.searchsorted(opened.shown_s, targets + SAME_INSTANT_S, side="right") - 1
    pixels = decode_with_decord(opened, chosen)
    if pixels is None:
        return None
    return Frames(pixels, opened.shown_s[chosen].tolist(), end_s - start_s)


def _decode_with_av(opened: OpenVideo, n: int, start_s: float, end_s: float | None) -> Frames:
    start_s, end_s = _span(opened, start_s, end_s)
    targets = _centres(n, start_s, end_s)
    pixels: list[np.ndarray] = []
    times: list[float] = []
    shown: Picture | None = None

    def take() -> None:
        assert shown is not None
        repeated = bool(times) and times[-1] == shown.time_s
        pixels.append(pixels[-1] if repeated else opened.to_rgb(shown))
        times.append(shown.time_s)

    for picture in opened.frames_from(float(targets[0])):
        while shown is not None and len(times) < n and picture.time_s > targets[len(times)] + SAME_INSTANT_S:
            take()
        if len(times) == n:
            break
        shown = picture
    if len(times) < n:
        _refuse_shortfall(opened, end_s, None if shown is None else opened.end_of(shown.time_s))
        while len(times) < n:
            take()
    return Frames(np.stack(pixels), times, end_s - start_s)


def _span(opened: OpenVideo, start_s: float, end_s: float | None) -> tuple[float, float]:
    """The span within the video. An end past the end of the video is replaced by the latter."""
    end = opened.info.duration_s if end_s is None else min(end_s, opened.info.duration_s)
    if not 0 <= start_s < end:
        raise VideoError(
            f"{quoted(opened.path)} lasts {opened.info.duration_s:.2f} s and has no frames between "
            f"{start_s:g} s and {'its end' if end_s is None else f'{end_s:g} s'}; fix the span"
        )
    return start_s, end


def _centres(n: int, start_s: float, end_s: float) -> np.ndarray:
    return start_s + (np.arange(n) + 0.5) * (end_s - start_s) / n


def _refuse_shortfall(opened: OpenVideo, end_s: float, stopped_s: float | None) -> None:
    if stopped_s is None:
        raise VideoError(f"{quoted(opened.path)} holds no frame in that span; fetch or encode it again")
    if end_s - stopped_s > tolerance(opened.info.duration_s):
        raise VideoError(
            f"{quoted(opened.path)} is truncated: its frames end at {stopped_s:.2f} s of {end_s:.2f} s; "
            "fetch it again"
        )
