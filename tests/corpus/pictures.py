"""Pictures that differ from seed to seed, as moving clips."""

from __future__ import annotations

import numpy as np


def moving_picture(seed: int, frames: int = 12, height: int = 64, width: int = 96) -> np.ndarray:
    """Coloured rectangles on a coloured ground, drifting slowly: uint8 `[T, H, W, 3]`."""
    rng = np.random.default_rng(seed)
    clip = np.empty((frames, height, width, 3), np.uint8)
    clip[:] = rng.integers(30, 226, 3)
    for _ in range(6):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 30)
        tall, wide, colour = rng.integers(10, 20), rng.integers(10, 30), rng.integers(0, 256, 3)
        drift = rng.integers(-4, 5)
        for index in range(frames):
            x = int(np.clip(left + drift * index / frames, 0, width - wide))
            clip[index, top : top + tall, x : x + wide] = colour
    return clip
