"""The length of a video: by its packets, or by its header if the file is truncated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safevid_core.video.packets import PacketTable

# A larger gap between the header's length and the packets means a truncated file, not rounding.
_SHORTFALL_S, _SHORTFALL_SHARE = 0.3, 0.03
# Formats without a stated length: FFmpeg estimates it from the packets or from the file's size.
_WITHOUT_LENGTH = {"mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "obu", "ogg", "gif", "dv"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def tolerance(duration_s: float) -> float:
    """Seconds that the pictures of a video may end early before it counts as truncated."""
    return max(_SHORTFALL_S, _SHORTFALL_SHARE * duration_s)


def length_of(
    path: Path,
    container: Any,
    stream: Any,
    table: PacketTable,
    begin: int,
    shown_s: np.ndarray,
    frame_s: float,
) -> tuple[float, float]:
    """A video's length, and when its last picture stops being shown, both in seconds from the first picture.

    The two differ if the file is truncated: the header states a greater length than the packets have. In a
    whole Matroska file the last picture is shown until the track ends, because its packet may state no
    duration.

    Args:
        table: The stream's packets.
        begin: Presentation time of the first shown picture, in the stream's time base.
        shown_s: When each picture begins, in seconds, ascending.
        frame_s: Seconds that a picture is shown if its packet states no duration.
    """
    last_s = float(shown_s[-1])
    packets_s = last_s + frame_s
    base = float(stream.time_base)
    if table.timed:
        ends = table.ends[table.shown & (table.pts >= begin)]
        from_packets = float(ends.max() - begin) * base if len(ends) else 0.0
        packets_s = from_packets if from_packets > last_s + 1e-6 else packets_s
    formats = set(str(container.format.name).split(","))
    header_s = 0.0 if formats & _WITHOUT_LENGTH else _header_length(container, stream, begin * base)
    if header_s - packets_s <= tolerance(header_s):
        longer = "matroska" in formats and table.whole and header_s > packets_s
        return (header_s, header_s) if longer else (packets_s, packets_s)
    if "matroska" in formats and table.whole and _matroska_is_whole(path):
        return header_s, header_s
    if "mov" in formats and table.whole and len(table.pts) >= stream.frames:
        return packets_s, packets_s
    return header_s, packets_s


def _header_length(container: Any, stream: Any, begin_s: float) -> float:
    """The stream's length in seconds by its header or Matroska tag. Both count from time 0 of the file."""
    if stream.duration and "matroska" not in container.format.name:
        return float(stream.duration * stream.time_base)
    tagged = _seconds(stream.metadata.get("DURATION", ""))
    if container.duration:  # of the longest stream, in microseconds
        tagged = min(tagged, (container.duration + max(0, container.start_time or 0)) / 1e6)
    return tagged - max(0.0, begin_s)


def _seconds(clock: str) -> float:
    """Seconds of a Matroska tag such as "00:00:10.333000000". 0 if the text is not a time."""
    try:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _matroska_is_whole(path: Path) -> bool:
    """Whether the file is as long as its Segment element states (RFC 8794, RFC 9559)."""
    with path.open("rb") as file:
        for wanted in (_EBML, _SEGMENT):
            if file.read(4) != wanted:
                return False
            first = file.read(1)
            if not first or not first[0]:
                return False
            rest = 8 - first[0].bit_length()
            size = int.from_bytes(bytes([first[0] & (1 << 7 - rest) - 1]) + file.read(rest), "big")
            if wanted == _SEGMENT:
                unknown = size == (1 << 7 * (rest + 1)) - 1
                return unknown or file.tell() + size <= path.stat().st_size
            file.seek(size, 1)
    return False
