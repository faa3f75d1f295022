"""Uniform frames by decord, the fastest decoder of H.264, for streams that it decodes correctly.

decord has three faults: it counts packets that an edit list hides, it takes recovery points for whole
pictures, and it miscounts frames in MPEG transport streams. Streams with any of these are left to PyAV.
"""

from __future__ import annotations

import numpy as np

from safevid_core.video.opening import OpenVideo

_PIXELS = ("yuv420p", "yuvj420p")
_MISCOUNTED = {"mpegts", "mpeg"}
# decord stores times in single precision: an error of 0.5 ms at 1.5 hours.
_SAME_TIME_S = 2e-3


def suits_decord(opened: OpenVideo) -> bool:
    """Whether decord gives the same frames as a pass by PyAV."""
    table = opened.table
    return (
        opened.info.codec == "h264"
        and opened.pixel_format in _PIXELS
        and opened.plain
        and not opened.truncated
        and not _MISCOUNTED & set(opened.format_names)
        and table.steady
        and int(table.pts.min()) >= 0
        and opened.stream.frames in (0, len(table.pts))
    )


def decode_with_decord(opened: OpenVideo, chosen: np.ndarray) -> np.ndarray | None:
    """The frames with the indices `chosen`, in that order, uint8 `[n, H, W, 3]`.

    None if decord is not installed, fails, or finds other frame times than the packets state.
    """
    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    wanted, place = np.unique(chosen, return_inverse=True)
    try:
        reader = decord.VideoReader(str(opened.path), num_threads=1)
        if len(reader) != len(opened.shown_s):
            return None
        begins = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        if np.abs(begins - begins[0] - opened.shown_s).max() > _SAME_TIME_S:
            return None
        pixels = reader.get_batch(wanted.tolist()).asnumpy()
    except MemoryError:
        raise
    except Exception:  # PyAV reads the file instead and reports what is wrong with it
        return None
    if pixels.shape[1:3] != (opened.info.height, opened.info.width):
        return None  # decord chose another stream of the file
    return np.asarray(pixels[place])
