"""The direction that a text gives, and the one that was measured from the pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}

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

    Args:
        measurements: As `signal_descriptions` holds them; `motion` lists segments with `kind`, `direction`.
    """
    segments = measurements.get("motion") or []
    directions = {segment["direction"] for segment in segments if segment["direction"] != "none"}
    if len(directions) == 1:
        return str(directions.pop())
    if not directions and segments and all(segment["kind"] == "still" for segment in segments):
        return "still"
    return None


def measured_object_motion(measurements: Mapping[str, Any]) -> str | None:
    """The one direction in which the thing itself moved, or still; None where it is neither.

    A picture that shifts as a whole says that the camera moves and nothing of the thing in it.
    """
    segments = measurements.get("motion") or []
    if any(segment["kind"] not in ("object", "still") for segment in segments):
        return None
    return measured_motion(measurements)
