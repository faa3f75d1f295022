"""Finds the key pictures of H.264 and HEVC in the bitstream.

The "key frame" flag of a container also marks recovery points. At a recovery point of an open group, pictures
from before are still shown. At one of an intra refresh, many pictures are needed until one is whole. The type
of the first NAL unit with picture data tells them apart (ITU-T H.264 table 7-1, H.265 table 7-1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_H264_IDR, _H264_SPS = 5, 7
_HEVC_RANDOM_ACCESS = range(16, 22)  # BLA, IDR and CRA
# Profiles whose sequence parameter set states the chroma format (H.264, 7.3.2.1.1).
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_START_CODE = re.compile(b"\x00\x00\x01")


def nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length field before each NAL unit, from `avcC` or `hvcC`. 4 if there is neither."""
    place = 4 if codec == "h264" else 21
    if extradata and extradata[0] == 1 and len(extradata) > place:
        return (extradata[place] & 3) + 1
    return 4


def nal_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The NAL units of a packet, separated by start codes or by length fields of `length_size` bytes."""
    if data.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01")):
        starts = [found.end() for found in _START_CODE.finditer(data)]
        for start, stop in zip(starts, [each - 3 for each in starts[1:]] + [len(data)], strict=True):
            yield data[start:stop].rstrip(b"\x00")
        return
    place = 0
    while place + length_size < len(data):
        length = int.from_bytes(data[place : place + length_size], "big")
        yield data[place + length_size : place + length_size + length]
        place += length_size + length


def is_random_access(codec: str, units: list[bytes]) -> bool:
    """Whether a packet's first unit with picture data is an IDR (H.264), or an IDR, BLA or CRA (HEVC)."""
    for unit in units:
        if not unit:
            continue
        if codec == "h264" and 1 <= (kind := unit[0] & 31) <= 5:
            return kind == _H264_IDR
        if codec == "hevc" and (kind := unit[0] >> 1 & 63) < 32:
            return kind in _HEVC_RANDOM_ACCESS
    return False


def h264_parameter_sets(extradata: bytes | None) -> list[bytes]:
    """The sequence parameter sets of an `avcC`, or of data with start codes."""
    if not extradata:
        return []
    if extradata[0] != 1:
        return sequence_parameter_sets(list(nal_units(extradata, 4)))
    found, place = [], 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        length = int.from_bytes(extradata[place : place + 2], "big")
        found.append(extradata[place + 2 : place + 2 + length])
        place += 2 + length
    return found


def sequence_parameter_sets(units: list[bytes]) -> list[bytes]:
    """The H.264 sequence parameter sets among NAL units."""
    return [unit for unit in units if unit and unit[0] & 31 == _H264_SPS]


def codes_whole_frames_only(parameter_set: bytes) -> bool:
    """Whether an H.264 sequence parameter set excludes interlacing: its `frame_mbs_only_flag`.

    Raises:
        ValueError: If the set ends early.
    """
    bits = _Bits(parameter_set[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    bits.golomb()
    bits.golomb()
    return bool(bits.take(1))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            change = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + change) % 256
        last = following or last


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._text = "".join(f"{byte:08b}" for byte in data)
        self._place = 0

    def take(self, count: int) -> int:
        read = self._text[self._place : self._place + count]
        if len(read) < count:
            raise ValueError("a sequence parameter set ends early")
        self._place += count
        return int(read, 2)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code (H.264, 9.1)."""
        zeros = 0
        while self.take(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + (self.take(zeros) if zeros else 0)
