"""Measures motion: which pixels change between frames a sixth of a second apart, and where they move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from safevid_core.descriptions.signals.colours import COLOUR_NAMES, colour_counts

_MOTION_RATE = 12.0
_CHANGED = 22.0
_STILL_SHARE = 0.004
_SEGMENT_S = 0.7
# The fit of a segment includes the pairs of frames up to this many seconds outside it, about two on each
# side.
_MARGIN_S = 0.09
_LEAST_TRAVEL = 0.04
_LEAST_FIT = 0.6
_COMPACT = 0.26
# A change that extends over more of a side than this is not a single object. The outermost 2% at each end are
# ignored.
_WIDE_SHARE, _OUTERMOST = 0.8, 0.02
_SHIFT_GAIN = 0.75
_PAN_TOLERANCE = 2.0  # pixels
# Change at two opposite edges is one crossing if at least this share of the side between them is unchanged.
_GAP_SHARE = 0.25
_LARGEST_STEP = 0.15
_STEP_GAIN = 0.75
_FEWEST_PAIRS = 3

_GREY = np.full(3, 1 / 3, np.float32)

Direction = str  # left, right, up, down, none


@dataclass(frozen=True)
class MotionSegment:
    """Motion from `start_s` to `end_s` seconds.

    `kind` is still, object (one compact object moves), picture (the whole picture shifts) or scattered.
    `travel` is the distance covered, as a share of the picture's longer side.
    """

    start_s: float
    end_s: float
    kind: str
    direction: Direction
    travel: float


class MotionPairs:
    """Changes between frames about a sixth of a second apart, without pairs across a cut. Arrays are `[P]`.

    Attributes:
        moments: Middle of each pair, in seconds.
        changed: Share of pixels that change.
        centres: Centre of the change, x and y as shares of the longer side, `[P, 2]`. NaN if nothing changes.
        spreads: Standard distance of the change from its centre, in the same unit.
        reaches: Extent of the change along x and y, as shares of the width and of the height, `[P, 2]`.
        crossings: The axis of a crossing (0 for x, 1 for y), else -1. In a crossing, an object leaves at one
            edge and an object comes in at the opposite edge. Centre and spread are then computed on a ring
            that joins the two edges.
        ways: Direction of a crossing: towards higher (1) or lower (-1) coordinates, or 0 if it is unclear.
        shifts: Speed of the whole picture, in shares of the longer side a second, `[P, 2]`. NaN if the change
            is not a shift.
        covering: Number of moving pixels of each named colour, or None.
    """

    def __init__(self, frames: np.ndarray, times: np.ndarray, cuts: Sequence[int]) -> None:
        gap = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        stride = max(1, round(1 / (_MOTION_RATE * gap)))
        reach = 2 * stride
        starts = [
            i for i in range(0, len(frames) - reach, stride) if not any(i < cut <= i + reach for cut in cuts)
        ]
        self.side = max(frames.shape[1:3])
        self.lengths = np.array(frames.shape[2:0:-1]) / self.side
        self.duration_s = float(times[-1]) + gap
        self.moments = np.array([(times[i] + times[i + reach]) / 2 for i in starts])
        size = len(starts)
        self.changed = np.zeros(size)
        self.centres = np.full((size, 2), np.nan)
        self.spreads = np.full(size, np.nan)
        self.reaches = np.zeros((size, 2))
        self.crossings = np.full(size, -1)
        self.ways = np.zeros(size)
        self.shifts = np.full((size, 2), np.nan)
        for place, index in enumerate(starts):
            self._compare(
                place, frames[index], frames[index + reach], float(times[index + reach] - times[index])
            )
        self.covering = self._covering(frames, starts, reach)

    def _compare(self, place: int, one: np.ndarray, other: np.ndarray, seconds: float) -> None:
        difference = other.astype(np.int16) - one
        # A flash or fade changes all pixels alike. The difference less its median is motion.
        difference -= np.median(difference[::2, ::2], axis=(0, 1)).astype(np.int16)
        size = _largest(np.abs(difference))
        mask = size > _CHANGED
        self.changed[place] = mask.mean()
        if self.changed[place] < _STILL_SHARE:
            return
        weights = np.where(mask, size, 0)
        profiles = [weights.sum(axis=axis) for axis in (0, 1)]
        moments = [_moments(profile) for profile in profiles]
        self.centres[place] = np.array([mean for mean, _ in moments]) / self.side
        self.spreads[place] = np.sqrt(sum(variance for _, variance in moments)) / self.side
        self.reaches[place] = [_reach(profile) for profile in profiles]
        compact = self.spreads[place] < _COMPACT
        if compact and self.reaches[place].max() <= _WIDE_SHARE:
            return
        if self._crosses(place, weights, one, other):
            return
        shift = picture_shift(one, other)
        # A bar as high as the picture that moves sideways is an object, not a shift of the picture.
        if shift is not None and not (compact and self.reaches[place, _main_axis(shift)] <= _WIDE_SHARE):
            self.shifts[place] = np.array(shift) / self.side / seconds

    def _crosses(self, place: int, weights: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
        """Measure a change at two opposite edges on the ring that joins them.

        Returns:
            Whether the change is compact on the ring and moves the same way at both edges.
        """
        for axis in (0, 1):
            along, first, second = (
                np.swapaxes(each, 0, 1) if axis else each for each in (weights, one, other)
            )
            profile = along.sum(axis=0)
            seam = _gap_middle(profile)
            if seam is None:
                continue
            joined = np.roll(profile, -seam)
            centre, variance = _moments(joined)
            spread = np.sqrt(variance + _moments(along.sum(axis=1))[1]) / self.side
            if spread >= min(_COMPACT, self.spreads[place]):
                continue
            farthest = round(_LARGEST_STEP * self.side)
            low, high = (
                _way(first, second, (along > 0) & part, farthest)
                for part in (np.arange(len(profile)) < seam, np.arange(len(profile)) >= seam)
            )
            if low * high < 0:
                continue
            self.crossings[place], self.ways[place] = axis, np.sign(low + high)
            self.centres[place, axis] = (centre + seam) % len(profile) / self.side
            self.spreads[place], self.reaches[place, axis] = spread, _reach(joined)
            return True
        return False

    def _covering(self, frames: np.ndarray, starts: list[int], reach: int) -> np.ndarray | None:
        """Colours of pixels that differ from the earlier and from the later frame: those of the object.

        Background that the object leaves free differs from one of the two frames only.
        """
        compact = (self.changed >= _STILL_SHARE) & (self.spreads < _COMPACT)
        if len(starts) < 4 or compact.mean() < 0.5:
            return None
        far = max(reach, len(frames) // 3)
        counts = np.zeros(len(COLOUR_NAMES), int)
        for index in range(far, len(frames) - far, max(1, len(frames) // 24)):
            now = frames[index].astype(np.int16)
            earlier, later = (_largest(np.abs(now - frames[at])) for at in (index - far, index + far))
            counts += colour_counts(frames[index][(earlier > 2 * _CHANGED) & (later > 2 * _CHANGED)])
        return counts if counts.sum() else None


def _moments(profile: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the positions in a profile of weights."""
    places = np.arange(len(profile))
    mean = float(profile @ places / profile.sum())
    return mean, float(profile @ (places - mean) ** 2 / profile.sum())


