"""Names the colours of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Colour:
    """A named colour and the share of pixels that have it, 0 to 1."""

    name: str
    share: float


_HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (195, "cyan"), (255, "blue"),
         (300, "purple"), (345, "pink"), (361, "red"))  # fmt: skip
COLOUR_NAMES = (
    "black", "grey", "white", "brown", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink",
)  # fmt: skip
_MUTED = frozenset({"black", "grey", "brown"})
_LEAST_SHARE, _LEAST_MUTED_SHARE, _LEAST_MOVING_SHARE, _MOST_COLOURS = 0.02, 0.08, 0.1, 4


def _colour_table() -> np.ndarray:
    """The index into COLOUR_NAMES of each RGB value with 5 bits a channel: int8 `[32, 32, 32]`."""
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
    names = np.full(hue.shape, COLOUR_NAMES.index("red"), np.int8)
    for limit, name in reversed(_HUES):
        names[hue < limit] = COLOUR_NAMES.index(name)
    dull = chroma < np.maximum(0.36 * top, 0.12)
    warm = (hue < 55) | (hue >= 345)
    names[warm & (top < 0.62) & (chroma < 0.85 * top)] = COLOUR_NAMES.index("brown")
    names[dull] = COLOUR_NAMES.index("grey")
    names[dull & (top > 0.86) & (chroma < 0.14)] = COLOUR_NAMES.index("white")
    names[top < 0.17] = COLOUR_NAMES.index("black")
    return names


_COLOUR_OF = _colour_table()


def colour_counts(pixels: np.ndarray) -> np.ndarray:
    """The number of pixels of each named colour, for pixels uint8 `[..., 3]`: `[12]`, as in COLOUR_NAMES."""
    cut = pixels.reshape(-1, 3) >> 3
    return np.bincount(_COLOUR_OF[cut[:, 0], cut[:, 1], cut[:, 2]], minlength=len(COLOUR_NAMES))


def main_colours(frames: np.ndarray) -> tuple[Colour, ...]:
    """The colours of the picture, largest share first: from 2%, or from 8% for black, grey and brown."""
    some = frames[:: max(1, len(frames) // 12)]
    return _named(colour_counts(some), _LEAST_SHARE, _LEAST_MUTED_SHARE)


def moving_colours(covering: np.ndarray | None) -> tuple[Colour, ...]:
    """The vivid colours of a moving object, largest share first. Empty if no compact object moves.

    Black, grey and brown are left out, because shadows and visible background have them.

    Args:
        covering: Number of moving pixels of each named colour, `[12]`, or None.
    """
    if covering is None:
        return ()
    named = _named(covering, _LEAST_MOVING_SHARE, _LEAST_MOVING_SHARE)
    return tuple(colour for colour in named if colour.name not in _MUTED)


def _named(counts: np.ndarray, least: float, least_muted: float) -> tuple[Colour, ...]:
    shares = counts / max(1, counts.sum())
    order = np.argsort(-shares, kind="stable")
    found = [
        Colour(COLOUR_NAMES[index], round(float(shares[index]), 3))
        for index in order
        if shares[index] >= (least_muted if COLOUR_NAMES[index] in _MUTED else least)
    ]
    return tuple(found[:_MOST_COLOURS]) or (
        Colour(COLOUR_NAMES[order[0]], round(float(shares[order[0]]), 3)),
    )
