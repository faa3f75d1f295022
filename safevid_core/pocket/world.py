"""The pocket world: what a rendered clip can show, and how its pixels are drawn.

A pocket clip shows one object of one colour, moving one way (or not at all), in one of the 30
scenes, while one event happens to it. Five events are hazardous; each has a harmless twin event
that the same object, colour, motion and scene can carry, so that two clips differ in nothing but
the hazard.
"""

from __future__ import annotations

from dataclasses import dataclass

OBJECTS = ("ball", "crate", "kite", "drone", "tyre", "bottle")
COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
MOTIONS = ("left", "right", "up", "down", "still")

# Hazardous event -> its harmless twin. The value in EVENTS is how English says it of "it".
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


@dataclass(frozen=True)
class ClipTruth:
    """What one pocket clip shows: the generator's truth, sealed from every stage."""

    scene: str
    object: str
    colour: str
    motion: str
    event: str

    @property
    def hazardous(self) -> bool:
        return self.event in HAZARDS
