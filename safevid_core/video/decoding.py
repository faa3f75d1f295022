"""Frames out of video files, however odd the file; every failure is one plain line.

decord decodes 8-bit H.264, the bulk of web video, fastest; PyAV decodes the rest. decord is kept from
other codecs on purpose: it cannot open AV1, and in HEVC with open groups of pictures a sparse
`get_batch` was measured to return neighbours of the frames asked for.

Files are untrusted. Only container formats of moving pictures are opened (`format_whitelist`), because
FFmpeg would also read a text file as terminal art or follow the addresses in a playlist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,"
    "ogg,asf,gif,mxf,rm,dv,nut,wtv,yuv4mpegpipe"
)
_DECORD_CODECS = ("h264",)
_DECORD_PIXELS = ("yuv420p", "yuvj420p")
_ONLY_VIDEO_FILES = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
# Times closer than this are one: decord keeps them in single precision.
_SAME_INSTANT_S = 1e-4
# A stream that ends this much before its header says is a truncated file, not a rounding of its length.
_SHORTFALL_S, _SHORTFALL_SHARE = 0.3, 0.03


class VideoError(ValueError):
    """A file that cannot be used as a video; the message is one line, names the file and the mend."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file's video stream is. `width` and `height` are as displayed, rotation applied."""

    duration_s: float
    fps: float
    width: int
    height: int
    frames: int
    codec: str


@dataclass(frozen=True)
class Frames:
    """Decoded frames: `pixels` uint8 RGB `[T, H, W, 3]`, `times_s` seconds from the video's start."""

    pixels: np.ndarray
    times_s: list[float]


def probe(path: str | Path) -> VideoInfo:
    """Length, rate, displayed size and codec of a file's best video stream; decodes one frame.

    Raises:
        VideoError: If the file is missing, empty, no video, or its first frame cannot be decoded.
    """
    with _opened(path) as opened:
        return opened.info


def decode_uniform(
    path: str | Path,
    n: int,
    start_s: float = 0.0,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
) -> Frames:
    """The frames shown at the centres of `n` equal segments of a span.

    Args:
        path: Any video file. Rotation metadata is honoured.
        n: Frames to return; a clip of fewer frames repeats frames.
        start_s: Start of the span, in seconds from the video's start.
        end_s: End of the span. Defaults to the video's end.
        size: Height and width to resize to. Defaults to the video's own.

    Returns:
        Frames with `pixels` `[n, H, W, 3]`; `times_s` are the frames' own presentation times.

    Raises:
        VideoError: If the file cannot be decoded, ends before the span does, or the span is empty.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    with _opened(path) as opened:
        frames = _decode_with_decord(opened, n, start_s, end_s) if opened.suits_decord else None
        if frames is None:
            frames = _decode_with_av(opened, n, start_s, end_s)
    if size is None:
        return frames
    return Frames(np.stack([resize(frame, size) for frame in frames.pixels]), frames.times_s)


def iterate_frames(
    path: str | Path, max_side: int | None = None, start_s: float = 0.0, end_s: float | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame of a span in presentation order: its time in seconds and uint8 RGB `[H, W, 3]`.

    Args:
        path: Any video file. Rotation metadata is honoured.
        max_side: Frames are scaled down, shape kept, so that no side is longer. Defaults to no limit.
        start_s: Start of the span. Defaults to the video's start.
        end_s: End of the span. Defaults to the video's end.

    Raises:
        VideoError: As :func:`decode_uniform`, while iterating.
    """
    with _opened(path) as opened:
        start_s, end_s = _span(opened, start_s, end_s)
        last = None
        for time_s, frame in opened.frames_from(start_s):
            if time_s < start_s - _SAME_INSTANT_S:
                continue
            if time_s >= end_s:
                return
            last = opened.end_of(time_s, frame)
            yield time_s, opened.to_rgb(frame, max_side)
        _refuse_shortfall(opened, end_s, last)


