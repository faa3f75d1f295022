"""Flashes count by pixel and by area: what covers a quarter of the picture counts, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.descriptions.signals.flashes import relative_luminance
from safevid_core.descriptions.signals.measurement import Measurements, measure, measure_frames
from safevid_core.descriptions.signals.words import describe
from tests.video.clips_for_tests import sample_files, write_video

HEIGHT, WIDTH = 180, 320
DOWN, ACROSS = np.mgrid[:HEIGHT, :WIDTH]
FPS = 30


def left(share: float) -> np.ndarray:
    return round(share * WIDTH) > ACROSS


def corner(share: float) -> np.ndarray:
    side = 1 - np.sqrt(share)
    return (WIDTH * side <= ACROSS) & (HEIGHT * side <= DOWN)


def disc(share: float) -> np.ndarray:
    return share * WIDTH * HEIGHT / np.pi > (ACROSS - 150) ** 2 + (DOWN - 88) ** 2


def wedge(share: float) -> np.ndarray:
    return np.sqrt(2 * share) > ACROSS / WIDTH + DOWN / HEIGHT


def tiles(share: float) -> np.ndarray:
    """Tiles of 20 x 20 pixels all over the picture."""
    chosen = np.random.default_rng(3).permutation(144)[: round(share * 144)]
    return np.isin(DOWN // 20 * 16 + ACROSS // 20, chosen)


def clip(picture: Callable[[int], np.ndarray], count: int = 45) -> np.ndarray:
    """`count` frames, uint8 RGB, of grey pictures `[H, W]`."""
    return np.stack([picture(index) for index in range(count)]).astype(np.uint8)[..., None].repeat(3, -1)


def measured(path: Path, frames: np.ndarray) -> Measurements:
    return measure(str(write_video(path, frames, fps=FPS)))[0]


def region(mask: np.ndarray, low: int, high: int) -> np.ndarray:
    """A part of the picture that flashes five times a second."""
    return clip(lambda index: np.where(mask, high if index // 3 % 2 else low, 60))


@pytest.mark.parametrize(("low", "high"), [(20, 235), (100, 134)])
@pytest.mark.parametrize("shape", [left, corner, disc, wedge, tiles])
def test_an_area_counts_from_a_quarter_of_the_picture(
    tmp_path: Path, shape: Callable[[float], np.ndarray], low: int, high: int
) -> None:
    for share in (0.24, 0.26):
        mask = shape(share)
        assert mask.mean() == pytest.approx(share, abs=0.004)
        result = measured(tmp_path / f"{share}.mp4", region(mask, low, high))
        assert result.flashes_per_second == (5 if share > 0.25 else 0)


@pytest.mark.parametrize("fields", [(4, 2), (32, 18), (64, 36), (96, 54), (160, 90)])
def test_a_reversing_checkerboard_flashes(tmp_path: Path, fields: tuple[int, int]) -> None:
    wide, high = 640, 360
    down, across = np.mgrid[:high, :wide]
    board = across * fields[0] // wide + down * fields[1] // high
    frames = clip(lambda index: np.where((board + index) % 2, 235, 20), 36)
    assert measured(tmp_path / "c.mp4", frames).flashes_per_second == 15


def test_a_checkerboard_in_part_of_the_picture_counts_by_its_area(tmp_path: Path) -> None:
    board = ACROSS // 3 + DOWN // 3
    for share in (0.24, 0.26):
        part = corner(share)
        frames = clip(lambda index, part=part: np.where(part, (board + index) % 2 * 215 + 20, 90))
        assert (measured(tmp_path / f"{share}.mp4", frames).flashes_per_second > 3) == (share > 0.25)


@pytest.mark.parametrize("late", [0, 1, 3])
def test_regions_that_flash_at_different_moments_count_together(tmp_path: Path, late: int) -> None:
    def picture(index: int) -> np.ndarray:
        levels = [235 if at // 3 % 2 else 20 for at in (index, index + late)]
        return np.where(left(0.13), levels[0], np.where(ACROSS >= 0.87 * WIDTH, levels[1], 60))

    assert measured(tmp_path / "t.mp4", clip(picture)).flashes_per_second == 5


def test_regions_that_flash_one_after_the_other_do_not(tmp_path: Path) -> None:
    def picture(index: int) -> np.ndarray:
        level = 235 if index % 2 else 20
        first, second = (level, 20) if index < 36 else (20, level)
        return np.where(left(0.2), first, np.where(ACROSS >= 0.8 * WIDTH, second, 60))

    assert measured(tmp_path / "t.mp4", clip(picture, 72)).flashes_per_second == 0


def test_grain_static_and_pans_are_no_flashes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grain = np.clip(120 + rng.normal(0, 25, (30, HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8).repeat(3, -1)
    static = rng.integers(0, 256, (30, HEIGHT, WIDTH, 1), dtype=np.uint8).repeat(3, -1)
    wide = rng.integers(30, 220, (9, 64)).repeat(20, 0).repeat(20, 1)
    slow, fast = (clip(lambda i, step=step: wide[:, i * step : i * step + WIDTH]) for step in (2, 8))
    for name, frames in (("grain", grain), ("static", static), ("slow", slow), ("fast", fast)):
        assert measured(tmp_path / f"{name}.mp4", frames).flashes_per_second <= 3, name
    assert measured(tmp_path / "again.mp4", grain).flashes_per_second == 0


@pytest.mark.parametrize(
    ("one", "other", "general", "by_difference", "by_chromaticity"),
    [
        ((66, 66, 66), (160, 0, 0), 0, 5, 5),
        ((255, 255, 255), (255, 0, 0), 5, 5, 5),
        ((200, 0, 0), (255, 0, 0), 0, 5, 0),  # one chromaticity
        ((110, 60, 60), (130, 20, 20), 0, 5, 0),  # nearer than 0.2
        ((150, 60, 60), (150, 80, 60), 0, 0, 0),  # neither is a saturated red
        ((0, 0, 0), (30, 0, 0), 0, 0, 0),  # too dark for a hue
    ],
)
def test_red_flashes_by_both_definitions(
    one: tuple[int, int, int],
    other: tuple[int, int, int],
    general: int,
    by_difference: int,
    by_chromaticity: int,
) -> None:
    frames = np.full((60, 36, 64, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, :20] = other if index // 3 % 2 else one
    result = measure_frames(frames, np.arange(60) / FPS)
    assert result.flashes_per_second == general
    assert result.red_flashes_per_second == by_difference
    assert result.red_flashes_by_chromaticity_per_second == by_chromaticity
    frames[:, :, 15:] = 90  # 15 of 64 columns are left
    result = measure_frames(frames, np.arange(60) / FPS)
    assert (result.red_flashes_per_second, result.red_flashes_by_chromaticity_per_second) == (0, 0)


def test_the_words_name_the_version_of_the_red_rule() -> None:
    frames = np.zeros((60, 18, 32, 3), np.uint8)
    frames[:, :] = (66, 66, 66)
    frames[np.arange(60) // 3 % 2 == 1] = (160, 0, 0)
    text = describe(measure_frames(frames, np.arange(60) / FPS))
    assert "Red flashes: 5 within a second by WCAG 2.1 and 5 by WCAG 2.2, above the limit of 3." in text


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(0, 20), st.sampled_from([24, 25, 30, 60]))
def test_the_first_second_alone_is_enough(half_seconds: int, start: int, fps: int) -> None:
    """`half_seconds` reversals a half second, from any level, for one second, then stillness."""
    count = 3 * fps
    levels = np.full(count, 120, np.uint8)
    flashing = np.arange(start, start + fps)
    levels[flashing] = np.where(((flashing - start) * 2 * half_seconds // fps) % 2, 235, 10)
    frames = levels[:, None, None, None].repeat(9, 1).repeat(16, 2).repeat(3, 3)
    rate = measure_frames(frames, np.arange(count) / fps).flashes_per_second
    assert abs(rate - half_seconds) <= 1


def test_relative_luminance_is_that_of_wcag() -> None:
    pixels = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]], np.uint8)
    assert relative_luminance(pixels) / 10_000 == pytest.approx([1, 0.2126, 0.7152, 0.0722, 0.2159], abs=2e-4)


@pytest.mark.skipif(not sample_files("cases/video"), reason="the cases are not beside this checkout")
def test_the_given_cases() -> None:
    files = {path.name: path for path in sample_files("cases/video")}
    assert measure(str(files["checker_32x18.mp4"]))[0].flashes_per_second > 3
    measured_files = [measure(str(files[f"flash_first_second_libx264.{kind}"]))[0] for kind in ("ts", "mp4")]
    assert measured_files[0].flashes_per_second == measured_files[1].flashes_per_second == 7
