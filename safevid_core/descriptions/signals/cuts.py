"""Finds cuts: the frames that begin a new shot.

A change between two frames is a candidate if it stands out from the changes around it, in coarse cells, in
colours or in fine textures. A candidate is a cut if three conditions hold: the structure or the colours of
the picture differ before and after, no shift of the picture explains the difference, and the old picture does
not come back soon. A picture that comes back soon was hidden by a flash. Blank frames, of one colour, are
skipped if they last no longer than a flash: the pictures before and after them are compared.
"""

from __future__ import annotations

import numpy as np

from safevid_core.descriptions.signals.motion import picture_shift
from safevid_core.video.decoding import resize

_CELLS = 16
_AROUND = 6
_LEAST_CHANGE = 2.0
_PEAK = 4.0
_USUAL = 0.8  # quantile of the changes around that counts as their usual size
_QUIET = 0.5  # size of a change that coding alone causes
_CLEAR_CHANGE = 12.0
_CHROMA_CHANGE = 20.0
_HISTOGRAM = 0.2
_LIKENESS = 0.8
_FLAT = 1.5
_COARSE_CHANGE = 6.0

_BLANK_SPREAD = 6.0
_BLANK_S = 0.25
# A picture that comes back within the longer time was hidden by a flash. The shorter time holds if the
# picture that hid it has another structure or other colours.
_RETURN_S, _OTHER_RETURN_S = 0.6, 0.3
_RETURNED = 0.35
# Share of the difference between two pictures that remains after a shift, if the shift is the only change.
_SHIFT_GAIN = 0.4
_SHORTEST_SHOT_S = 0.1

_BLOCK = 12
_TEXTURE = 2.0
_TEXTURED_SHARE, _TEXTURED_CELLS_SHARE = 0.3, 0.5
_LOST_CORRELATION = 0.5
_LOST_SHARE, _KEPT_SHARE = 0.6, 0.2


