"""Counts flashes pixel by pixel, by WCAG 2.3.1 ("Three Flashes or Below Threshold") and ITU-R BT.1702.

A transition is a change of a pixel's value between a peak and the adjacent valley. A flash is a pair of
opposing transitions. There are three kinds:

- General flash: relative luminance changes by 10% of the maximum or more, and the darker state is below 0.80.
- Red flash of WCAG 2.0 and 2.1: (R - G - B) x 320, with negative values set to zero, changes by more than 20,
  and at least one state is a saturated red, R / (R + G + B) >= 0.8.
- Red flash of WCAG 2.2 (ISO 9241-391): one state is a saturated red, and the states are more than 0.2 apart
  in the CIE 1976 UCS chromaticity diagram.

R, G and B are linear, as in WCAG's relative luminance. A flash counts if the pixels that flash concurrently
cover a quarter of the picture or more. This module takes a quarter of the whole picture, as BT.1702 does.
WCAG takes a quarter of any 10 degrees of the visual field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_SCALE = 10_000
_CHANGE = _SCALE // 10
_DARKER_BELOW = 8 * _SCALE // 10
_RED_CHANGE = 20 * _SCALE // 320 + 1  # strictly more than 20 / 320
_RED_DISTANCE = 0.2
FLASH_AREA = 0.25
FLASH_LIMIT = 3
# A red darker than this (linear R) looks black, and its hue is coding noise.
_LEAST_RED = 0.02
# Reflected light of a screen, added because WCAG does not define the chromaticity of black.
_FLARE = 0.005
# A sample of 1,000 pixels decides whether flashes are counted in full. These shares of the sample suffice:
# the first for one flash a second, the second for more flashes than are allowed.
_SAMPLE, _SAMPLED_QUARTER, _SAMPLED_AREA = 1000, 0.2, 0.08
_BUSY = 0.03
_AT_ONCE = 4_000_000  # transitions processed at once, to limit the memory
# "Any one second" excludes its end. Container times are rounded to milliseconds.
_SECOND = 1.0 - 2e-3

# Noise, grain and moving edges change single pixels. A flash changes neighbours at the same time. Side of a
# block of neighbours: a share of the picture's longer side, and at least this many pixels.
_BLOCK, _LEAST_BLOCK = 1 / 24, 4
_TOGETHER_S = 0.067
_TOGETHER_SHARE = 0.6
_SHARP_SHARE = 0.75
_BURST = 1.3


def _linear_table() -> np.ndarray:
    """sRGB byte -> linear light, 0 to 1 (IEC 61966-2-1), for WCAG's relative luminance: float `[256]`."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR = _linear_table()
_WEIGHTED = tuple(np.round(_LINEAR * weight * _SCALE).astype(np.int16) for weight in (0.2126, 0.7152, 0.0722))
_QUARTER_LIGHT = np.round(_LINEAR * _SCALE / 4).astype(np.int16)
_LIGHT = np.round(_LINEAR * _SCALE).astype(np.int16)


def relative_luminance(frame: np.ndarray) -> np.ndarray:
    """Relative luminance of uint8 RGB `[..., 3]`, as int16 `[...]`, 0 to 10,000."""
    luminance: np.ndarray = np.take(_WEIGHTED[0], frame[..., 0])
    luminance += np.take(_WEIGHTED[1], frame[..., 1])
    luminance += np.take(_WEIGHTED[2], frame[..., 2])
    return luminance


class GeneralFlashes:
    """Finds the general flashes of one clip. Frames are added in order.

    Attributes:
        means: Mean relative luminance of each frame, 0 to 1.
        record: The transitions.
    """

    def __init__(self) -> None:
        self.means: list[float] = []
        self._transitions: _Transitions | None = None
        self.record = Record()

    def add(self, time_s: float, frame: np.ndarray) -> None:
        """Add the next frame, uint8 RGB `[H, W, 3]`, shown at `time_s` seconds."""
        luminance = relative_luminance(frame)
        self.means.append(float(luminance.mean(dtype=np.float32)) / _SCALE)
        if self._transitions is None:
            self._transitions = _Transitions(luminance.shape, _CHANGE)
        self.record.add(time_s, self._transitions.step(luminance))


