"""An opened video file: its container, its best video stream, its packets, and its frames from any time on.

Files are untrusted. Only container formats of moving pictures are opened (`format_whitelist`). FFmpeg would
otherwise render a text file as ANSI art, or fetch the addresses of a playlist.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from safevid_core.video.errors import VideoError, is_transient, only_video_errors, quoted, words_of
from safevid_core.video.lengths import length_of
from safevid_core.video.light import FrameConverter, Picture, deinterlaced, is_hdr
from safevid_core.video.packets import PacketTable, read_packets
from safevid_core.video.shape import Orientation, displayed_size, orientation_of

# Increase it if the same file gives other frames, sizes or lengths than before. Stored results are made
# again.
DECODING_REVISION = 2
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,"
    "ogg,asf,gif,mxf,rm,dv,nut,wtv,yuv4mpegpipe"
)
_ONLY_VIDEO_FILES = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
# Times closer than this are equal. They are rounded to a tenth of a millisecond.
SAME_INSTANT_S, _DECIMALS = 1e-4, 4
_ATTACHED_PICTURE = 0x400
# Streams of these formats may begin with pictures that refer to pictures before the cut. Those are skipped.
_JOINED_MIDWAY = {"mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "obu", "dv"}
_RAW_FORMATS = {"h264", "hevc"}
_FALLBACK_FPS = 25.0
# The header's frame rate is used if it differs by at most this share from frames divided by seconds.
_SAME_RATE = 0.01
# (path, size, time, inode) -> packets, of the files read last. They serve the many clips of one file.
_KNOWN: dict[tuple[str, int, int, int], _Known] = {}
_MOST_KNOWN = 32


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a file's video stream. `width` and `height` are as displayed: upright, square pixels."""

    duration_s: float
    fps: float
    width: int
    height: int
    frames: int
    codec: str


@dataclass(frozen=True)
class _Known:
    """A file's packets. If they have no times, also the times of the frames by decoding, in seconds."""

    table: PacketTable
    times_s: np.ndarray | None