def _reach(profile: np.ndarray) -> float:
    """The share of a profile's length, 0 to 1, that holds its weight without the outermost 2% at each end."""
    summed = np.cumsum(profile) / profile.sum()
    low, high = np.searchsorted(summed, (_OUTERMOST, 1 - _OUTERMOST))
    return float(high - low + 1) / len(profile)


def _gap_middle(profile: np.ndarray) -> int | None:
    """The middle of the longest unchanged stretch between changed positions. None if the stretch is short."""
    places = np.flatnonzero(profile > 0.1 * profile.mean())
    gaps = np.diff(places)
    if not len(gaps) or gaps.max() < _GAP_SHARE * len(profile):
        return None
    return int(places[np.argmax(gaps)] + gaps.max() // 2)


def _way(one: np.ndarray, other: np.ndarray, where: np.ndarray, farthest: int) -> int:
    """The direction in which the pixels of `where` move: 1 right, -1 left, 0 if it is unclear."""
    rows, columns = np.nonzero(where)
    if not len(columns):
        return 0
    first, second = one[rows, columns].astype(np.int16), other.astype(np.int16)

    def difference(step: int) -> float:
        there = columns + step
        within = (there >= 0) & (there < one.shape[1])
        if 2 * within.sum() < len(columns):
            return float("inf")
        return float(np.abs(second[rows[within], there[within]] - first[within]).mean())

    right, left = (min(difference(sign * step) for step in range(1, farthest + 1)) for sign in (1, -1))
    if min(right, left) > _STEP_GAIN * difference(0):
        return 0
    return 1 if right < left else -1


def _largest(channels: np.ndarray) -> np.ndarray:
    """The largest of three channels, `[H, W, 3]` -> `[H, W]`. `max` is slower over so short an axis."""
    return np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])


