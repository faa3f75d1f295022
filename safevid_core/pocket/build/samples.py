"""Training clips: combinations of the build side, as frames after H.264 encoding and decoding."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from safevid_core.pocket.world import (
    COLOURS,
    EVENTS,
    MOTIONS,
    OBJECTS,
    SCENES,
    ClipTruth,
    object_centres,
    render_frames,
    split_of_combination,
    write_clip,
)

FRAMES = 4
BLANK_SHADES = (0, 40, 90, 128, 200)


@dataclass(frozen=True)
class Samples:
    """Clips with their truths: `frames` is uint8 `[N, FRAMES, H, W, 3]`, `truths` has N entries.

    `centres` is float32 `[N, FRAMES, 2]`: x and y of the object's centre as shares of the side.
    """

    frames: np.ndarray
    centres: np.ndarray
    truths: list[ClipTruth]


def draw_truths(count: int, seed: int, side: str = "build") -> list[ClipTruth]:
    """`count` truths. Scene, motion, and the combinations of one side are drawn with equal probability."""
    rng = np.random.default_rng(seed)
    combinations = [
        (thing, colour, event)
        for thing in OBJECTS
        for colour in COLOURS
        for event in EVENTS
        if split_of_combination(thing, colour, event) == side
    ]
    truths = []
    for _ in range(count):
        thing, colour, event = combinations[rng.integers(len(combinations))]
        scene, motion = SCENES[rng.integers(len(SCENES))], MOTIONS[rng.integers(len(MOTIONS))]
        truths.append(ClipTruth(scene, thing, colour, motion, event))
    return truths


def draw_samples(count: int, seed: int, side: str = "build") -> Samples:
    """Clips for the truths of `draw_truths`, each with its own geometry."""
    rng = np.random.default_rng([seed, 1])
    truths = draw_truths(count, seed, side)
    geometries, ends = rng.integers(2**31, size=count).tolist(), rng.integers(2, size=count)
    frames, centres = [], []
    for truth, geometry, to_the_ends in zip(truths, geometries, ends, strict=True):
        rendered = render_frames(truth, geometry)
        chosen = uniform_indices(len(rendered), ends=bool(to_the_ends))
        frames.append(through_h264(rendered, chosen))
        centres.append(object_centres(truth, geometry, len(rendered))[chosen])
    return Samples(np.stack(frames), np.stack(centres).astype(np.float32), truths)


def uniform_indices(length: int, ends: bool) -> np.ndarray:
    """FRAMES uniform frame numbers. With `ends`, from first to last, else the middles of equal parts."""
    if ends:
        return np.linspace(0, length - 1, FRAMES).round().astype(int)
    return ((np.arange(FRAMES) + 0.5) * length / FRAMES).astype(int)


def through_h264(frames: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The frames `chosen` of uint8 `[T, H, W, 3]` frames, after encoding and decoding all of them."""
    import av

    buffer = io.BytesIO()
    write_clip(buffer, frames)
    buffer.seek(0)
    wanted = set(chosen.tolist())
    with av.open(buffer, "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        decoded = enumerate(container.decode(stream))
        return np.stack([frame.to_ndarray(format="rgb24") for number, frame in decoded if number in wanted])