class RedSample:
    """Tells from a sample of pixels whether a clip can have red flashes.

    Red flashes cost as much as all other measurements, and most clips have too little changing red for any.
    """

    def __init__(self) -> None:
        self._places: np.ndarray | None = None
        self._times: list[float] = []
        self._pixels: list[np.ndarray] = []

    def add(self, time_s: float, frame: np.ndarray) -> None:
        """Add the next frame, uint8 RGB `[H, W, 3]`, shown at `time_s` seconds."""
        pixels = frame.reshape(-1, 3)
        if self._places is None:
            self._places = _sampled(len(pixels))
        self._times.append(time_s)
        self._pixels.append(pixels[self._places])

    def possible(self) -> bool:
        """Whether pixels with a red flash may cover a quarter of the picture."""
        pixels = np.stack(self._pixels)
        if _saturated_red(pixels).any(axis=0).mean() < _SAMPLED_AREA:
            return False
        frames = zip(self._times, pixels[:, None], strict=True)
        return any(record.possible() for record in red_records(frames))


def red_records(frames: Iterable[tuple[float, np.ndarray]]) -> tuple[Record, Record]:
    """The transitions with a saturated red, by WCAG 2.1 and by WCAG 2.2.

    Args:
        frames: Times in seconds, each with a frame, uint8 RGB `[H, W, 3]`.
    """
    old, new = Record(), Record()
    by_difference: _Transitions | None = None
    by_chromaticity: _ChromaticityTransitions | None = None
    for time_s, frame in frames:
        red, green, blue = (np.take(_LIGHT, frame[..., channel]) for channel in range(3))
        saturated = _saturated_red(frame)
        surplus = np.maximum(red - green - blue, 0).astype(np.int16)
        if by_difference is None or by_chromaticity is None:
            by_difference = _Transitions(surplus.shape, _RED_CHANGE)
            by_chromaticity = _ChromaticityTransitions(surplus.shape)
        old.add(time_s, by_difference.step(surplus, saturated))
        new.add(time_s, by_chromaticity.step(_chromaticity(red, green, blue), saturated))
    return old, new


def _saturated_red(pixels: np.ndarray) -> np.ndarray:
    """Where R / (R + G + B) >= 0.8 in linear light: uint8 RGB `[..., 3]` -> bool `[...]`."""
    quarter = _QUARTER_LIGHT[pixels[..., 0]]
    others = _LIGHT[pixels[..., 1]]
    others += _LIGHT[pixels[..., 2]]
    return (quarter >= others) & (quarter >= _LEAST_RED * _SCALE / 4)


def _chromaticity(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """CIE 1976 u' and v' of linear sRGB with a little white light added, float32 `[2, ...]`.

    Black has no chromaticity, and that of nearly black pixels is noise. With the added light both are white.
    """
    light = np.stack([red, green, blue]).astype(np.float32) + _FLARE * _SCALE
    x, y, z = np.tensordot(_TO_XYZ, light, axes=1)
    return np.stack([4 * x, 9 * y]) / (x + 15 * y + 3 * z)


_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
)  # IEC 61966-2-1
_RED_PRIMARY = np.array([0.4507, 0.5229], np.float32)[:, None, None]


class _Transitions:
    """Finds the transitions of one value of each pixel between adjacent peaks and valleys.

    A transition counts if its lower state is dark, or if one of its states is a saturated red.
    """

    def __init__(self, shape: tuple[int, ...], least: int) -> None:
        self._least = least
        self._extreme: np.ndarray | None = None
        # Sign of the next transition: a rise (1) or a fall (-1). Before the first one, both are possible.
        self._sign = np.ones(shape, np.int16)
        self._undecided = np.ones(shape, bool)

    def step(self, value: np.ndarray, red: np.ndarray | None = None) -> np.ndarray:
        """Where the next frame completes a transition: bool of the frame's shape.

        Args:
            value: The frame's values, int16.
            red: Whether each pixel is a saturated red. None requires the lower state to be dark instead.
        """
        if self._extreme is None:
            self._extreme, self._first_high = value.copy(), value.copy()
            self._red = self._once_red = np.zeros(value.shape, bool) if red is None else red
            return np.zeros(value.shape, bool)
        change = value - self._extreme
        away = change * self._sign
        found = away >= self._least
        fallen = self._first_falls(value)
        if red is None:
            found &= np.minimum(value, self._extreme) < _DARKER_BELOW
            fallen &= value < _DARKER_BELOW
        else:
            self._once_red = self._once_red | red
            found &= red | self._red
            fallen &= self._once_red
        if found.any():
            np.negative(self._sign, out=self._sign, where=found)
        found |= fallen
        self._undecided &= ~found
        moved = (away < 0) | found
        self._extreme += change * moved
        if red is not None:
            self._red = np.where(moved, red, self._red)
        return found

    def _first_falls(self, value: np.ndarray) -> np.ndarray:
        """Falls of pixels without a transition so far. After such a fall, the next transition is a rise."""
        np.maximum(self._first_high, value, out=self._first_high)
        return (self._first_high - value >= self._least) & self._undecided


