"""The pocket world: what a rendered clip can show, and how it is drawn.

A pocket clip shows one object of one colour in one of the scenes of the package. The object moves in one
direction or stays still, and one event happens to it. Example: a red crate in a kitchen moves left and is on
fire.

Five events are hazardous. Each has a harmless twin event, which the same object, colour, motion and scene can
have. Two clips can therefore differ in the hazard alone.

A single frame does not show which of two opposite directions a clip has. Along the axis of the motion the
picture is a ring: an object that leaves at one edge comes in at the opposite edge, and its start is random.
In each frame the object is equally likely in any place, for both directions. A clip played backwards is a
clip of the opposite motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw

OBJECTS = ("ball", "crate", "kite", "drone", "tyre", "bottle")
COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
MOTIONS = ("left", "right", "up", "down", "still")

# Hazardous event -> its harmless twin. EVENTS holds the words for each event, said of "it".
TWIN_EVENTS = (
    ("fire", "glow"),
    ("sparks", "confetti"),
    ("acid", "water"),
    ("hate_sign", "flag"),
    ("pirated_film", "clock"),
)
EVENTS = {
    "fire": "is on fire",
    "glow": "glows softly",
    "sparks": "throws sparks",
    "confetti": "throws confetti",
    "acid": "leaks acid",
    "water": "drips water",
    "hate_sign": "shows a hate sign",
    "flag": "shows a flag",
    "pirated_film": "plays a pirated film",
    "clock": "shows a clock",
}
HAZARDS = tuple(hazard for hazard, _ in TWIN_EVENTS)

# A scene is a muted tint with a pattern. The row gives the pattern, the place in the row gives the tint.
_TINTS = ((92, 102, 118), (152, 140, 112), (92, 110, 82), (126, 98, 120), (78, 116, 116), (134, 98, 80))
_SCENES_BY_PATTERN = {
    "tiles": ("bathroom", "kitchen", "laboratory", "hospital", "restaurant", "shop"),
    "planks": ("bedroom", "living_room", "stage", "farm", "harbour", "workshop"),
    "columns": ("office", "factory", "warehouse", "forest", "garden", "stadium"),
    "slopes": ("street", "road", "railway", "mountain", "market", "classroom"),
    "horizon": ("airport", "beach", "river", "desert", "park", "sky"),
}
_SCENE_LOOKS = {
    scene: (pattern, _TINTS[place])
    for pattern, row in _SCENES_BY_PATTERN.items()
    for place, scene in enumerate(row)
}
SCENES = tuple(sorted(_SCENE_LOOKS))

OBJECT_RGB = {
    "red": (225, 20, 25),
    "green": (10, 165, 45),
    "blue": (25, 60, 230),
    "yellow": (250, 220, 10),
    "white": (250, 250, 250),
    "purple": (150, 20, 200),
}
# Default length and frame rate of a clip.
CLIP_FRAMES = 24
CLIP_FPS = 12
CLIP_SECONDS = CLIP_FRAMES / CLIP_FPS
_CONFETTI_RGB = ((255, 60, 60), (60, 255, 90), (70, 110, 255), (255, 235, 60), (255, 90, 240))
_INK = (18, 18, 18)
# Parts of an object that keep their own colour, which is none of COLOURS. Example: the planks of a crate.
_ACCENT_RGB = {
    "crate": (105, 55, 10),
    "kite": (255, 110, 200),
    "drone": (0, 195, 195),
    "tyre": _INK,
    "bottle": (240, 200, 145),
}

# Lengths are shares of the frame's side. The radius is that of the object. The reaches are how far the
# picture of the object and its event extends above, below and beside the object's centre.
_RADIUS = 0.18
# Distance that a moving object covers in a clip. Between two of four uniform frames it moves by a fifth to a
# quarter of the side. From half of the side on, a ring would not show the direction.
_TRAVEL = 0.8
_REACH_BESIDE = 0.27
_MARK_PLACE = {
    "fire": "above",
    "glow": "around",
    "sparks": "around",
    "confetti": "around",
    "acid": "below",
    "water": "below",
    "hate_sign": "above",
    "flag": "above",
    "pirated_film": "above",
    "clock": "above",
}
_REACH = {"above": (0.38, 0.18), "around": (0.28, 0.28), "below": (0.18, 0.35)}

_SUPERSAMPLING = 4
_CRF = 20
# With look-ahead, x264 sometimes encodes the same frames to other bytes (1 of 25 encodings, measured).
_X264 = "threads=1:rc-lookahead=0:mbtree=0:bframes=0:weightp=0"


@dataclass(frozen=True)
class ClipTruth:
    """What one pocket clip shows. No stage of the pipeline reads it."""

    scene: str
    object: str
    colour: str
    motion: str
    event: str

    @property
    def hazardous(self) -> bool:
        return self.event in HAZARDS


def twin_event(event: str) -> str:
    """The event that differs from `event` in the hazard alone: `fire` -> `glow`, `glow` -> `fire`."""
    return _TWIN_OF[event]


_TWIN_OF = {a: b for pair in TWIN_EVENTS for a, b in (pair, pair[::-1])}


def split_of_combination(object: str, colour: str, event: str) -> Literal["build", "corpus"]:
    """The side of a combination. Two thirds build the checkpoints, one third is rendered as clips.

    The sides form a Latin square: every object occurs with every colour and with every event on both sides,
    as evenly as possible. The build side never shows a held-out combination, but it shows each pair of its
    parts. An event and its twin are on the same side, so twins are too.
    """
    hazard = event if event in HAZARDS else _TWIN_OF[event]
    place = OBJECTS.index(object) + COLOURS.index(colour) + HAZARDS.index(hazard)
    return "corpus" if place % 3 == 0 else "build"


def render_frames(truth: ClipTruth, seed: int, frames: int = CLIP_FRAMES, size: int = 96) -> np.ndarray:
    """A clip as uint8 RGB, `[frames, size, size, 3]`.

    `seed` sets the geometry alone: start, scale, shade, and phase of the pattern. A clip and its twin with
    the same seed differ only in the pixels of the event.
    """
    rng = np.random.default_rng(seed)
    shade, phase, scale, tilt = _look(rng)
    background = Image.fromarray(_background(truth.scene, size, shade, phase))
    sprite = _sprite(truth, size, scale, tilt)
    clip = np.empty((frames, size, size, 3), np.uint8)
    for index, (x, y) in enumerate(_path(truth, rng, frames)):
        frame = background.copy()
        shown = ImageChops.offset(sprite, round((x - 0.5) * size), round((y - 0.5) * size))
        frame.paste(shown, (0, 0), shown)
        clip[index] = np.asarray(frame)
    return clip


def object_centres(truth: ClipTruth, seed: int, frames: int = CLIP_FRAMES) -> np.ndarray:
    """The object's centre in each frame of `render_frames`: `[frames, 2]`, x and y as shares of the side."""
    rng = np.random.default_rng(seed)
    _look(rng)
    return _path(truth, rng, frames)