def blank_like(n: int, height: int, width: int) -> np.ndarray:
    """`n` mid-grey frames: uint8 `[n, height, width, 3]`."""
    return np.full((n, height, width, 3), 128, np.uint8)


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 RGB frame at another height and width, each new pixel the mean of those it covers."""
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def quoted(path: str | Path) -> str:
    """A path fit for one line of a message: quotes, newlines and undecodable bytes are escaped."""
    return repr(str(path))


class _Opened:
    """An open container, its best video stream, and what its first frame tells."""

    def __init__(self, path: Path, container: Any) -> None:
        from av.video.reformatter import VideoReformatter

        self.path = path
        self.container = container
        self._reformatter = VideoReformatter()
        self.stream = container.streams.best("video")
        if self.stream is None or self.stream.disposition & 0x400:  # an attached cover picture
            raise VideoError(f"{quoted(path)} has no video stream; use a file with moving pictures")
        self.stream.codec_context.thread_count = 1
        first = self._first_frame()
        self.quarter_turns = (int(first.rotation) // 90) % 4
        self.pixel_format = first.format.name
        self.begins_s = _begin_of(self.stream, first)
        height, width = (first.width, first.height) if self.quarter_turns % 2 else (first.height, first.width)
        rate = self.stream.average_rate or self.stream.guessed_rate
        fps = float(rate) if rate else 25.0
        duration_s = self._duration(fps)
        frames = self.stream.frames or max(1, round(duration_s * fps))
        codec = self.stream.codec_context.codec.canonical_name
        self.info = VideoInfo(duration_s, fps, width, height, frames, codec)

    @property
    def suits_decord(self) -> bool:
        return self.info.codec in _DECORD_CODECS and self.pixel_format in _DECORD_PIXELS

    def frames_from(self, start_s: float) -> Iterator[tuple[float, Any]]:
        """Every frame from the one shown at `start_s` or earlier, with its time from the video's start."""
        import av

        target = round((self.begins_s + start_s) / self.stream.time_base) if self.stream.time_base else 0
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except (av.FFmpegError, OSError):  # formats without an index are read again from the beginning
            with _opened(self.path) as again:
                yield from again.remaining_frames()
        else:
            yield from self.remaining_frames()

    def remaining_frames(self) -> Iterator[tuple[float, Any]]:
        import av

        try:
            for index, frame in enumerate(self.container.decode(self.stream)):
                yield _time_of(frame, index, self.begins_s, self.info.fps), frame
        except av.FFmpegError as error:
            raise VideoError(
                f"{quoted(self.path)} is damaged: {_words(error)}; fetch or encode it again"
            ) from None

    def end_of(self, time_s: float, frame: Any) -> float:
        """When a frame stops being shown, in seconds from the video's start."""
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return time_s + (length or 1 / self.info.fps)

    def to_rgb(self, frame: Any, max_side: int | None = None) -> np.ndarray:
        """A decoded frame upright, as uint8 RGB `[H, W, 3]`."""
        width, height = frame.width, frame.height
        longest = max(width, height)
        if max_side is not None and longest > max_side:
            width = max(1, round(width * max_side / longest))
            height = max(1, round(height * max_side / longest))
        # One reformatter for all frames: a new one for each costs several times the conversion.
        how = "AREA" if longest > max(width, height) else "BILINEAR"
        converted = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=how)
        pixels = converted.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self.quarter_turns)) if self.quarter_turns else pixels

    def _first_frame(self) -> Any:
        import av

        try:
            first = next(self.container.decode(self.stream), None)
        except av.FFmpegError as error:
            raise VideoError(
                f"{quoted(self.path)} cannot be decoded: {_words(error)}; fetch or encode it again"
            ) from None
        if first is None or not first.width or not first.height:
            raise VideoError(f"{quoted(self.path)} holds no frame; fetch or encode it again")
        return first

    def _duration(self, fps: float) -> float:
        """The stream's own length in seconds: by its header, its Matroska tag, or its packets."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        tagged = _seconds(self.stream.metadata.get("DURATION", ""))
        if tagged:
            return tagged
        ends = [
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in self.container.demux(self.stream)
            if packet.pts is not None
        ]
        # The frame read first is no longer among the packets.
        return max([1 / fps, *(end - self.begins_s for end in ends)])


@contextmanager
def _opened(path: str | Path) -> Iterator[_Opened]:
    import av

    path = Path(path).absolute()  # a leading slash keeps FFmpeg from reading "a:b.mp4" as a protocol
    try:
        empty = path.stat().st_size == 0
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable name"
        raise VideoError(f"{quoted(path)} cannot be read: {reason}; check the path") from None
    if path.is_dir():
        raise VideoError(f"{quoted(path)} is a folder; name a video file")
    if empty:
        raise VideoError(f"{quoted(path)} is empty (0 bytes); fetch it again")
    try:
        container = av.open(str(path), options=_ONLY_VIDEO_FILES)
    except UnicodeEncodeError:
        raise VideoError(f"{quoted(path)} has a name that is not valid UTF-8; rename it") from None
    except PermissionError:
        raise VideoError(f"{quoted(path)} may not be read; change its permissions") from None
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{quoted(path)} is not a video that FFmpeg can open ({_words(error)}); "
            "replace it or take it away"
        ) from None
    with container:
        yield _Opened(path, container)


def _decode_with_decord(opened: _Opened, n: int, start_s: float, end_s: float | None) -> Frames | None:
    """Uniform frames by decord, or None where decord cannot and PyAV should try."""
    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(opened.path), num_threads=1)
        spans = reader.get_frame_timestamp(range(len(reader)))
        shown_from = spans[:, 0] - spans[0, 0]
        rate = reader.get_avg_fps()
    except (decord.DECORDError, RuntimeError, IndexError):
        return None
    ends_s = float(spans[-1, 1] - spans[0, 0])
    # decord drops what FFmpeg calls unneeded; where it sees less than the header promises, PyAV decides.
    if not math.isfinite(rate) or opened.info.duration_s - ends_s > _tolerance(opened.info.duration_s):
        return None
    start_s, end_s = _span(opened, start_s, end_s)
    targets = _centres(n, start_s, end_s)
    chosen = np.searchsorted(shown_from, targets + _SAME_INSTANT_S, side="right") - 1
    wanted, place = np.unique(chosen, return_inverse=True)
    try:
        pixels = reader.get_batch(wanted.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError):
        return None
    if pixels.shape[1:3] != (opened.info.height, opened.info.width):
        return None  # another stream of the file, or a rotation that decord missed
    return Frames(pixels[place], [round(float(shown_from[index]), 4) for index in chosen])


def _decode_with_av(opened: _Opened, n: int, start_s: float, end_s: float | None) -> Frames:
    start_s, end_s = _span(opened, start_s, end_s)
    targets = _centres(n, start_s, end_s)
    pixels: list[np.ndarray] = []
    times: list[float] = []
    shown: tuple[float, Any] | None = None

    def take() -> None:
        assert shown is not None
        repeated = bool(times) and times[-1] == shown[0]
        pixels.append(pixels[-1] if repeated else opened.to_rgb(shown[1]))
        times.append(shown[0])

    for time_s, frame in opened.frames_from(start_s):
        while shown is not None and len(times) < n and time_s > targets[len(times)] + _SAME_INSTANT_S:
            take()
        shown = (time_s, frame)
        if len(times) == n:
            break
    if len(times) < n:
        _refuse_shortfall(opened, end_s, None if shown is None else opened.end_of(*shown))
        while len(times) < n:
            take()
    return Frames(np.stack(pixels), [round(time_s, 4) for time_s in times])


def _span(opened: _Opened, start_s: float, end_s: float | None) -> tuple[float, float]:
    """The span within the video; an end past the video's is drawn back to it."""
    end = opened.info.duration_s if end_s is None else min(end_s, opened.info.duration_s)
    if not 0 <= start_s < end:
        raise VideoError(
            f"{quoted(opened.path)} lasts {opened.info.duration_s:.2f} s and has nothing between "
            f"{start_s:g} s and {'its end' if end_s is None else f'{end_s:g} s'}; mend the span"
        )
    return start_s, end