class OpenVideo:
    """An open container, with the properties that its packets and its first frame give.

    Attributes:
        info: Length, frame rate, displayed size, number of shown frames, and codec.
        table: The stream's packets.
        shown_s: When each frame begins, in seconds from the first frame, ascending, without repeated times.
        orientation: How a coded frame is turned upright.
        plain: Whether frames need no conversion: square pixels, not mirrored, no HDR, not interlaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._converter = FrameConverter()
        self._open()
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.container.close()

    @property
    def format_names(self) -> list[str]:
        return str(self.container.format.name).split(",")

    @property
    def truncated(self) -> bool:
        """Whether the header states a greater length than the packets have."""
        return self._last_end_s < self.info.duration_s

    def frames_from(self, start_s: float) -> Iterator[Picture]:
        """All frames to the end, from the one shown at `start_s` or an earlier one."""
        entry = 0
        if self._may_seek:
            # The deinterlacer needs the frame before.
            earlier = start_s - (2 / self.info.fps if self._interlaced else 0) + SAME_INSTANT_S
            entry = self.table.entry_before(self._begin + earlier / self.stream.time_base)
        yield from deinterlaced(self._timed(self._decoded(entry)))

    def end_of(self, time_s: float) -> float:
        """When the frame that begins at `time_s` stops being shown, in seconds from the video's start."""
        later = int(np.searchsorted(self.shown_s, time_s + SAME_INSTANT_S, side="right"))
        return float(self.shown_s[later]) if later < len(self.shown_s) else self._last_end_s

    def to_rgb(self, picture: Picture, max_side: int | None = None) -> np.ndarray:
        """A frame as displayed, uint8 RGB `[H, W, 3]`, no side longer than `max_side`."""
        width, height = self._size
        longest = max(width, height)
        if max_side is not None and longest > max_side:
            width = max(1, round(width * max_side / longest))
            height = max(1, round(height * max_side / longest))
        return self.orientation.apply(self._converter.to_rgb(picture, width, height))

    def _open(self) -> None:
        import av

        try:
            self.container: Any = av.open(str(self.path), options=_ONLY_VIDEO_FILES)
        except UnicodeEncodeError:
            raise VideoError(f"{quoted(self.path)} has a name that is not valid UTF-8; rename it") from None
        except PermissionError:
            raise VideoError(f"{quoted(self.path)} may not be read; change its permissions") from None
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                f"{quoted(self.path)} is not a video that FFmpeg can open ({words_of(error)}); "
                "replace or remove it",
                transient=is_transient(error),
            ) from None
        self.stream: Any = self.container.streams.best("video")
        if self.stream is None or self.stream.disposition & _ATTACHED_PICTURE:
            self.close()
            raise VideoError(f"{quoted(self.path)} has no video stream; use a file with moving pictures")
        self.stream.codec_context.thread_count = 1
        self._untouched = True

    def _read(self) -> None:
        stat = self.path.stat()
        stamp = (str(self.path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        known = _KNOWN.get(stamp)
        self.table = known.table if known else self._read_table()
        self._alpha_apart = self.stream.metadata.get("alpha_mode") == "1" and self.codec in ("vp8", "vp9")
        self._may_seek = self.table.timed and not self._alpha_apart
        first = self._first_frame()
        self._begin = first.pts if self.table.timed and first.pts is not None else 0
        if known is None:
            known = _Known(self.table, None if self.table.timed else self._times_by_decoding())
            while len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.pop(next(iter(_KNOWN)), None)
            _KNOWN[stamp] = known
        self.orientation: Orientation = orientation_of(first)
        self.pixel_format = first.format.name
        self._interlaced = bool(first.interlaced_frame)
        self._size = displayed_size(first.width, first.height, self.stream.sample_aspect_ratio)
        self.plain = not (self.orientation.mirrors or is_hdr(first) or self._interlaced) and self._size == (
            first.width,
            first.height,
        )
        self.info = self._describe(known.times_s)

    @property
    def codec(self) -> str:
        return str(self.stream.codec_context.codec.canonical_name)

    def _describe(self, times_s: np.ndarray | None) -> VideoInfo:
        stream, base = self.stream, self.stream.time_base
        count = 0 if times_s is None else len(times_s)
        if times_s is None:
            shown = self.table.shown_from(self._begin)
            count = 1 + int((shown > self._begin).sum())  # pictures cut off by an edit list share this time
            times_s = np.unique(shown - self._begin) * float(base) if len(shown) else np.zeros(1)
        self.shown_s = np.round(times_s, _DECIMALS)
        guess = _rate_of(stream, timed=self.table.timed)
        duration_s, self._last_end_s = length_of(
            self.path, self.container, stream, self.table, self._begin, self.shown_s, 1 / guess
        )
        counted = count / self._last_end_s
        rates = [float(each) for each in (guess, stream.average_rate, stream.guessed_rate) if each]
        near = [rate for rate in rates if abs(rate - counted) <= _SAME_RATE * counted]
        width, height = self._size
        if self.orientation.transposed:
            width, height = height, width
        return VideoInfo(duration_s, (near or [counted])[0], width, height, count, self.codec)

    def _read_table(self) -> PacketTable:
        self._untouched = False
        return read_packets(self.container, self.stream)

    def _first_frame(self) -> Any:
        import av

        try:
            first = next(self._decoded(0), None)
        except av.FFmpegError as error:
            raise VideoError(
                f"{quoted(self.path)} cannot be decoded: {words_of(error)}; fetch or encode it again",
                transient=is_transient(error),
            ) from None
        if first is None or not first[0].width or not first[0].height:
            raise VideoError(f"{quoted(self.path)} holds no frame; fetch or encode it again")
        return first[0]

    def _times_by_decoding(self) -> np.ndarray:
        """Times in seconds of the frames of a stream whose packets have none: by the decoder, or by count."""
        times = [frame.time for frame, _ in self._decoded(0)]
        rate = _rate_of(self.stream, timed=False)
        by_count = np.arange(len(times)) / rate
        if any(time is None for time in times):
            return by_count
        # Frames arrive in presentation order. AVI has decoding times only, which then are not ascending.
        by_decoder = np.sort(np.array(times, float)) - min(times)
        return by_count if bool((np.abs(by_decoder - by_count) * rate < 1).all()) else by_decoder

    def _timed(self, frames: Iterator[tuple[Any, Any]]) -> Iterator[Picture]:
        if not self.table.timed:  # decoding started at the beginning, so the frame's number gives its time
            for time_s, (frame, alpha) in zip(self.shown_s, frames, strict=False):
                yield Picture(float(time_s), frame, alpha)
            return
        time_s, base = 0.0, self.stream.time_base
        for frame, alpha in frames:
            time_s = (
                time_s + 1 / self.info.fps if frame.pts is None else float((frame.pts - self._begin) * base)
            )
            yield Picture(round(time_s, _DECIMALS), frame, alpha)

    def _decoded(self, entry: int) -> Iterator[tuple[Any, Any]]:
        """Frames of a decoder that starts at packet `entry`, each with its alpha plane if it is separate."""
        import av

        came = False
        alphas = _AlphaStream(self.codec) if self._alpha_apart else None
        for packet in self._packets(entry):
            if alphas is not None:
                alphas.push(packet)
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                if came or not _JOINED_MIDWAY & set(self.format_names):
                    raise
                continue
            for frame in frames:
                came = True
                yield frame, None if alphas is None else alphas.of(frame)

    def _packets(self, entry: int) -> Iterator[Any]:
        """The packets from `entry` on. They begin earlier if a seek does not reach it."""
        if not (self._untouched and entry == 0):
            for target in self.table.seek_targets(entry) if self.table.timed else ():
                packets = self._sought(target, entry)
                if packets is not None:
                    return packets
            self.close()
            self._open()
        self._untouched = False
        return iter(self.container.demux(self.stream))

    def _sought(self, target: int, entry: int) -> Iterator[Any] | None:
        import av

        try:
            self.container.seek(target, stream=self.stream, backward=True)
            packets = self.container.demux(self.stream)
            first = next(packets, None)
        except (av.FFmpegError, OSError):
            return None
        if first is None or not first.size:
            return None
        landed = self.table.landmarks.get((first.pts, first.pos, first.size))
        return chain([first], packets) if landed is not None and landed <= entry else None


class _AlphaStream:
    """Decodes the alpha planes of VP8 and VP9 in WebM, which are coded as side data of the packets."""

    def __init__(self, codec: str) -> None:
        import av

        self._decoder: Any = av.CodecContext.create(codec, "r")
        self._planes: dict[int | None, Any] = {}

    def push(self, packet: Any) -> None:
        import av

        if not packet.has_sidedata("matroska_block_additional"):
            return
        # The first 8 bytes are the id of the addition (BlockAddID).
        plane = av.Packet(bytes(packet.get_sidedata("matroska_block_additional"))[8:])
        plane.pts, plane.dts, plane.time_base = packet.pts, packet.dts, packet.time_base
        for frame in self._decoder.decode(plane):
            self._planes[frame.pts] = frame

    def of(self, frame: Any) -> Any:
        return self._planes.pop(frame.pts, None)


@contextmanager
def opened_video(path: str | os.PathLike[str]) -> Iterator[OpenVideo]:
    """A file opened for reading frames. Each error of a decoder is raised as a VideoError."""
    path = Path(path).absolute()  # a leading slash keeps FFmpeg from reading "a:b.mp4" as a protocol
    try:
        empty = path.stat().st_size == 0
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable name"
        line = f"{quoted(path)} cannot be read: {reason}; check the path"
        raise VideoError(line, transient=is_transient(error)) from None
    if path.is_dir():
        raise VideoError(f"{quoted(path)} is a folder; name a video file")
    if empty:
        raise VideoError(f"{quoted(path)} is empty (0 bytes); fetch it again")
    with only_video_errors(path):
        opened = OpenVideo(path)
        try:
            yield opened
        finally:
            opened.close()


def _rate_of(stream: Any, *, timed: bool) -> float:
    """Frames a second by the header. The bitstream has priority in raw H.264 and HEVC, which have no times.

    FFmpeg's guess for raw H.264 is wrong at some rates. Example: 24 for a stream of 12, 25 for one of 120.
    """
    rates = [stream.average_rate, stream.guessed_rate]
    if not timed:
        raw = stream.container.format.name in _RAW_FORMATS
        rates = [stream.codec_context.framerate if raw else None, *reversed(rates)]
    return float(next((rate for rate in rates if rate), _FALLBACK_FPS))