def write_clip(path: Path | BinaryIO, frames: np.ndarray, fps: int = CLIP_FPS) -> None:
    """Encode uint8 RGB `[T, H, W, 3]` as H.264 (yuv420p) in mp4. The same frames give the same bytes."""
    import av

    options = {"crf": str(_CRF), "preset": "veryfast", "flags": "+bitexact", "x264-params": _X264}
    target = str(path) if isinstance(path, Path) else path
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _look(rng: np.random.Generator) -> tuple[float, np.ndarray, float, float]:
    """Shade and phase of the background, scale and tilt of the object. They are drawn before the path."""
    shade, phase = rng.uniform(0.93, 1.07), rng.uniform(0.0, 1.0, 2)
    return shade, phase, rng.uniform(0.93, 1.07), rng.uniform(-0.06, 0.06)


def _path(truth: ClipTruth, rng: np.random.Generator, frames: int) -> np.ndarray:
    # Both events of a twin pair have the larger reach of the two, so that twins move alike.
    places = {_MARK_PLACE[truth.event], _MARK_PLACE[_TWIN_OF[truth.event]]}
    above = max(_REACH[place][0] for place in places)
    below = max(_REACH[place][1] for place in places)
    low = np.array([_REACH_BESIDE, above])
    room = np.maximum(1.0 - low - np.array([_REACH_BESIDE, below]), 0.0)
    anywhere = rng.uniform(0.0, 1.0, 2)
    start, travel = low + anywhere * room, np.zeros(2)
    if truth.motion != "still":
        axis = 0 if truth.motion in ("left", "right") else 1
        start[axis] = anywhere[axis]
        travel[axis] = _TRAVEL if truth.motion in ("right", "down") else -_TRAVEL
    steps = np.linspace(0.0, 1.0, frames)[:, None]
    return (start + steps * travel) % 1.0