def _centres(n: int, start_s: float, end_s: float) -> np.ndarray:
    return start_s + (np.arange(n) + 0.5) * (end_s - start_s) / n


def _tolerance(duration_s: float) -> float:
    return max(_SHORTFALL_S, _SHORTFALL_SHARE * duration_s)


def _refuse_shortfall(opened: _Opened, end_s: float, stopped_s: float | None) -> None:
    if stopped_s is None:
        raise VideoError(f"{quoted(opened.path)} holds no frame in that span; fetch or encode it again")
    if end_s - stopped_s > _tolerance(opened.info.duration_s):
        raise VideoError(
            f"{quoted(opened.path)} is truncated: pictures stop at {stopped_s:.2f} s of {end_s:.2f} s; "
            "fetch it again"
        )


def _begin_of(stream: Any, first: Any) -> float:
    if first.time is not None:
        return float(first.time)
    return float(stream.start_time * stream.time_base) if stream.start_time else 0.0


def _time_of(frame: Any, index: int, begin: float, fps: float) -> float:
    return index / fps if frame.time is None else float(frame.time) - begin


def _seconds(clock: str) -> float:
    """Seconds in a Matroska tag such as "00:00:10.333000000"; 0 where it is none."""
    try:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _words(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error).splitlines()
    words = text[0].rstrip(".") if text else type(error).__name__
    return "no container of moving pictures" if words == "Invalid argument" else words
