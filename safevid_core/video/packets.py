"""What a video stream's packets tell without decoding: when pictures are shown, and where decoding may begin.

All packets are read once. The table answers three questions: which instants have a picture, from which packet
on a decoder gives the same pictures as from the file's beginning, and whether decord may be trusted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from safevid_core.video.nal_units import (
    codes_whole_frames_only,
    h264_parameter_sets,
    is_random_access,
    nal_length_size,
    nal_units,
    sequence_parameter_sets,
)

# After a key frame of these codecs no picture needs one from before, but those shown before the key frame.
_RESETTING_CODECS = frozenset(
    {"vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "flv1", "theora"}
    | {"mjpeg", "prores", "dnxhd", "ffv1", "qtrle", "rawvideo"}
)
# These containers hold decoding times; FFmpeg takes them for times of showing where pictures are reordered.
_WITHOUT_SHOWING_TIMES = {"avi", "asf"}
_NAL_CODECS = ("h264", "hevc")

PacketKey = tuple[int | None, int | None, int]


@dataclass(frozen=True)
class PacketTable:
    """The packets of one stream in decoding order; `[N]` each, times in the stream's time base.

    Attributes:
        pts: When each packet's picture is shown. Zeros if `timed` is false.
        ends: When it stops being shown, as far as the packet tells its length.
        shown: Whether the packet's picture is for showing: not cut off by an edit list, not hidden in VP8.
        entry: Whether a decoder that begins here gives every picture from this one on.
        dts: When each packet is decoded; `pts` where the packet does not tell.
        landmarks: Time, place in the file and size of the first packet and of each entry, to recognise them
            after a seek, and their index; without those that another packet shares.
        timed: Whether every packet tells when its picture is shown.
        whole: Whether the packets were read without an error to the file's end.
        steady: Whether no packet is hidden, every key frame is an entry, and in H.264 one parameter set
            of whole frames holds throughout.
    """

    pts: np.ndarray
    ends: np.ndarray
    shown: np.ndarray
    entry: np.ndarray
    dts: np.ndarray
    landmarks: dict[PacketKey, int]
    timed: bool
    whole: bool
    steady: bool

    def entry_before(self, pts: float) -> int:
        """The last entry whose picture is shown at `pts` or before; 0 where there is none."""
        found = np.flatnonzero(self.entry & (self.pts <= pts))
        return int(found[np.argmax(self.pts[found])]) if len(found) else 0

    def seek_targets(self, entry: int) -> tuple[int, int]:
        """What to ask a demuxer for, in the stream's time base: some look for decoding times."""
        return int(self.dts[entry]), int(self.pts[entry])

    def shown_from(self, begin: int) -> np.ndarray:
        """The sorted times of the pictures shown from the first shown picture on."""
        return np.sort(self.pts[self.shown & (self.pts >= begin)])


def read_packets(container: Any, stream: Any) -> PacketTable:
    """The table of a stream whose container was just opened; leaves the container at its end."""
    import av

    codec = stream.codec_context.codec.canonical_name
    extradata = stream.codec_context.extradata
    bitstream = _Bitstream(codec, extradata) if codec in _NAL_CODECS else None
    pts: list[int | None] = []
    dts: list[int | None] = []
    lengths: list[int] = []
    keyed: list[bool] = []
    opened: list[bool] = []
    shown: list[bool] = []
    keys: list[PacketKey] = []
    whole = True
    try:
        for packet in container.demux(stream):
            if not packet.size:  # the mark of the end
                continue
            key = packet.is_keyframe
            pts.append(packet.pts)
            dts.append(packet.dts)
            lengths.append(packet.duration or 0)
            keyed.append(key)
            opened.append(key and (bitstream.opens(packet) if bitstream else codec in _RESETTING_CODECS))
            hidden = packet.is_discard or (codec == "vp8" and not bytes(memoryview(packet)[:1])[0] & 0x10)
            shown.append(not hidden)
            keys.append((packet.pts, packet.pos, packet.size))
    except av.FFmpegError:  # decoding meets the same error and tells it
        whole = False
    permuted = codec in _NAL_CODECS and _WITHOUT_SHOWING_TIMES & set(container.format.name.split(","))
    timed = bool(pts) and not permuted and all(each is not None for each in pts)
    times = np.array(pts if timed else [0] * len(pts), np.int64)
    entry = np.array(opened, bool) & _parts_the_order(times) if timed else np.zeros(len(pts), bool)
    key_array, shown_array = np.array(keyed, bool), np.array(shown, bool)
    steady = (
        timed
        and whole
        and bool(shown_array.all())
        and bool((entry == key_array).all())
        and (bitstream is None or bitstream.steady())
    )
    ends = times + np.array(lengths, np.int64)
    decoded = np.array([p if d is None else d for d, p in zip(dts, times.tolist(), strict=True)], np.int64)
    return PacketTable(
        times, ends, shown_array, entry, decoded, _landmarks(keys, entry), timed, whole, steady
    )


def _landmarks(keys: list[PacketKey], entry: np.ndarray) -> dict[PacketKey, int]:
    counts = Counter(keys)
    chosen = {0, *np.flatnonzero(entry).tolist()} if keys else set()
    return {keys[index]: index for index in sorted(chosen) if counts[keys[index]] == 1}


def _parts_the_order(pts: np.ndarray) -> np.ndarray:
    """Whether everything decoded before a packet is shown before it, and everything after it after."""
    before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min], pts]))[:-1]
    after = np.minimum.accumulate(np.concatenate([pts, [np.iinfo(np.int64).max]])[::-1])[::-1][1:]
    return (before < pts) & (pts < after)


class _Bitstream:
    """The key packets of an H.264 or HEVC stream."""

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self._length_size = nal_length_size(codec, extradata)
        self._sets = set(h264_parameter_sets(extradata)) if codec == "h264" else set()
        self._changed = False

    def opens(self, packet: Any) -> bool:
        units = list(nal_units(bytes(packet), self._length_size))
        if self._codec == "h264":
            self._sets.update(sequence_parameter_sets(units))
            self._changed |= packet.has_sidedata("new_extradata")
        return is_random_access(self._codec, units)

    def steady(self) -> bool:
        if self._codec != "h264" or self._changed or len(self._sets) != 1:
            return False
        try:
            return codes_whole_frames_only(next(iter(self._sets)))
        except ValueError:
            return False