class CutFrames:
    """Keeps what is needed of each frame to find the cuts of a clip. Frames are added in order."""

    def __init__(self) -> None:
        self._fine: list[np.ndarray] = []
        self._colours: list[np.ndarray] = []
        self._cells_of: dict[int, np.ndarray] = {}

    def add(self, frame: np.ndarray, smaller: np.ndarray) -> None:
        """Add the next frame in two sizes, both uint8 RGB `[H, W, 3]`."""
        quarter = frame >> 2
        grey = quarter[..., 0] + quarter[..., 1]
        grey += quarter[..., 1]
        grey += quarter[..., 2]
        self._fine.append(grey)
        self._colours.append(smaller)

    def cuts(self, times: np.ndarray) -> list[int]:
        """Indices of the frames that begin a new shot. `times` are the frames' times in seconds, `[T]`."""
        if len(self._fine) < 2:
            return []
        self._times = times
        found: list[int] = []
        for step in self._candidates():
            before, after = self._across_blanks(step)
            if before is None or not self._is_cut(before, after):
                continue
            if not found or times[after] - times[found[-1]] >= _SHORTEST_SHOT_S - 1e-3:
                found.append(after)
        return found

    def _candidates(self) -> list[int]:
        """Indices of frames after which the picture changes much more than around them."""
        steps = range(len(self._fine) - 1)
        fine = np.array([_difference(self._fine[i], self._fine[i + 1]) for i in steps])
        colours = np.array([_difference(self._colours[i], self._colours[i + 1]) for i in steps])
        # Cell means change no more than pixels do, so they are computed near larger changes only.
        near = np.convolve(colours > _LEAST_CHANGE, np.ones(2 * _AROUND + 1), "same") > 0
        coarse = np.array([self._coarse(i, i + 1) if near[i] else 0.0 for i in steps])
        changes = np.stack([fine, colours, coarse], axis=1)
        edge = np.full((_AROUND, changes.shape[1]), np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.concatenate([edge, changes, edge]), 2 * _AROUND + 1, axis=0
        )
        around = np.sort(np.delete(windows, _AROUND, axis=2), axis=2)  # NaN is sorted to the end
        # The median would fail for animation in which every third frame moves: it would be that of still
        # frames.
        place = (_USUAL * ((~np.isnan(around)).sum(axis=2) - 1)).round().astype(int)
        usual = np.take_along_axis(around, np.maximum(place, 0)[..., None], axis=2)[..., 0]
        least = np.maximum(_LEAST_CHANGE, _PEAK * np.maximum(_QUIET, np.nan_to_num(usual)))
        return [int(step) for step in np.nonzero((changes > least).any(axis=1))[0]]

    def _across_blanks(self, step: int) -> tuple[int | None, int]:
        """The two frames to compare for the change after `step`. The first is None before short blanks."""
        before, after = step, step + 1
        if self._blank(after) and not self._blank(before) and self._short_blank(after):
            return None, after
        if self._blank(before) and not self._blank(after):
            first = before
            while first > 0 and self._blank(first - 1):
                first -= 1
            if first > 0 and self._short_blank(first):
                return first - 1, after
        return before, after

    def _short_blank(self, first: int) -> bool:
        """Whether the blank frames from `first` on are as short as a flash and a picture follows them."""
        end = first
        while end < len(self._fine) and self._blank(end):
            end += 1
        return end < len(self._fine) and self._times[end] - self._times[first] <= _BLANK_S

    def _is_cut(self, before: int, after: int) -> bool:
        coarse = self._coarse(before, after)
        cells = self._cells(before), self._cells(after)
        chroma = float(np.abs(_chroma(cells[0]) - _chroma(cells[1])).mean())
        lost = self._lost_structure(before, after)
        other = (lost is not None and lost > _LOST_SHARE) or chroma > _CHROMA_CHANGE
        recoloured = coarse > _CLEAR_CHANGE and _histogram_change(*self._pair(before, after)) > _HISTOGRAM
        lit = lost is not None and lost < _KEPT_SHARE and chroma <= _CHROMA_CHANGE
        rearranged = coarse > _LEAST_CHANGE and _likeness(*cells) <= _LIKENESS
        if not other and not rearranged and (lit or not recoloured):
            return False
        if self._returns(before, after, _OTHER_RETURN_S if other else _RETURN_S, coarse):
            return False
        return chroma > _CHROMA_CHANGE or picture_shift(*self._pair(before, after), gain=_SHIFT_GAIN) is None

    def _cells(self, index: int) -> np.ndarray:
        """Mean colours of a frame's cells, float32 `[16, 16, 3]`. A smaller picture has fewer cells."""
        if index not in self._cells_of:
            height, width = self._colours[index].shape[:2]
            size = (min(_CELLS, height), min(_CELLS, width))
            self._cells_of[index] = resize(self._colours[index], size).astype(np.float32)
        return self._cells_of[index]

    def _coarse(self, one: int, other: int) -> float:
        return float(np.abs(self._cells(one) - self._cells(other)).mean())

    def _blank(self, index: int) -> bool:
        """Whether a frame has one colour only."""
        spread = max(float(self._cells(index).std(axis=(0, 1)).max()), float(self._fine[index].std()))
        return spread < _BLANK_SPREAD

    def _pair(self, before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
        return self._colours[before], self._colours[after]

    def _lost_structure(self, before: int, after: int) -> float | None:
        """Largest share of textured blocks whose texture changes. None if too few blocks are textured."""
        fine = _lost_share(self._fine[before], self._fine[after], _BLOCK, _TEXTURED_SHARE)
        first, second = (self._cells(index).mean(axis=2) for index in (before, after))
        cells = _lost_share(first, second, _CELLS // 4, _TEXTURED_CELLS_SHARE)
        shares = [share for share in (fine, cells) if share is not None]
        return max(shares) if shares else None

    def _returns(self, before: int, after: int, within_s: float, coarse: float) -> bool:
        """Whether the picture before returns within `within_s` seconds, or the one after is a recent one."""
        times, apart = self._times, self._apart(before, after)
        soon = np.nonzero((times > times[after]) & (times <= times[after] + within_s))[0]
        recent = np.nonzero((times < times[before]) & (times >= times[before] - within_s))[0]
        for one, others in ((before, soon), (after, recent)):
            for other in others.tolist():
                if self._apart(one, other) < _RETURNED * apart:
                    return True
                near = self._coarse(one, other)
                if coarse > _COARSE_CHANGE and near < _RETURNED * coarse:
                    return True
        return False

    def _apart(self, one: int, other: int) -> float:
        return _difference(self._fine[one], self._fine[other]) + _difference(*self._pair(one, other))


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of uint8 pictures."""
    return float((np.maximum(one, other) - np.minimum(one, other)).mean())


def _chroma(cells: np.ndarray) -> np.ndarray:
    return cells - cells.mean(axis=2, keepdims=True)


def _histogram_change(one: np.ndarray, other: np.ndarray) -> float:
    """Share of pixels, 0 to 1, that move to another of 64 colour bins."""
    first, second = (
        np.bincount((picture >> 6).reshape(-1, 3) @ np.array([16, 4, 1]), minlength=64) / (picture.size / 3)
        for picture in (one, other)
    )
    return float(np.abs(first - second).sum() / 2)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the cells of two pictures, -1 to 1. 1 if one of them has no contrast."""
    first, second = (picture.mean(axis=2) - picture.mean() for picture in (one, other))
    if min(float(first.std()), float(second.std())) < _FLAT:
        return 1.0
    return float((first * second).mean() / (first.std() * second.std()))


def _lost_share(one: np.ndarray, other: np.ndarray, side: int, least: float) -> float | None:
    """The share of textured blocks, 0 to 1, in which two grey pictures `[H, W]` do not correlate.

    None if less than the share `least` of the blocks is textured in either picture.
    """
    height, width = (length // side * side for length in one.shape)
    if not height or not width:
        return None
    first, second = (
        picture[:height, :width].reshape(height // side, side, width // side, side).astype(np.float32)
        for picture in (one, other)
    )
    first, second = (blocks - blocks.mean(axis=(1, 3), keepdims=True) for blocks in (first, second))
    spreads = [np.sqrt((blocks**2).mean(axis=(1, 3))) for blocks in (first, second)]
    textured = np.maximum(*spreads) > _TEXTURE
    if textured.mean() < least:
        return None
    correlation = (first * second).mean(axis=(1, 3)) / np.maximum(spreads[0] * spreads[1], 1e-6)
    return float((np.abs(correlation[textured]) < _LOST_CORRELATION).mean())