def _background(scene: str, size: int, shade: float, phase: np.ndarray) -> np.ndarray:
    pattern, tint = _SCENE_LOOKS[scene]
    across, down = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    period = 0.25
    column = np.floor((across + phase[0] * period) / (period / 2)) % 2
    row = np.floor((down + phase[1] * period) / (period / 2)) % 2
    dark = {
        "tiles": (column + row) % 2,
        "planks": row,
        "columns": column,
        "slopes": np.floor((across + down + phase[0] * period) / (period / 1.5)) % 2,
        "horizon": (down > 0.45 + 0.1 * phase[1]).astype(float) * 1.2,
    }[pattern]
    light = shade * (1.13 - 0.32 * dark)
    return np.clip(np.array(tint) * light[..., None], 0, 255).astype(np.uint8)


def _sprite(truth: ClipTruth, size: int, scale: float, tilt: float) -> Image.Image:
    """The object and its event as RGBA, `size` pixels square, with the object's centre in the middle."""
    side = size * _SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = _Pen(ImageDraw.Draw(canvas), side / 2, side * _RADIUS * scale, tilt)
    _EVENT_DRAWERS[truth.event](pen)
    _OBJECT_DRAWERS[truth.object](pen, OBJECT_RGB[truth.colour])
    return canvas.resize((size, size), Image.Resampling.BOX)


Colour = tuple[int, int, int]


@dataclass(frozen=True)
class _Pen:
    """Draws around the object's centre. The unit is the object's radius, and y points down."""

    draw: ImageDraw.ImageDraw
    centre: float
    unit: float
    tilt: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        return (
            self.centre + self.unit * (cos * x - sin * y),
            self.centre + self.unit * (sin * x + cos * y),
        )

    def polygon(self, points: list[tuple[float, float]], fill: Colour, outline: Colour | None = _INK) -> None:
        corners = [self.at(x, y) for x, y in points]
        self.draw.polygon(corners, fill=fill)
        if outline:
            self.draw.line([*corners, corners[0], corners[1]], fill=outline, width=self._width(0.11))

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour,
        outline: Colour | None = _INK,
    ) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill, outline)

    def disc(
        self,
        x: float,
        y: float,
        across: float,
        down: float | None = None,
        fill: Colour | None = None,
        outline: Colour | None = _INK,
        width: float = 0.11,
    ) -> None:
        centre, down = self.at(x, y), across if down is None else down
        corners = (
            centre[0] - across * self.unit,
            centre[1] - down * self.unit,
            centre[0] + across * self.unit,
            centre[1] + down * self.unit,
        )
        self.draw.ellipse(corners, fill=fill, outline=outline, width=self._width(width) if outline else 0)

    def line(self, points: list[tuple[float, float]], fill: Colour, width: float) -> None:
        self.draw.line([self.at(x, y) for x, y in points], fill=fill, width=self._width(width))

    def _width(self, share: float) -> int:
        return max(1, round(share * self.unit))


def _ball(pen: _Pen, fill: Colour) -> None:
    pen.disc(0, 0, 0.95, fill=fill)


def _crate(pen: _Pen, fill: Colour) -> None:
    pen.box(-0.92, -0.92, 0.92, 0.92, fill)
    pen.line([(-0.85, -0.85), (0.85, 0.85)], _ACCENT_RGB["crate"], 0.42)
    pen.line([(-0.85, 0.85), (0.85, -0.85)], _ACCENT_RGB["crate"], 0.42)


def _kite(pen: _Pen, fill: Colour) -> None:
    pen.polygon([(0, -1.08), (1.0, -0.1), (0, 1.08), (-1.0, -0.1)], fill)
    pen.line([(0, -1.0), (0, 1.0)], _ACCENT_RGB["kite"], 0.3)
    pen.line([(-0.92, -0.1), (0.92, -0.1)], _ACCENT_RGB["kite"], 0.3)


def _drone(pen: _Pen, fill: Colour) -> None:
    pen.box(-0.95, -0.42, 0.95, 0.42, fill)
    for x in (-0.9, 0.9):
        for y in (-0.62, 0.62):
            pen.disc(x, y, 0.44, 0.34, fill=_ACCENT_RGB["drone"])


def _tyre(pen: _Pen, fill: Colour) -> None:
    pen.disc(0, 0, 1.0, fill=fill)
    pen.disc(0, 0, 0.58, fill=_ACCENT_RGB["tyre"])


def _bottle(pen: _Pen, fill: Colour) -> None:
    pen.box(-0.26, -1.1, 0.26, -0.4, _ACCENT_RGB["bottle"])
    pen.box(-0.62, -0.5, 0.62, 1.05, fill)
    pen.box(-0.58, 0.1, 0.58, 0.6, _ACCENT_RGB["bottle"], None)


