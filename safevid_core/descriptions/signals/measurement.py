"""Takes all measurements of one clip, if possible in one pass over its frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from safevid_core.descriptions.signals.colours import Colour, main_colours, moving_colours
from safevid_core.descriptions.signals.cuts import CutFrames
from safevid_core.descriptions.signals.flashes import (
    FLASH_LIMIT,
    GeneralFlashes,
    Record,
    RedSample,
    flashes_of,
    red_records,
)
from safevid_core.descriptions.signals.motion import MotionPairs, MotionSegment, motion_segments, panning
from safevid_core.video.decoding import iterate_frames, probe, resize
from safevid_core.video.opening import SAME_INSTANT_S

# Flashes and cuts are measured at this size. A checkerboard field of 1/96 of the longer side is 2 pixels
# wide.
_MAX_SIDE = 192
_MOTION_SIDE = 96
# If the flashing area is near a quarter, the pixels along its edge decide, and it is measured at this size.
_FINE_SIDE = 768
_NEAR_A_QUARTER = (0.1, 0.5)

_FALLBACK_FPS = 25.0
# Matroska, FLV and ASF count milliseconds, so the lengths of equal frames differ by up to 1 ms.
_COARSEST_TICK_S = 1e-3

TimedFrames = Iterable[tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Measurements:
    """All measurements of a clip. Times are seconds from the clip's start, luminances are 0 to 1.

    Flash figures are the largest number within one second: general flashes, red flashes by WCAG 2.0 and 2.1,
    and red flashes by the chromaticity of WCAG 2.2.
    """

    duration_s: float
    fps: float
    frames: int
    cuts_s: tuple[float, ...]
    mean_luminance: float
    luminance_spread: float
    flashes_per_second: float
    red_flashes_per_second: float
    red_flashes_by_chromaticity_per_second: float
    colours: tuple[Colour, ...]
    moving_colours: tuple[Colour, ...]
    changed_share: float
    motion: tuple[MotionSegment, ...]


def measure(
    path: str | os.PathLike[str], start_s: float = 0.0, end_s: float | None = None
) -> tuple[Measurements, list[float]]:
    """Measure a clip. Returns the measurements and the times of all frames in seconds.

    Raises:
        VideoError: If the clip cannot be decoded.
    """
    measured, times = _measure(lambda side: iterate_frames(path, side, start_s, end_s), probe(path).fps)
    return measured, [round(each, 3) for each in times]


def measure_frames(frames: np.ndarray, times: np.ndarray) -> Measurements:
    """Measure decoded frames, uint8 RGB `[T, H, W, 3]`, shown at `times` (`[T]`, seconds, from 0)."""
    return _measure(lambda _side: zip(times.tolist(), frames, strict=True))[0]


def _measure(
    read: Callable[[int], TimedFrames], stated_fps: float | None = None
) -> tuple[Measurements, list[float]]:
    """Measure a clip in one pass, or in several if it has much saturated red or areas near a quarter.

    Args:
        read: Returns all frames with their times in seconds. Its argument is the longest side in pixels.
        stated_fps: Frames a second by the file's header. None if there is no file.
    """
    flashes, reds, looks = GeneralFlashes(), RedSample(), CutFrames()
    times_list, smaller = [], []
    for time_s, frame in read(_MAX_SIDE):
        times_list.append(time_s)
        flashes.add(time_s, frame)
        reds.add(time_s, frame)
        smaller.append(_at_most(frame, _MOTION_SIDE))
        looks.add(frame, smaller[-1])
    frames, times = np.stack(smaller), np.array(times_list) - times_list[0]
    gap = _frame_length(times, stated_fps)
    cuts = looks.cuts(times)
    pairs = MotionPairs(frames, times, cuts)
    general, red, red_by_chromaticity = _flashes(read, flashes.record, reds, frames)
    measured = Measurements(
        duration_s=round(float(times[-1]) + gap, 3),
        fps=round(1 / gap, 3),
        frames=len(frames),
        cuts_s=tuple(round(float(times[index]), 3) for index in cuts),
        mean_luminance=round(float(np.mean(flashes.means)), 4),
        luminance_spread=round(float(np.std(flashes.means)), 4),
        flashes_per_second=general,
        red_flashes_per_second=red,
        red_flashes_by_chromaticity_per_second=red_by_chromaticity,
        colours=main_colours(frames),
        moving_colours=moving_colours(pairs.covering),
        changed_share=round(float(np.median(pairs.changed)), 4) if len(pairs.changed) else 0.0,
        motion=motion_segments(pairs),
    )
    return measured, times_list


def _frame_length(times: np.ndarray, stated_fps: float | None) -> float:
    """Seconds from one frame to the next. At a constant frame rate this is more exact than the rounded times.

    The stated rate is used if it fits the times as well as their mean does. At a varying rate, the most
    frequent length is used.
    """
    if len(times) < 2:
        return 1 / (stated_fps or _FALLBACK_FPS)
    places, mean = np.arange(len(times)), float(times[-1] - times[0]) / (len(times) - 1)
    off = np.abs(times - times[0] - places * mean).max()
    if off <= mean / 2:
        stated = 1 / stated_fps if stated_fps else mean
        fits = np.abs(times - times[0] - places * stated).max() <= 2 * off + _COARSEST_TICK_S + SAME_INSTANT_S
        return stated if fits else mean
    gaps = np.diff(times)
    usual = float(np.median(gaps))
    usual = float(gaps[np.abs(gaps - usual) <= _COARSEST_TICK_S + SAME_INSTANT_S].mean())
    return 1 / stated_fps if stated_fps and abs(1 / stated_fps - usual) <= SAME_INSTANT_S / 2 else usual


def _flashes(
    read: Callable[[int], TimedFrames], general: Record, reds: RedSample, smaller: np.ndarray
) -> tuple[float, float, float]:
    """The largest number of flashes within one second: general, red by WCAG 2.1, red by WCAG 2.2."""

    def counted(record: Record, again: Callable[[], Record]) -> float:
        if not record.possible():
            return 0.0
        passing = panning(smaller[:, ::2, ::2], record.busy())
        areas = record.areas(passing)
        if _near_a_quarter(areas):
            areas = again().areas(passing)
        return flashes_of(areas)

    def finer() -> Record:
        fine = GeneralFlashes()
        for time_s, frame in read(_FINE_SIDE):
            fine.add(time_s, frame)
        return fine.record

    if not reds.possible():
        return counted(general, finer), 0.0, 0.0
    old, new = red_records(read(_MAX_SIDE))
    return (
        counted(general, finer),
        counted(old, lambda: red_records(read(_FINE_SIDE))[0]),
        counted(new, lambda: red_records(read(_FINE_SIDE))[1]),
    )


def _near_a_quarter(areas: np.ndarray) -> bool:
    """Whether it is uncertain if more flashes than allowed cover a quarter of the picture."""
    least, most = _NEAR_A_QUARTER
    return len(areas) > FLASH_LIMIT and least <= areas[FLASH_LIMIT] <= most


def _at_most(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame scaled down, with the same proportions, so that no side is longer than `side` pixels."""
    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return frame
    if longest == 2 * side:
        return np.asarray(Image.fromarray(frame).reduce(2))
    return resize(frame, (max(1, round(height * side / longest)), max(1, round(width * side / longest))))
