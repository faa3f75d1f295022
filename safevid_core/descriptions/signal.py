"""A witness that cannot make things up: what can be measured from the pixels, and no more.

Flashes follow WCAG 2.3.1 (success criterion "Three Flashes or Below Threshold") and ITU-R BT.1702: a flash
is a pair of opposing changes of relative luminance of 10% of the maximum or more, where the darker state
is below 0.80, over at least a quarter of the picture at once; more than three in any second is above the
limit. A red flash is the same for saturated red.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from safevid_core.lake import Lake, StageReport, frame_hash, run_stage
from safevid_core.records import SIGNAL_DESCRIPTIONS, VIDEO_CORPUS, Outcome, StageRows, content_id
from safevid_core.settings import Settings
from safevid_core.video.decoding import VideoError, iterate_frames

NAME = "signal"
# Raised when a measurement changes its meaning; what was measured before is then measured again.
REVISION = "1"

_MAX_SIDE = 96
_CELLS = 16
_FRAMES_AT_ONCE = 64

_FLASH_CHANGE = 0.10
_FLASH_DARKER_BELOW = 0.80
_FLASH_AREA = 0.25
_FLASH_LIMIT = 3
_RED_SHARE = 0.8
_RED_CHANGE = 20 / 320

_CUT_LEAST_CHANGE = 6.0
_CUT_CLEAR_CHANGE = 12.0
_CUT_PEAK = 4.0
_CUT_HISTOGRAM = 0.2
_CUT_LIKENESS = 0.8
_CUT_RETURN_S = 0.6

_MOTION_RATE = 12.0
_CHANGED = 22.0
_STILL_SHARE = 0.004
_ALL_OVER_SHARE = 0.25
_SEGMENT_S = 0.7
_LEAST_TRAVEL = 0.04
_LEAST_FIT = 0.6
_COMPACT = 0.26
_SHIFT_GAIN = 0.75

_GREY = np.full(3, 1 / 3, np.float32)

Direction = str  # left, right, up, down, none


@dataclass(frozen=True)
class Colour:
    """A named colour and the share of the pixels that have it, 0 to 1."""

    name: str
    share: float


@dataclass(frozen=True)
class MotionSegment:
    """Motion from `start_s` to `end_s`.

    `kind` is still, object (one compact thing moves), picture (the whole picture shifts) or scattered.
    `travel` is the distance covered, in shares of the picture's longer side.
    """

    start_s: float
    end_s: float
    kind: str
    direction: Direction
    travel: float


@dataclass(frozen=True)
class Measurements:
    """All that was measured. Times are seconds from the clip's start, luminances 0 to 1."""

    duration_s: float
    fps: float
    frames: int
    cuts_s: tuple[float, ...]
    mean_luminance: float
    luminance_spread: float
    flashes_per_second: float
    red_flashes_per_second: float
    colours: tuple[Colour, ...]
    moving_colours: tuple[Colour, ...]
    changed_share: float
    motion: tuple[MotionSegment, ...]


def make_signal_descriptions(settings: Settings, lake: Lake, scene: str) -> StageReport:
    """Measure every clip of one scene's corpus and say in words what was measured.

    A clip measured before, by its media, span and the revision of the measurement, is not decoded again.
    """
    clips = lake.read(VIDEO_CORPUS, scene).select(
        "clip_id", "scene", "split", "path", "media_sha256", "start_s", "end_s"
    )
    before = {row["request_key"]: row for row in lake.read(SIGNAL_DESCRIPTIONS, scene).to_dicts()}

    def compute() -> StageRows:
        rows, outcomes, measured = [], [], 0
        for clip in clips.to_dicts():
            key = content_id(NAME, REVISION, clip["media_sha256"], clip["start_s"], clip["end_s"])
            seen: tuple[str, str, list[float]] | None = None
            if key in before:
                old = before[key]
                seen = old["text"], old["measurements"], old["frame_times"]
            else:
                measured += 1
                try:
                    measurements, times = measure(clip["path"], clip["start_s"], clip["end_s"])
                    seen = describe(measurements), json.dumps(asdict(measurements)), times
                except VideoError as error:
                    outcomes.append(_outcome(clip["clip_id"], "failed", str(error)))
                    continue
            rows.append(_row(clip, key, *seen))
            outcomes.append(_outcome(clip["clip_id"], "ok", ""))
        return StageRows(SIGNAL_DESCRIPTIONS.frame(rows), outcomes, {"calls": 0, "measured": measured})

    inputs = {"clips": frame_hash(clips), "revision": REVISION}
    return run_stage(lake, SIGNAL_DESCRIPTIONS, scene, inputs, clips["clip_id"].to_list(), compute)