class _ChromaticityTransitions:
    """Finds transitions to or from a saturated red over more than 0.2 in the CIE 1976 UCS diagram."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._state: np.ndarray | None = None
        self._red = np.zeros(shape, bool)

    def step(self, chromaticity: np.ndarray, saturated: np.ndarray) -> np.ndarray:
        """Where the next frame, u' and v' `[2, H, W]`, completes a transition: bool `[H, W]`."""
        if self._state is None:
            self._state, self._red = chromaticity.copy(), saturated.copy()
            return np.zeros(saturated.shape, bool)
        apart = np.hypot(*(chromaticity - self._state))
        found = (apart > _RED_DISTANCE) & (saturated != self._red)
        # Of adjacent states of one kind, the most extreme one is kept.
        before, now = (np.hypot(*(each - _RED_PRIMARY)) for each in (self._state, chromaticity))
        further = (saturated == self._red) & np.where(self._red, now < before, now > before)
        moved = found | further
        np.copyto(self._state, chromaticity, where=moved)
        np.copyto(self._red, saturated, where=moved)
        return found


class Record:
    """The transitions of each pixel at each frame, one bit each, and `totals`: the number for each pixel."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._bits: list[np.ndarray] = []
        self.totals = np.zeros((0, 0), np.uint16)

    def add(self, time_s: float, found: np.ndarray) -> None:
        if not self._times:
            self.totals = np.zeros(found.shape, np.uint16)
        self._times.append(time_s)
        self._bits.append(np.packbits(found, axis=1))
        self.totals += found

    def possible(self, passing: np.ndarray | None = None) -> bool:
        """Whether, in a sample of the pixels, any flash may cover a quarter of the picture.

        Args:
            passing: Frames to ignore, bool `[T]`. None ignores no frame.
        """
        if (self.totals >= 2).mean() < _SAMPLED_AREA:
            return False
        row, column = np.unravel_index(_sampled(self.totals.size), self.totals.shape)
        byte, bit = column // 8, (7 - column % 8).astype(np.uint8)
        found = np.stack([bits[row, byte] >> bit & 1 for bits in self._bits]).astype(bool)
        if passing is not None:
            found[passing] = False
        counts = _concurrent(found, np.array(self._times))
        shares = [count.max() / len(row) for count in counts]
        # Up to the limit, the count near a quarter of the area need not be exact.
        return any(share >= _SAMPLED_QUARTER for share in shares[:1]) or any(
            share >= _SAMPLED_AREA for share in shares[FLASH_LIMIT : FLASH_LIMIT + 1]
        )

    def busy(self) -> np.ndarray:
        """Frames, bool `[T]`, at which a considerable share of the picture makes a transition."""
        counts = np.array([int(np.bitwise_count(bits).sum(dtype=np.int64)) for bits in self._bits])
        return counts > _BUSY * self.totals.size

    def areas(self, passing: np.ndarray | None = None) -> np.ndarray:
        """Largest shares of the picture, 0 to 1, that flash concurrently once a second, twice, and so on.

        Args:
            passing: Frames to ignore, bool `[T]`, such as those of a pan. None ignores no frame.
        """
        if not self._times or not self.possible(passing):
            return np.zeros(0)
        times = np.array(self._times)
        height, width = self.totals.shape
        block = max(_LEAST_BLOCK, round(max(height, width) * _BLOCK))
        across = block * max(1, _AT_ONCE // (len(times) * block * block))
        covered: list[np.ndarray] = []  # for each number of flashes a second: those pixels at each frame
        for top in range(0, height, block):
            rows = np.stack(
                [np.unpackbits(bits[top : top + block], axis=1, count=width) for bits in self._bits]
            )
            if passing is not None:
                rows[passing] = 0
            for left in range(0, width, across):
                found = _coherent(rows[:, :, left : left + across].astype(bool), times, block)
                for place, pixels in enumerate(_concurrent(found.reshape(len(times), -1), times)):
                    if place == len(covered):
                        covered.append(np.zeros(len(times), np.int64))
                    covered[place] += pixels
        return np.array([pixels.max() for pixels in covered]) / self.totals.size


def flashes_of(areas: np.ndarray) -> float:
    """The largest number of flashes within one second, from the areas of :meth:`Record.areas`."""
    return float((areas >= FLASH_AREA).sum())


def most_flashes(measurements: Mapping[str, Any]) -> float:
    """The largest number of flashes of any kind within one second, from the `measurements` of a row."""
    kinds = ("flashes", "red_flashes", "red_flashes_by_chromaticity")
    return max(float(measurements.get(f"{kind}_per_second") or 0) for kind in kinds)


def _sampled(size: int) -> np.ndarray:
    """Indices of at most 1,000 of `size` pixels. They are the same for the same size."""
    chosen = np.random.default_rng(0).choice(size, min(size, _SAMPLE), replace=False)
    return np.sort(chosen)


def _coherent(found: np.ndarray, times: np.ndarray, block: int) -> np.ndarray:
    """The transitions, bool `[T, H, W]`, that most active pixels of their block make together.

    A pixel is active within half a second of a transition. Together means within about two frames at 30
    frames a second. The transitions must also fall into one frame or be clearly more than at other times,
    because white noise changes half of all pixels in every frame. The direction of a transition does not
    matter, so a reversing checkerboard counts.
    """
    edges = np.arange(0, found.shape[2], block)
    first = np.searchsorted(times, times - 0.5)
    last = np.searchsorted(times, times + 0.5, side="right")
    so_far = np.concatenate(
        [np.zeros((1, *found.shape[1:]), np.uint16), np.cumsum(found, axis=0, dtype=np.uint16)]
    )
    active = np.add.reduceat((so_far[last] != so_far[first]).sum(axis=1), edges, axis=1)
    count = np.add.reduceat(found.sum(axis=1), edges, axis=1)
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    frames = max(1, round(_TOGETHER_S / max(gap, 1e-3)))
    near = _rolling_sum(count, frames)
    mean = np.diff(
        np.concatenate([np.zeros((1, len(edges))), np.cumsum(count, axis=0)])[np.stack([first, last])], axis=0
    )[0]
    mean = mean * frames / (last - first)[:, None]
    together = (near >= _TOGETHER_SHARE * active) & (near >= _BURST * mean)
    sharp = count >= _SHARP_SHARE * active
    supported = _any_of(together, frames) | sharp
    return found & np.repeat(supported, np.diff([*edges, found.shape[2]]), axis=1)[:, None, :]


def _rolling_sum(count: np.ndarray, frames: int) -> np.ndarray:
    """Sums over the `frames` frames from each frame on."""
    padded = np.concatenate([count, np.zeros((frames - 1, count.shape[1]), count.dtype)])
    return np.lib.stride_tricks.sliding_window_view(padded, frames, axis=0).sum(axis=-1)


def _any_of(together: np.ndarray, frames: int) -> np.ndarray:
    """Whether any window of `frames` frames that includes a frame is true."""
    padded = np.concatenate([np.zeros((frames - 1, together.shape[1]), bool), together])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, frames, axis=0).any(axis=-1))