def picture_shift(
    one: np.ndarray, other: np.ndarray, gain: float = _SHIFT_GAIN
) -> tuple[float, float] | None:
    """The displacement of the whole picture, x and y in pixels, by phase correlation.

    None if the change is not a shift: more than the share `gain` of the difference remains after shifting
    back.
    """
    first, second = (picture @ _GREY for picture in (one, other))
    height, width = first.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    spectra = [np.fft.rfft2((picture - picture.mean()) * window) for picture in (first, second)]
    cross = spectra[1] * np.conj(spectra[0])
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-3 * np.abs(cross).max() + 1e-9), s=first.shape)
    peak = np.unravel_index(int(np.argmax(surface)), surface.shape)
    down = int(peak[0]) - height * (peak[0] > height // 2)
    across = int(peak[1]) - width * (peak[1] > width // 2)
    if (down, across) == (0, 0):
        return None
    moved, still = _overlap_difference(first, second, down, across), np.abs(first - second).mean()
    return (float(across), float(down)) if moved < gain * still else None


def panning(frames: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Frames over which the picture keeps shifting, as with a panning camera: bool `[T]`.

    A reversing pattern also looks like a shift, but the next reversal undoes it.

    Args:
        frames: uint8 RGB `[T, H, W, 3]`.
        where: The frames to examine, bool `[T]`.
    """
    found = np.zeros(len(frames), bool)
    steps: dict[int, tuple[float, float] | None] = {}

    def step(index: int) -> tuple[float, float] | None:
        if index not in steps:
            steps[index] = picture_shift(frames[index], frames[index + 1])
        return steps[index]

    for index in np.nonzero(where[1:-1])[0].tolist():
        before, after = step(index), step(index + 1)
        if before is None or after is None:
            continue
        both = picture_shift(frames[index], frames[index + 2])
        if both is not None:
            found[index + 1] = np.abs(np.add(before, after) - both).max() <= _PAN_TOLERANCE
    return found


def _overlap_difference(one: np.ndarray, other: np.ndarray, down: int, across: int) -> float:
    height, width = one.shape
    if 2 * abs(down) >= height or 2 * abs(across) >= width:
        return float("inf")
    there = other[max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
    here = one[max(0, -down) : height + min(0, -down), max(0, -across) : width + min(0, -across)]
    return float(np.abs(there - here).mean())


def motion_segments(pairs: MotionPairs) -> tuple[MotionSegment, ...]:
    """Motion over time, in segments of about 0.7 s. Adjacent segments of one kind and direction are joined.

    A segment without a single motion is divided in two, so that a short disturbance spoils one half only.
    """
    count = int(np.clip(round(pairs.duration_s / _SEGMENT_S), 1, 40))
    edges = np.linspace(0.0, pairs.duration_s, count + 1).tolist()
    segments: list[MotionSegment] = []
    for now in [part for start, end in pairwise(edges) for part in _segments_between(pairs, start, end)]:
        last = segments[-1] if segments else None
        if last is not None and (last.kind, last.direction) == (now.kind, now.direction):
            segments[-1] = MotionSegment(
                last.start_s, now.end_s, now.kind, now.direction, round(last.travel + now.travel, 3)
            )
        else:
            segments.append(now)
    return tuple(segments)


def _segments_between(pairs: MotionPairs, start: float, end: float) -> list[MotionSegment]:
    """The motion from `start` to `end` seconds: one segment, or two if only its parts have a motion.

    The parts meet where the path turns back. They meet in the middle if it does not.
    """
    whole = _segment(pairs, start, end)
    if whole.kind != "scattered":
        return [whole]
    turn = _turn(pairs, start, end)
    if turn is None:
        middle = (start + end) / 2
        parts = [_segment(pairs, start, middle), _segment(pairs, middle, end)]
    else:
        parts = [_segment(pairs, start, turn, after_s=0.0), _segment(pairs, turn, end, before_s=0.0)]
    return parts if any(part.direction != "none" for part in parts) else [whole]


def _segment(
    pairs: MotionPairs, start: float, end: float, before_s: float = _MARGIN_S, after_s: float = _MARGIN_S
) -> MotionSegment:
    inside = (pairs.moments >= start - before_s) & (pairs.moments < end + after_s)
    kind, direction, travel = _motion_of(pairs, inside, end - start)
    return MotionSegment(round(start, 3), round(end, 3), kind, direction, round(travel, 3))


def _turn(pairs: MotionPairs, start: float, end: float) -> float | None:
    """The time in seconds at which the path of a compact object turns back. None if it does not."""
    some = (pairs.moments >= start - _MARGIN_S) & (pairs.moments < end + _MARGIN_S)
    some &= pairs.spreads < _COMPACT
    if some.sum() < _FEWEST_PAIRS:
        return None
    path = _unrolled(pairs, some)
    path = _smooth(path[:, int(np.argmax(np.ptp(path, axis=0)))])
    heights = {
        int(at): min(abs(path[at] - path[0]), abs(path[at] - path[-1]))
        for at in (path.argmin(), path.argmax())
    }
    at = max(heights, key=heights.__getitem__)
    moment = float(pairs.moments[some][1:-1][at])
    return moment if heights[at] >= _LEAST_TRAVEL and start < moment < end else None


def _motion_of(pairs: MotionPairs, inside: np.ndarray, seconds: float) -> tuple[str, Direction, float]:
    """Kind, direction and travel of the pairs `inside`, over `seconds` seconds."""
    changed = pairs.changed[inside]
    if not len(changed) or float(np.median(changed)) < _STILL_SHARE:
        return "still", "none", 0.0
    shifts = pairs.shifts[inside]
    shifted = ~np.isnan(shifts[:, 0])
    if shifted.mean() >= 0.6:
        speed = np.median(shifts[shifted], axis=0)
        direction, travel = _direction(speed * seconds)
        return ("picture", direction, travel) if direction != "none" else ("scattered", "none", travel)
    moving = inside & ~np.isnan(pairs.centres[:, 0])
    compact = moving & (pairs.spreads < _COMPACT)
    if 2 * compact.sum() <= moving.sum() or compact.sum() < _FEWEST_PAIRS:
        return "scattered", "none", 0.0
    step, steady = _line_through(pairs.moments[compact], _unrolled(pairs, compact))
    direction, travel = _direction(step * seconds)
    wide = np.median(pairs.reaches[compact, _main_axis(step)]) > _WIDE_SHARE
    if not steady or wide or direction == "none" or _crosses_against(pairs, compact, step):
        return "scattered", "none", travel
    return "object", direction, travel


def _unrolled(pairs: MotionPairs, some: np.ndarray) -> np.ndarray:
    """Centres along one path, `[n, 2]`. After a crossing the coordinates continue beyond the edge."""
    centres = pairs.centres[some].copy()
    for axis in (0, 1):
        if (pairs.crossings[some] == axis).any():
            centres[:, axis] = np.unwrap(centres[:, axis], period=pairs.lengths[axis])
    return centres


def _crosses_against(pairs: MotionPairs, some: np.ndarray, step: np.ndarray) -> bool:
    """Whether the pixels at the edges move against the direction of the centres."""
    axis = _main_axis(step)
    crossing = some & (pairs.crossings == axis)
    return bool(crossing.any()) and float(pairs.ways[crossing].sum()) * float(step[axis]) <= 0


def _line_through(moments: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, bool]:
    """Speed of the centres, x and y a second, and whether a steady motion explains them.

    A motion that goes back by more than the least travel is not steady.
    """
    time = moments - moments.mean()
    away = centres - centres.mean(axis=0)
    speed = time @ away / max(float(time @ time), 1e-9)
    left_over = away - np.outer(time, speed)
    total = float((away**2).sum())
    fits = total > 0 and 1 - float((left_over**2).sum()) / total >= _LEAST_FIT
    return speed, fits and _way_back(away @ speed / max(float(np.hypot(*speed)), 1e-9)) < _LEAST_TRAVEL


def _way_back(path: np.ndarray) -> float:
    """The longest distance that a path goes back from its farthest point so far, without single outliers."""
    smooth = _smooth(path)
    return float((np.maximum.accumulate(smooth) - smooth).max())


def _smooth(path: np.ndarray) -> np.ndarray:
    """The median of each three neighbours. The result is two shorter than the path."""
    return np.asarray(np.median([path[:-2], path[1:-1], path[2:]], axis=0))


def _main_axis(step: Sequence[float] | np.ndarray) -> int:
    """0 if a step is mainly along x, 1 if along y."""
    return int(np.argmax(np.abs(step)))


def _direction(step: np.ndarray) -> tuple[Direction, float]:
    """The main direction of a step (x right, y down, in shares of the longer side), and its length."""
    length = float(np.hypot(*step))
    if length < _LEAST_TRAVEL:
        return "none", length
    if abs(step[0]) >= abs(step[1]):
        return ("right" if step[0] > 0 else "left"), length
    return ("down" if step[1] > 0 else "up"), length