def _outcome(clip_id: str, outcome: Outcome, reason: str) -> tuple[str, Outcome, str]:
    return clip_id, outcome, reason


def _row(clip: dict[str, Any], key: str, text: str, measurements: str, times: list[float]) -> dict[str, Any]:
    return {
        "description_id": content_id(NAME, clip["clip_id"], REVISION),
        "clip_id": clip["clip_id"],
        "scene": clip["scene"],
        "split": clip["split"],
        "describer": NAME,
        "model": "measured from pixels",
        "revision": REVISION,
        "text": text,
        "frame_times": times,
        "request_key": key,
        "measurements": measurements,
    }


def measure(path: str, start_s: float = 0.0, end_s: float | None = None) -> tuple[Measurements, list[float]]:
    """Measure a clip; gives the measurements and the times of the frames looked at (all of them).

    Raises:
        VideoError: If the clip cannot be decoded.
    """
    times_list, pictures = [], []
    for time_s, picture in iterate_frames(path, _MAX_SIDE, start_s, end_s):
        times_list.append(time_s)
        pictures.append(picture)
    frames, times = np.stack(pictures), np.array(times_list) - times_list[0]
    return measure_frames(frames, times), [round(each, 3) for each in times_list]


def measure_frames(frames: np.ndarray, times: np.ndarray) -> Measurements:
    """Measure decoded frames, uint8 RGB `[T, H, W, 3]`, shown at `times` (seconds, from 0)."""
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1 / 25
    cells, red = _luminance_cells(frames)
    cuts = _cuts(frames, times)
    pairs = _MotionPairs(frames, times, cuts)
    return Measurements(
        duration_s=round(float(times[-1]) + gap, 3),
        fps=round(1 / gap, 3),
        frames=len(frames),
        cuts_s=tuple(round(float(times[index]), 3) for index in cuts),
        mean_luminance=round(float(cells.mean()), 4),
        luminance_spread=round(float(cells.mean(axis=1).std()), 4),
        flashes_per_second=_flash_rate(cells, times, _FLASH_CHANGE, _FLASH_DARKER_BELOW),
        red_flashes_per_second=_flash_rate(red, times, _RED_CHANGE, 2.0),
        colours=_main_colours(frames),
        moving_colours=_moving_colours(pairs),
        changed_share=round(float(np.median(pairs.changed)), 4) if len(pairs.changed) else 0.0,
        motion=_motion(pairs),
    )


def describe(measured: Measurements) -> str:
    """The measurements in plain sentences; nothing that was not measured."""
    sentences = [
        f"Duration {measured.duration_s:.1f} s at {_figure(measured.fps)} frames a second.",
        _cut_words(measured.cuts_s),
        _flash_words(measured.flashes_per_second, measured.red_flashes_per_second),
        f"Main colours: {', '.join(colour.name for colour in measured.colours)}.",
    ]
    if measured.moving_colours and _time_of(measured.motion, "object") >= 0.5:
        sentences.append(f"What moves is {_listed([c.name for c in measured.moving_colours])}.")
    sentences.append(_motion_words(measured.motion))
    return " ".join(sentences)


# Flashes


