"""Converts frames to what a screen shows: uint8 sRGB without alpha, high dynamic range or interlacing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_PQ, _HLG = 16, 18  # transfer characteristics of ITU-T H.273, table 3
_UNKNOWN, _BT2020 = 2, 9
_HDR = (_PQ, _HLG)


@dataclass(frozen=True)
class Picture:
    """A decoded frame, its time in seconds from the video's start, and its alpha plane if it is separate."""

    time_s: float
    frame: Any
    alpha: Any = None


def is_hdr(frame: Any) -> bool:
    """Whether a frame's transfer function is PQ (SMPTE ST 2084) or HLG (ARIB STD-B67)."""
    return int(frame.color_trc) in _HDR


def has_alpha(frame: Any) -> bool:
    """Whether a frame's pixel format has an alpha channel or a palette, which may be transparent."""
    return frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)


def over_white(rgba: np.ndarray) -> np.ndarray:
    """A picture with straight alpha, uint8 RGBA `[H, W, 4]`, over white: uint8 RGB `[H, W, 3]`."""
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


class FrameConverter:
    """Converts frames to uint8 RGB arrays of a given size.

    One reformatter serves all frames. A new one for each frame would cost several times the conversion.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._mapper = VideoReformatter()

    def to_rgb(self, picture: Picture, width: int, height: int) -> np.ndarray:
        """The frame as coded, before it is turned upright: uint8 RGB `[height, width, 3]`."""
        frame = picture.frame
        if is_hdr(frame):
            frame = self._to_sdr(frame)
        if picture.alpha is not None or has_alpha(frame):
            frame = self._without_alpha(frame, picture.alpha)
        how = "AREA" if width < frame.width or height < frame.height else "BILINEAR"
        return np.asarray(
            self._reformatter.reformat(frame, width, height, "rgb24", interpolation=how).to_ndarray()
        )

    def _to_sdr(self, frame: Any) -> Any:
        """PQ or HLG to sRGB by libswscale: BT.2020 to BT.709, with 203 cd/m2 (ITU-R BT.2408) as white."""
        from av.video.reformatter import ColorPrimaries, ColorTrc

        if int(frame.color_primaries) == _UNKNOWN:
            frame.color_primaries = _BT2020
        if int(frame.colorspace) == _UNKNOWN:
            frame.colorspace = _BT2020
        return self._mapper.reformat(
            frame,
            frame.width,
            frame.height,
            "rgb24",
            dst_color_trc=ColorTrc.IEC61966_2_1,
            dst_color_primaries=ColorPrimaries.BT709,
        )

    def _without_alpha(self, frame: Any, alpha: Any) -> Any:
        import av

        if alpha is None:
            rgba = frame.to_ndarray(format="rgba")
        else:
            plane = alpha.to_ndarray(format="gray", width=frame.width, height=frame.height)
            rgba = np.dstack([frame.to_ndarray(format="rgb24"), plane])
        return av.VideoFrame.from_ndarray(over_white(rgba), format="rgb24")


def deinterlaced(pictures: Iterator[Picture]) -> Iterator[Picture]:
    """The same pictures at the same times, with interlaced ones deinterlaced.

    Frames before the first one flagged as interlaced are not filtered. From there on FFmpeg's `bwdif` gets
    every frame, because it uses the frames before and after a flagged one. It leaves the other frames
    unchanged.
    """
    filtered: _Deinterlacer | None = None
    for picture in pictures:
        if filtered is not None and not filtered.suits(picture.frame):
            yield from filtered.rest()
            filtered = None
        if filtered is None and picture.frame.interlaced_frame:
            filtered = _Deinterlacer(picture.frame)
        if filtered is None:
            yield picture
        else:
            yield from filtered.push(picture)
    if filtered is not None:
        yield from filtered.rest()


class _Deinterlacer:
    """A filter graph for frames of one size and format: one frame out for each frame in, in order."""

    def __init__(self, frame: Any) -> None:
        import av

        self._kind = self._kind_of(frame)
        self._waiting: deque[Picture] = deque()
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def suits(self, frame: Any) -> bool:
        return self._kind == self._kind_of(frame)

    def push(self, picture: Picture) -> Iterator[Picture]:
        self._waiting.append(picture)
        self._graph.push(picture.frame)
        yield from self._ready()

    def rest(self) -> Iterator[Picture]:
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Picture]:
        import av

        while self._waiting:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            picture = self._waiting.popleft()
            yield Picture(picture.time_s, frame, picture.alpha)

    @staticmethod
    def _kind_of(frame: Any) -> tuple[int, int, str]:
        return frame.width, frame.height, frame.format.name