def _concurrent(found: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """How many pixels flash at each frame: first those with one flash a second, then with two, and so on.

    A pixel with 2k transitions within one second flashes k times a second from the first of them to the last.

    Args:
        found: Transitions, bool `[T, pixels]`.
        times: Time of each frame in seconds.
    """
    pixel, frame = np.nonzero(np.ascontiguousarray(found.T))
    totals: list[np.ndarray] = []
    for flashes in range(1, len(pixel) // 2 + 1):
        reach = 2 * flashes - 1
        runs = pixel[reach:] == pixel[:-reach]
        runs &= times[frame[reach:]] - times[frame[:-reach]] < _SECOND
        if not runs.any():
            break
        whose, starts, ends = pixel[:-reach][runs], frame[:-reach][runs], frame[reach:][runs]
        # The runs of one pixel overlap. The overlap of two neighbouring runs is counted once.
        shared = (whose[1:] == whose[:-1]) & (starts[1:] <= ends[:-1])
        steps = np.bincount(starts, minlength=len(times) + 1)
        steps -= np.bincount(ends + 1, minlength=len(times) + 1)
        steps -= np.bincount(starts[1:][shared], minlength=len(times) + 1)
        steps += np.bincount(ends[:-1][shared] + 1, minlength=len(times) + 1)
        totals.append(np.cumsum(steps)[:-1])
    return totals