def _linear_table() -> np.ndarray:
    """sRGB byte -> linear light, 0 to 1 (IEC 61966-2-1), as WCAG's relative luminance asks."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _linear_table()
_AS_FLOAT = np.arange(256, dtype=np.float32)


def _luminance_cells(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per cell of a 16 x 16 grid: relative luminance, and the amount of saturated red; each `[T, cells]`."""
    light = _cell_means(frames, _LINEAR)
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    others = light[..., 1] + light[..., 2]
    saturated = light[..., 0] >= _RED_SHARE * np.maximum(light[..., 0] + others, 1e-6)
    red = np.where(saturated, np.maximum(light[..., 0] - others, 0), 0)
    return luminance, red


def _cell_means(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Means over the grid's cells of what `table` gives for each byte: `[T, H, W, 3]` -> `[T, cells, 3]`.

    Pictures smaller than the grid have a cell for each pixel.
    """
    count, height, width = frames.shape[:3]
    rows = np.linspace(0, height, min(_CELLS, height) + 1).astype(int)
    columns = np.linspace(0, width, min(_CELLS, width) + 1).astype(int)
    area = (np.diff(rows)[:, None] * np.diff(columns)[None, :])[None, :, :, None]
    parts = []
    for start in range(0, count, _FRAMES_AT_ONCE):
        values = table[frames[start : start + _FRAMES_AT_ONCE]]
        sums = np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=1), columns[:-1], axis=2)
        parts.append((sums / area).astype(np.float32))
    return np.concatenate(parts).reshape(count, -1, 3)


def _flash_rate(cells: np.ndarray, times: np.ndarray, change: float, darker_below: float) -> float:
    """The most flashes within one second, seen by a quarter of the picture; half flashes do not count."""
    rises, falls = _transitions(cells, change, darker_below)
    together = _at_once(rises) | _at_once(falls)
    if not together.any():
        return 0.0
    moments = times[together.any(axis=1)]
    most = 0
    for moment in moments:
        within = (times >= moment - 1e-6) & (times < moment + 1 - 1e-6)
        flashes = together[within].sum(axis=0) // 2
        most = max(most, int(np.sort(flashes)[::-1][_quarter(len(flashes)) - 1]))
    return float(most)


def _transitions(cells: np.ndarray, change: float, darker_below: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each cell completes a rise or a fall of `change`: bool `[T, cells]` each."""
    rises, falls = np.zeros(cells.shape, bool), np.zeros(cells.shape, bool)
    low, high = cells[0].copy(), cells[0].copy()
    for index in range(1, len(cells)):
        now = cells[index]
        np.minimum(low, now, out=low)
        np.maximum(high, now, out=high)
        rise = (now - low >= change) & (low < darker_below)
        fall = (high - now >= change) & (now < darker_below)
        # After a transition only the opposite one can follow: the extreme restarts from here.
        low[fall], high[fall] = now[fall], now[fall]
        low[rise], high[rise] = now[rise], now[rise]
        rises[index], falls[index] = rise, fall
    return _alternating(rises, falls)


def _alternating(rises: np.ndarray, falls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Only the first of several transitions of one sign in a row: a slow rise in steps is one rise."""
    last = np.zeros(rises.shape[1], np.int8)
    for index in range(len(rises)):
        rises[index] &= last != 1
        falls[index] &= last != -1
        last[rises[index]] = 1
        last[falls[index]] = -1
    return rises, falls


def _at_once(transitions: np.ndarray) -> np.ndarray:
    """Transitions that a quarter of all cells make within neighbouring frames."""
    padded = np.pad(transitions, ((1, 1), (0, 0)))
    near = padded[:-2] | padded[1:-1] | padded[2:]
    enough = near.sum(axis=1) >= _quarter(transitions.shape[1])
    return transitions & enough[:, None]


def _quarter(cells: int) -> int:
    return max(1, int(np.ceil(_FLASH_AREA * cells)))


# Cuts


def _cuts(frames: np.ndarray, times: np.ndarray) -> list[int]:
    """Numbers of frames that begin a new shot.

    A cut stands out from the changes around it, changes the layout (the correlation of both pictures) or
    clearly the colours, and the old picture does not come back soon: what comes back is a flash.
    """
    if len(frames) < 2:
        return []
    coarse = _cell_means(frames, _AS_FLOAT)
    change = np.abs(np.diff(coarse, axis=0)).mean(axis=(1, 2))
    histograms: dict[int, np.ndarray] = {}

    def histogram(index: int) -> np.ndarray:
        if index not in histograms:
            bins = (frames[index] >> 6).reshape(-1, 3) @ np.array([16, 4, 1])
            histograms[index] = np.bincount(bins, minlength=64) / len(bins)
        return histograms[index]

    found = []
    for step in np.nonzero(change > _CUT_LEAST_CHANGE)[0]:
        before, after = int(step), int(step) + 1
        around = np.delete(change[max(0, before - 6) : before + 7], min(before, 6))
        if change[step] < _CUT_PEAK * max(1.0, float(np.median(around)) if len(around) else 0.0):
            continue
        recoloured = (
            change[step] > _CUT_CLEAR_CHANGE
            and np.abs(histogram(before) - histogram(after)).sum() / 2 > _CUT_HISTOGRAM
        )
        if not recoloured and _likeness(coarse[before], coarse[after]) > _CUT_LIKENESS:
            continue
        soon = (times > times[after]) & (times <= times[after] + _CUT_RETURN_S)
        recent = (times < times[before]) & (times >= times[before] - _CUT_RETURN_S)
        if _like(coarse[before], coarse[soon], change[step]) or _like(
            coarse[after], coarse[recent], change[step]
        ):
            continue
        found.append(after)
    return found


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures' cells, -1 to 1; 1 where one of them is flat and has no layout."""
    first, second = (picture.mean(axis=1) - picture.mean() for picture in (one, other))
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms > 1.0 else 1.0


def _like(picture: np.ndarray, others: np.ndarray, change: float) -> bool:
    """Whether any of the others is much nearer to the picture than the change that is judged."""
    return bool(len(others)) and float(np.abs(others - picture).mean(axis=(1, 2)).min()) < 0.35 * change


# Colours

_HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (195, "cyan"), (255, "blue"),
         (300, "purple"), (345, "pink"), (361, "red"))  # fmt: skip
_COLOUR_NAMES = (
    "black", "grey", "white", "brown", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink",
)  # fmt: skip
_MUTED = frozenset({"black", "grey", "brown"})
_LEAST_SHARE, _LEAST_MUTED_SHARE, _LEAST_MOVING_SHARE, _MOST_COLOURS = 0.02, 0.08, 0.1, 4


def _colour_table() -> np.ndarray:
    """The name's number for each RGB value cut to 5 bits a channel: int8 `[32, 32, 32]`."""
    levels = (np.arange(32) * 8 + 4) / 255
    red, green, blue = np.meshgrid(levels, levels, levels, indexing="ij")
    top, bottom = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = top - bottom
    safe = np.maximum(chroma, 1e-9)
    hue = 60 * np.select(
        [top == red, top == green],
        [((green - blue) / safe) % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    names = np.full(hue.shape, _COLOUR_NAMES.index("red"), np.int8)
    for limit, name in reversed(_HUES):
        names[hue < limit] = _COLOUR_NAMES.index(name)
    dull = chroma < np.maximum(0.36 * top, 0.12)
    warm = (hue < 55) | (hue >= 345)
    names[warm & (top < 0.62) & (chroma < 0.85 * top)] = _COLOUR_NAMES.index("brown")
    names[dull] = _COLOUR_NAMES.index("grey")
    names[dull & (top > 0.86) & (chroma < 0.14)] = _COLOUR_NAMES.index("white")
    names[top < 0.17] = _COLOUR_NAMES.index("black")
    return names


_COLOUR_OF = _colour_table()


def _colour_counts(pixels: np.ndarray) -> np.ndarray:
    """How many pixels, uint8 `[..., 3]`, have each named colour."""
    cut = pixels.reshape(-1, 3) >> 3
    return np.bincount(_COLOUR_OF[cut[:, 0], cut[:, 1], cut[:, 2]], minlength=len(_COLOUR_NAMES))


def _main_colours(frames: np.ndarray) -> tuple[Colour, ...]:
    """Colours with a fair share of the picture, largest first; vivid ones count from a smaller share."""
    some = frames[:: max(1, len(frames) // 12)]
    return _named(_colour_counts(some), _LEAST_SHARE, _LEAST_MUTED_SHARE)


def _moving_colours(pairs: _MotionPairs) -> tuple[Colour, ...]:
    """Vivid colours of what covers the ground it moves over, largest first; none if nothing compact moves.

    Muted ones are left out: they are shadows and the ground that shines through.
    """
    if pairs.covering is None:
        return ()
    named = _named(pairs.covering, _LEAST_MOVING_SHARE, _LEAST_MOVING_SHARE)
    return tuple(colour for colour in named if colour.name not in _MUTED)


def _named(counts: np.ndarray, least: float, least_muted: float) -> tuple[Colour, ...]:
    shares = counts / max(1, counts.sum())
    order = np.argsort(-shares, kind="stable")
    found = [
        Colour(_COLOUR_NAMES[index], round(float(shares[index]), 3))
        for index in order
        if shares[index] >= (least_muted if _COLOUR_NAMES[index] in _MUTED else least)
    ]
    return tuple(found[:_MOST_COLOURS]) or (
        Colour(_COLOUR_NAMES[order[0]], round(float(shares[order[0]]), 3)),
    )


# Motion


class _MotionPairs:
    """What changes between frames about a sixth of a second apart, cuts left out.

    Attributes:
        moments: Middle of each pair, seconds.
        changed: Share of pixels that change.
        centres: Centre of the change, x and y in shares of the longer side; NaN where nothing changes.
        spreads: Standard distance of the change from its centre, the same unit.
        shifts: Displacement of the whole picture, shares of the longer side a second; NaN where the change
            is no shift.
        covering: Pixels of each named colour in what moved, or None.
    """

    def __init__(self, frames: np.ndarray, times: np.ndarray, cuts: Sequence[int]) -> None:
        gap = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        stride = max(1, round(1 / (_MOTION_RATE * gap)))
        reach = 2 * stride
        starts = [
            i for i in range(0, len(frames) - reach, stride) if not any(i < cut <= i + reach for cut in cuts)
        ]
        self.side = max(frames.shape[1:3])
        self.duration_s = float(times[-1]) + gap
        self.moments = np.array([(times[i] + times[i + reach]) / 2 for i in starts])
        size = len(starts)
        self.changed = np.zeros(size)
        self.centres = np.full((size, 2), np.nan)
        self.spreads = np.full(size, np.nan)
        self.shifts = np.full((size, 2), np.nan)
        for place, index in enumerate(starts):
            self._compare(
                place, frames[index], frames[index + reach], float(times[index + reach] - times[index])
            )
        self.covering = self._covering(frames, starts, reach)

    def _compare(self, place: int, one: np.ndarray, other: np.ndarray, seconds: float) -> None:
        difference = other.astype(np.int16) - one
        # A flash or fade changes all pixels alike; what is left after its median is motion.
        difference -= np.median(difference[::2, ::2], axis=(0, 1)).astype(np.int16)
        size = _largest(np.abs(difference))
        mask = size > _CHANGED
        self.changed[place] = mask.mean()
        if self.changed[place] < _STILL_SHARE:
            return
        rows, columns = np.nonzero(mask)
        weights = size[mask].astype(float)
        centre = np.array([np.average(columns, weights=weights), np.average(rows, weights=weights)])
        away = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
        self.centres[place] = centre / self.side
        self.spreads[place] = np.sqrt(np.average(away, weights=weights)) / self.side
        if self.changed[place] > _ALL_OVER_SHARE or self.spreads[place] > _COMPACT:
            shift = _picture_shift(one, other)
            if shift is not None:
                self.shifts[place] = np.array(shift) / self.side / seconds

    def _covering(self, frames: np.ndarray, starts: list[int], reach: int) -> np.ndarray | None:
        """Colours of pixels that differ from both the earlier and the later frame: the thing itself.

        Ground that is left behind differs from one of the two only.
        """
        compact = (self.changed >= _STILL_SHARE) & (self.spreads < _COMPACT)
        if len(starts) < 4 or compact.mean() < 0.5:
            return None
        far = max(reach, len(frames) // 3)
        counts = np.zeros(len(_COLOUR_NAMES), int)
        for index in range(far, len(frames) - far, max(1, len(frames) // 24)):
            now = frames[index].astype(np.int16)
            earlier, later = (_largest(np.abs(now - frames[at])) for at in (index - far, index + far))
            counts += _colour_counts(frames[index][(earlier > 2 * _CHANGED) & (later > 2 * _CHANGED)])
        return counts if counts.sum() else None


def _largest(channels: np.ndarray) -> np.ndarray:
    """The largest of three channels, `[H, W, 3]` -> `[H, W]`; faster than `max` over so short an axis."""
    return np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])


def _picture_shift(one: np.ndarray, other: np.ndarray) -> tuple[float, float] | None:
    """How far the whole picture moved, x and y in pixels, by phase correlation.

    None where moving the picture back does not make the two alike: the change is no shift.
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
    return (float(across), float(down)) if moved < _SHIFT_GAIN * still else None


def _overlap_difference(one: np.ndarray, other: np.ndarray, down: int, across: int) -> float:
    height, width = one.shape
    if 2 * abs(down) >= height or 2 * abs(across) >= width:
        return float("inf")
    there = other[max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
    here = one[max(0, -down) : height + min(0, -down), max(0, -across) : width + min(0, -across)]
    return float(np.abs(there - here).mean())


def _motion(pairs: _MotionPairs) -> tuple[MotionSegment, ...]:
    """Motion over time, in segments of about 0.7 s; neighbours of one kind and direction are joined."""
    count = int(np.clip(round(pairs.duration_s / _SEGMENT_S), 1, 40))
    edges = np.linspace(0.0, pairs.duration_s, count + 1)
    segments: list[MotionSegment] = []
    for start, end in pairwise(edges):
        # Two pairs more on either side steady the fit.
        inside = (pairs.moments >= start - 0.09) & (pairs.moments < end + 0.09)
        kind, direction, travel = _motion_of(pairs, inside, end - start)
        now = MotionSegment(round(float(start), 3), round(float(end), 3), kind, direction, round(travel, 3))
        last = segments[-1] if segments else None
        if last is not None and (last.kind, last.direction) == (kind, direction):
            segments[-1] = MotionSegment(
                last.start_s, now.end_s, kind, direction, round(last.travel + travel, 3)
            )
        else:
            segments.append(now)
    return tuple(segments)


def _motion_of(pairs: _MotionPairs, inside: np.ndarray, seconds: float) -> tuple[str, Direction, float]:
    """Kind, direction and travel within one segment."""
    changed = pairs.changed[inside]
    if not len(changed) or float(np.median(changed)) < _STILL_SHARE:
        return "still", "none", 0.0
    shifts = pairs.shifts[inside]
    shifted = ~np.isnan(shifts[:, 0])
    if shifted.mean() >= 0.6:
        speed = np.median(shifts[shifted], axis=0)
        direction, travel = _direction(speed * seconds)
        return ("picture", direction, travel) if direction != "none" else ("scattered", "none", travel)
    some = inside & ~np.isnan(pairs.centres[:, 0])
    if np.median(pairs.spreads[some]) >= _COMPACT or some.sum() < 3:
        return "scattered", "none", 0.0
    step, fits = _line_through(pairs.moments[some], pairs.centres[some])
    direction, travel = _direction(step * seconds)
    return ("object", direction, travel) if fits and direction != "none" else ("scattered", "none", travel)


def _line_through(moments: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, bool]:
    """Speed of the centres, x and y a second, and whether a steady motion explains them."""
    time = moments - moments.mean()
    away = centres - centres.mean(axis=0)
    speed = time @ away / max(float(time @ time), 1e-9)
    left_over = away - np.outer(time, speed)
    total = float((away**2).sum())
    return speed, total > 0 and 1 - float((left_over**2).sum()) / total >= _LEAST_FIT


def _direction(step: np.ndarray) -> tuple[Direction, float]:
    """The main direction of a step (x right, y down, shares of the longer side) and its length."""
    length = float(np.hypot(*step))
    if length < _LEAST_TRAVEL:
        return "none", length
    if abs(step[0]) >= abs(step[1]):
        return ("right" if step[0] > 0 else "left"), length
    return ("down" if step[1] > 0 else "up"), length


# Words


def _figure(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _listed(words: Sequence[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _cut_words(cuts: tuple[float, ...]) -> str:
    if not cuts:
        return "No cuts."
    listed = ", ".join(f"{time:.1f}" for time in cuts[:8])
    more = f" and {len(cuts) - 8} more" if len(cuts) > 8 else ""
    return f"{len(cuts)} {'cut' if len(cuts) == 1 else 'cuts'}, at {listed} s{more}."


def _flash_words(general: float, red: float) -> str:
    if not general and not red:
        return "No flashes."
    words = []
    if general:
        words.append(f"Flashes: {_figure(general)} within a second, {_against_limit(general)}.")
    if red:
        words.append(f"Red flashes: {_figure(red)} within a second, {_against_limit(red)}.")
    return " ".join(words)


def _against_limit(rate: float) -> str:
    return f"{'above' if rate > _FLASH_LIMIT else 'within'} the limit of {_FLASH_LIMIT}"


_MOVERS: dict[str, Callable[[str], str]] = {
    "object": lambda direction: f"something moves {direction}",
    "picture": lambda direction: f"the whole picture shifts {direction}",
}


def _time_of(segments: Sequence[MotionSegment], kind: str) -> float:
    """The share of the time that motion of a kind fills, 0 to 1."""
    if all(segment.kind == kind for segment in segments):
        return 1.0
    lengths = [segment.end_s - segment.start_s for segment in segments]
    return sum(each.end_s - each.start_s for each in segments if each.kind == kind) / sum(lengths)


def _motion_words(segments: tuple[MotionSegment, ...]) -> str:
    """The course of directions; where there is none, whether anything changes at all."""
    steered = [segment for segment in segments if segment.direction != "none"]
    total = segments[-1].end_s - segments[0].start_s
    if not steered:
        still = _time_of(segments, "still")
        if still == 1:
            return "Motion: nothing moves."
        few = "almost nothing moves" if still >= 0.7 else "things move, in no one direction"
        return f"Motion: {few}."
    course = [(segment.kind, segment.direction) for segment in steered]
    course = [step for place, step in enumerate(course) if place == 0 or step != course[place - 1]]
    spent = sum(segment.end_s - segment.start_s for segment in steered)
    if len(course) == 1:
        kind, direction = course[0]
        steady = "steadily" if spent >= 0.9 * total else "for part of the time"
        return f"Motion: {_MOVERS[kind](direction)}, {steady}."
    if len(course) > 5 or spent < 0.5 * total:
        return "Motion: things move, in no one direction."
    return f"Motion: {', then '.join(_MOVERS[kind](direction) for kind, direction in course)}."
