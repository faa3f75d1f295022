"""Cuts come out at their frames; flashes, fades, moving things and pans are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from safevid_core.descriptions.signals.measurement import measure
from tests.video.clips_for_tests import write_video

HEIGHT, WIDTH, FPS = 180, 320, 25
DOWN, ACROSS = np.mgrid[:HEIGHT, :WIDTH]


def blocks(seed: int, contrast: int = 90) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-contrast, contrast, (9, 16, 3)).repeat(20, 0).repeat(20, 1) + 120


def fine(seed: int, contrast: int = 90) -> np.ndarray:
    """A texture of single pixels: its means over larger areas tell nothing."""
    rng = np.random.default_rng(seed)
    return rng.normal(120, contrast / 2, (HEIGHT, WIDTH, 1)).repeat(3, -1)


def stripes(seed: int, contrast: int = 90) -> np.ndarray:
    along = (ACROSS if seed % 2 else DOWN) // (2 + seed % 3)
    return np.where(along % 2, 120 + contrast / 2, 120 - contrast / 2)[..., None].repeat(3, -1)


def shapes(seed: int, contrast: int = 90) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, WIDTH, 3)) + rng.integers(60, 180, 3)
    for across, down, size in zip(
        rng.integers(0, WIDTH, 9), rng.integers(0, HEIGHT, 9), rng.integers(15, 50, 9), strict=True
    ):
        disc = (ACROSS - across) ** 2 + (DOWN - down) ** 2 < size**2
        picture[disc] = 120 + rng.integers(-contrast, contrast, 3)
    return picture


Scene = Callable[..., np.ndarray]
SCENES: tuple[Scene, ...] = (blocks, fine, stripes, shapes)


def held(picture: np.ndarray, count: int, noise: float = 2.0) -> np.ndarray:
    """`count` frames of a picture with a little noise."""
    rng = np.random.default_rng(count)
    return np.clip(picture[None] + rng.normal(0, noise, (count, HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)


def plain(count: int, colour: int | tuple[int, int, int]) -> np.ndarray:
    return np.zeros((count, HEIGHT, WIDTH, 3), np.uint8) + np.array(colour, np.uint8)


def cuts(path: Path, *parts: np.ndarray) -> list[int]:
    """The frames at which cuts were found."""
    found = measure(str(write_video(path, np.concatenate(parts), fps=FPS)))[0].cuts_s
    return [round(time_s * FPS) for time_s in found]


@pytest.mark.parametrize("scene", SCENES)
def test_a_cut_between_two_pictures(tmp_path: Path, scene: Scene) -> None:
    one, other = scene(1), scene(2)
    assert cuts(tmp_path / "a.mp4", held(one, 20), held(other, 20)) == [20]
    faint = held(scene(1, 14), 20, 1), held(scene(2, 14), 20, 1)
    assert cuts(tmp_path / "b.mp4", *faint) == [20]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(("frames", "colour"), [(1, 250), (2, 250), (3, 10)])
def test_blank_frames_are_no_shot(tmp_path: Path, scene: Scene, frames: int, colour: int) -> None:
    one, other, blank = held(scene(1), 20), held(scene(2), 20), plain(frames, colour)
    assert cuts(tmp_path / "a.mp4", one, blank, other) == [20 + frames]
    assert cuts(tmp_path / "b.mp4", one, blank, held(scene(1), 21)) == []


@pytest.mark.parametrize("scene", SCENES)
def test_a_cut_undone_soon_is_two_cuts(tmp_path: Path, scene: Scene) -> None:
    assert cuts(tmp_path / "a.mp4", held(scene(1), 20), held(scene(2), 12), held(scene(1), 21)) == [20, 32]


@pytest.mark.parametrize("scene", [blocks, fine, shapes])
def test_a_montage_of_short_shots(tmp_path: Path, scene: Scene) -> None:
    shots = [held(scene(seed), 5) for seed in range(10, 18)]
    assert cuts(tmp_path / "a.mp4", *shots) == [5, 10, 15, 20, 25, 30, 35]


def test_colours_of_one_luminance_are_distinguished(tmp_path: Path) -> None:
    red, green = plain(20, (200, 30, 30)), plain(20, (20, 118, 20))
    assert cuts(tmp_path / "a.mp4", red, green) == [20]
    assert cuts(tmp_path / "b.mp4", red, green[:12], red) == [20, 32]


@pytest.mark.parametrize("scene", SCENES)
def test_light_fades_and_dissolves_are_no_cuts(tmp_path: Path, scene: Scene) -> None:
    one, other = held(scene(1), 40), held(scene(2), 40)
    bright = np.clip(one[:3].astype(int) + 90, 0, 255).astype(np.uint8)
    assert cuts(tmp_path / "flash.mp4", one, bright, one) == []
    share = np.linspace(0, 1, 25)[:, None, None, None]
    dissolve = (one[:25] * (1 - share) + other[:25] * share).astype(np.uint8)
    assert cuts(tmp_path / "dissolve.mp4", one, dissolve, other) == []
    assert cuts(tmp_path / "fade.mp4", (one[:25] * (1 - share)).astype(np.uint8)) == []


@pytest.mark.parametrize("frames", [2, 4, 7])
def test_flicker_of_parts_is_no_cut(tmp_path: Path, frames: int) -> None:
    bright = np.arange(42) // frames % 2
    part = held(blocks(1), 42)
    part[:, :, :140] = np.where(bright, 235, 20)[:, None, None, None]
    board = (ACROSS // 20 + DOWN // 20)[None] + bright[:, None, None]
    assert cuts(tmp_path / "part.mp4", part) == []
    assert (
        cuts(tmp_path / "board.mp4", np.where(board % 2, 220, 30).astype(np.uint8)[..., None].repeat(3, -1))
        == []
    )


@pytest.mark.parametrize("step", [2, 6, 12])
def test_pans_are_no_cuts(tmp_path: Path, step: int) -> None:
    wide = np.random.default_rng(1).integers(20, 235, (6, 40, 3)).repeat(30, 0).repeat(30, 1)
    pan = np.stack([wide[:, index * step : index * step + WIDTH] for index in range(48)]).astype(np.uint8)
    assert cuts(tmp_path / "pan.mp4", pan) == []
    assert cuts(tmp_path / "stutter.mp4", pan[np.arange(48) // 2 * 2]) == []


def test_lettering_that_appears_is_no_cut(tmp_path: Path) -> None:
    slide = plain(40, 250)
    letters = (DOWN > 40) & (DOWN < 55) & (ACROSS > 30) & (ACROSS < 200) & (ACROSS // 4 % 2 == 0)
    slide[20:, letters] = 20
    assert cuts(tmp_path / "slide.mp4", slide) == []
