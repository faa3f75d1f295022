"""The shape in which a video is displayed: its display matrix and the aspect ratio of its pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

# A larger pixel aspect ratio is taken for damage, because it would make pictures arbitrarily wide.
_LONGEST_PIXEL = 16


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of a picture. It is transposed first and mirrored afterwards.

    `transposed` swaps rows and columns. `left_right` and `up_down` mirror the result.
    """

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    @property
    def mirrors(self) -> bool:
        """Whether the orientation mirrors the picture, so that it is no mere rotation."""
        return (self.transposed + self.left_right + self.up_down) % 2 == 1

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn `[H, W, C]` pixels upright. The result is `[W, H, C]` if `transposed`."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.left_right:
            pixels = pixels[:, ::-1]
        if self.up_down:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


def orientation_of(frame: Any) -> Orientation:
    """The nearest of the eight orientations to a frame's display matrix (libavutil/display.h).

    A point (x, y) of the coded picture, y downwards, is shown at (a x + c y, b x + d y).
    """
    try:
        matrix = bytes(frame.side_data["DISPLAYMATRIX"])
    except KeyError:
        return Orientation()
    except ValueError:  # the frame has other side data for which PyAV has no name
        return Orientation(*_BY_QUARTER_TURNS[round(frame.rotation / 90) % 4])
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


# Counter-clockwise quarter turns, in the order of PyAV's `rotation`.
_BY_QUARTER_TURNS = (
    (False, False, False),
    (True, False, True),
    (False, True, True),
    (True, True, False),
)


def displayed_size(width: int, height: int, pixel_shape: Fraction | None) -> tuple[int, int]:
    """Width and height in square pixels. The width is multiplied by `pixel_shape`, a pixel's aspect ratio."""
    if not pixel_shape or not Fraction(1, _LONGEST_PIXEL) <= pixel_shape <= _LONGEST_PIXEL:
        return width, height
    return max(1, round(width * pixel_shape)), height
