"""Reads from a stream's packets, without decoding, when its pictures are shown and where decoding may start.

All packets are read once. The table answers three questions: at which times a picture begins, from which
packets a decoder gives the same pictures as from the file's beginning, and whether decord decodes the stream
correctly.
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

# In these codecs, pictures shown after a key frame never refer to pictures shown before it.
_RESETTING_CODECS = frozenset(
    {"vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "flv1", "theora"}
    | {"mjpeg", "prores", "dnxhd", "ffv1", "qtrle", "rawvideo"}
)
# These containers store decoding times. If pictures are reordered, FFmpeg takes them for presentation times.
_WITHOUT_SHOWING_TIMES = {"avi", "asf"}
_NAL_CODECS = ("h264", "hevc")

PacketKey = tuple[int | None, int | None, int]


@dataclass(frozen=True)
class PacketTable:
    """The packets of one stream in decoding order. Arrays are `[N]`; times are in the stream's time base.

    Attributes:
        pts: Presentation time of each packet's picture. Zeros if `timed` is false.
        ends: When the picture stops being shown: `pts` plus the packet's duration. Equal to `pts` if the
            packet states no duration.
        shown: Whether the picture is shown. An edit list may cut it off, and VP8 may hide it.
        entry: Whether a decoder that starts at this packet gives every picture from this one on.
        dts: Decoding time of each packet. Equal to `pts` if the packet states none.
        landmarks: (pts, byte position, size) -> index, for the first packet and each entry. They identify a
            packet after a seek. Keys that several packets share are left out.
        timed: Whether every packet states a presentation time.
        whole: Whether all packets were read without an error.
        steady: Whether no packet is hidden and every key frame is an entry. In H.264, also whether there is
            one sequence parameter set only, and it allows whole frames only.
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
        """Index of the last entry that is shown at `pts` or before. 0 if there is none."""
        found = np.flatnonzero(self.entry & (self.pts <= pts))
        return int(found[np.argmax(self.pts[found])]) if len(found) else 0

    def seek_targets(self, entry: int) -> tuple[int, int]:
        """Times to seek to, in the stream's time base. Some demuxers need the first, the decoding time."""
        return int(self.dts[entry]), int(self.pts[entry])

    def shown_from(self, begin: int) -> np.ndarray:
        """Sorted presentation times of the shown pictures, from the time `begin` on."""
        return np.sort(self.pts[self.shown & (self.pts >= begin)])


def read_packets(container: Any, stream: Any) -> PacketTable:
    """The table of a stream whose container was just opened. Afterwards the container is at its end."""
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
            if not packet.size:  # an empty packet marks the end
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
    except av.FFmpegError:  # decoding meets the same error and reports it
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
    """Whether all earlier packets are shown before a packet, and all later ones after it: bool `[N]`."""
    before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min], pts]))[:-1]
    after = np.minimum.accumulate(np.concatenate([pts, [np.iinfo(np.int64).max]])[::-1])[::-1][1:]
    return (before < pts) & (pts < after)


class _Bitstream:
    """Tells which packets of an H.264 or HEVC stream a decoder can start at."""

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