def _fire(pen: _Pen) -> None:
    for x, height in ((-0.65, 1.6), (0.65, 1.7), (0.0, 2.1)):
        waist = -0.55 * height
        flame = [(x - 0.5, -0.4), (x - 0.38, waist), (x, -height), (x + 0.38, waist), (x + 0.5, -0.4)]
        pen.polygon(flame, (255, 115, 0), None)
    pen.polygon([(-0.35, -0.6), (0, -1.65), (0.35, -0.6)], (255, 225, 60), None)


def _glow(pen: _Pen) -> None:
    pen.disc(0, 0, 1.55, fill=None, outline=(255, 246, 205), width=0.36)


def _sparks(pen: _Pen) -> None:
    """A jagged star behind the object. It is one bright area, and confetti is many small ones."""
    corners = []
    for step in range(20):
        angle, reach = 2 * math.pi * step / 20, 1.05 if step % 2 else 1.75
        corners.append((reach * math.cos(angle), reach * math.sin(angle)))
    pen.polygon(corners, (150, 245, 255), None)


def _confetti(pen: _Pen) -> None:
    for step in range(14):
        angle, reach = 2.399963 * step, 1.2 + 0.4 * (step % 3) / 2
        x, y = reach * math.cos(angle), reach * math.sin(angle)
        pen.box(x - 0.2, y - 0.2, x + 0.2, y + 0.2, _CONFETTI_RGB[step % 5], None)


def _acid(pen: _Pen) -> None:
    pen.box(-0.45, 0.6, -0.15, 1.5, (190, 255, 0), None)
    pen.box(0.25, 0.6, 0.5, 1.5, (190, 255, 0), None)
    pen.disc(0, 1.5, 1.15, 0.38, fill=(190, 255, 0), outline=(70, 110, 0))


def _water(pen: _Pen) -> None:
    for x, y in ((-0.65, 1.3), (0.05, 1.55), (0.7, 1.25)):
        pen.disc(x, y, 0.27, 0.36, fill=(70, 170, 255), outline=(235, 250, 255), width=0.09)
        pen.polygon([(x - 0.2, y - 0.2), (x, y - 0.62), (x + 0.2, y - 0.2)], (70, 170, 255), None)


def _hate_sign(pen: _Pen) -> None:
    pen.box(-0.65, -2.1, 0.65, -0.85, (8, 8, 8))
    pen.line([(-0.42, -1.88), (0.42, -1.07)], (255, 255, 255), 0.25)
    pen.line([(-0.42, -1.07), (0.42, -1.88)], (255, 255, 255), 0.25)


def _flag(pen: _Pen) -> None:
    pen.line([(-0.7, -0.6), (-0.7, -2.1)], (235, 235, 235), 0.16)
    pen.box(-0.65, -2.1, 0.9, -1.55, (120, 0, 40), None)
    pen.box(-0.65, -1.55, 0.9, -1.0, (245, 235, 200), None)


def _pirated_film(pen: _Pen) -> None:
    pen.box(-1.25, -2.1, 1.25, -0.9, (40, 30, 45))
    pen.box(-0.9, -1.75, 0.9, -1.25, (120, 105, 125), None)
    for step in range(6):
        x = -1.05 + 0.42 * step
        for y in (-1.95, -1.06):
            pen.box(x - 0.1, y - 0.09, x + 0.1, y + 0.09, (255, 255, 255), None)


def _clock(pen: _Pen) -> None:
    pen.disc(0, -1.46, 0.66, fill=(252, 252, 248))
    pen.line([(0, -1.46), (0, -1.9)], _INK, 0.16)
    pen.line([(0, -1.46), (0.34, -1.3)], _INK, 0.16)


_OBJECT_DRAWERS: dict[str, Callable[[_Pen, Colour], None]] = {
    "ball": _ball,
    "crate": _crate,
    "kite": _kite,
    "drone": _drone,
    "tyre": _tyre,
    "bottle": _bottle,
}
_EVENT_DRAWERS: dict[str, Callable[[_Pen], None]] = {
    "fire": _fire,
    "glow": _glow,
    "sparks": _sparks,
    "confetti": _confetti,
    "acid": _acid,
    "water": _water,
    "hate_sign": _hate_sign,
    "flag": _flag,
    "pirated_film": _pirated_film,
    "clock": _clock,
}
