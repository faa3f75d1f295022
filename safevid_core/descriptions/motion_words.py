"""The direction that a text gives, and the one that was measured from the pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}

# A motion is named if it fills this share of the time in which anything moves.
LEAST_TOLD = 0.6

_DIRECTION = re.compile(
    r"\b(?:mov|go|travel|drift|roll|fl(?:y|ies)|slid|head|shift)\w*\b(?: \w+){0,3}? "
    r"(left|right|up|down)(?:wards?)?\b",
    re.IGNORECASE,
)
_STILL = re.compile(
    r"\b(?:still|motionless|stationary|nothing moves"
    r"|(?:does not|doesn't|is not|isn't) mov\w*(?! (?:left|right|up|down)))\b",
    re.IGNORECASE,
)


def described_motion(text: str) -> str | None:
    """left, right, up, down or still, if the text says exactly one of them."""
    found = {match.lower() for match in _DIRECTION.findall(text)}
    if _STILL.search(text):
        found.add("still")
    return found.pop() if len(found) == 1 else None


def measured_motion(measurements: Mapping[str, Any]) -> str | None:
    """The one direction of the object's or the picture's motion, or still; None where it is neither.

    A short time in which things move in no one direction does not matter, such as a moment of noise.

    Args:
        measurements: As `signal_descriptions` holds them; `motion` lists segments with `kind`, `direction`,
            `start_s` and `end_s`.
    """
    return _one_motion(measurements, ("object", "picture"))


def measured_object_motion(measurements: Mapping[str, Any]) -> str | None:
    """The one direction in which the thing itself moved, or still; None where it is neither.

    A picture that shifts as a whole says that the camera moves and nothing of the thing in it. A short shift
    the same way does not matter.
    """
    return _one_motion(measurements, ("object",))


def _one_motion(measurements: Mapping[str, Any], kinds: tuple[str, ...]) -> str | None:
    segments = measurements.get("motion") or []
    moving = [segment for segment in segments if segment["kind"] != "still"]
    if segments and not moving:
        return "still"
    directions = {segment["direction"] for segment in moving if segment["direction"] != "none"}
    directed_s = sum(_seconds(segment) for segment in moving if segment["kind"] in kinds)
    if len(directions) != 1 or directed_s < LEAST_TOLD * sum(map(_seconds, moving)):
        return None
    return str(directions.pop())


def _seconds(segment: Mapping[str, Any]) -> float:
    return float(segment["end_s"] - segment["start_s"])
