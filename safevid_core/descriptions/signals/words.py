"""Writes the measurements in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from safevid_core.descriptions.motion_words import LEAST_TOLD
from safevid_core.descriptions.signals.flashes import FLASH_LIMIT
from safevid_core.descriptions.signals.measurement import Measurements
from safevid_core.descriptions.signals.motion import MotionSegment


def describe(measured: Measurements) -> str:
    """The measurements in plain sentences. The text states nothing that was not measured."""
    sentences = [
        f"Duration {measured.duration_s:.1f} s at {_figure(measured.fps)} frames a second.",
        _cut_words(measured.cuts_s),
        _flash_words(
            measured.flashes_per_second,
            measured.red_flashes_per_second,
            measured.red_flashes_by_chromaticity_per_second,
        ),
        f"Main colours: {', '.join(colour.name for colour in measured.colours)}.",
    ]
    if measured.moving_colours and _time_of(measured.motion, "object") >= 0.5:
        sentences.append(f"What moves is {_listed([c.name for c in measured.moving_colours])}.")
    sentences.append(_motion_words(measured.motion))
    return " ".join(sentences)


def _figure(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _listed(words: Sequence[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _cut_words(cuts: tuple[float, ...]) -> str:
    if not cuts:
        return "No cuts."
    listed = ", ".join(f"{time:.1f}" for time in cuts[:8])
    more = f" and {len(cuts) - 8} more" if len(cuts) > 8 else ""
    return f"{len(cuts)} {'cut' if len(cuts) == 1 else 'cuts'}, at {listed} s{more}."


def _flash_words(general: float, red: float, red_by_chromaticity: float) -> str:
    if not general and not red and not red_by_chromaticity:
        return "No flashes."
    words = []
    if general:
        words.append(f"Flashes: {_figure(general)} within a second, {_against_limit(general)}.")
    if red or red_by_chromaticity:
        words.append(
            f"Red flashes: {_figure(red)} within a second by WCAG 2.1 and {_figure(red_by_chromaticity)} "
            f"by WCAG 2.2, {_against_limit(max(red, red_by_chromaticity))}."
        )
    return " ".join(words)


def _against_limit(rate: float) -> str:
    return f"{'above' if rate > FLASH_LIMIT else 'within'} the limit of {FLASH_LIMIT}"


_MOVERS: dict[str, Callable[[str], str]] = {
    "object": lambda direction: f"something moves {direction}",
    "picture": lambda direction: f"the whole picture shifts {direction}",
}


def _time_of(segments: Sequence[MotionSegment], kind: str) -> float:
    """The share of the time, 0 to 1, in which the motion is of a kind."""
    if all(segment.kind == kind for segment in segments):
        return 1.0
    lengths = [segment.end_s - segment.start_s for segment in segments]
    return sum(each.end_s - each.start_s for each in segments if each.kind == kind) / sum(lengths)


def _motion_words(segments: tuple[MotionSegment, ...]) -> str:
    """The sequence of directions. If there is none, whether anything moves at all."""
    steered = [segment for segment in segments if segment.direction != "none"]
    total = segments[-1].end_s - segments[0].start_s
    spent, moving = (
        sum(segment.end_s - segment.start_s for segment in some)
        for some in (steered, [segment for segment in segments if segment.kind != "still"])
    )
    if not steered or spent < LEAST_TOLD * moving:
        still = _time_of(segments, "still")
        if still == 1:
            return "Motion: nothing moves."
        few = "almost nothing moves" if still >= 0.7 else "things move, in no one direction"
        return f"Motion: {few}."
    course = [(segment.kind, segment.direction) for segment in steered]
    course = [step for place, step in enumerate(course) if place == 0 or step != course[place - 1]]
    if len(course) == 1:
        kind, direction = course[0]
        steady = "steadily" if spent >= 0.9 * total else "for part of the time"
        return f"Motion: {_MOVERS[kind](direction)}, {steady}."
    if len(course) > 5 or spent < 0.5 * total:
        return "Motion: things move, in no one direction."
    return f"Motion: {', then '.join(_MOVERS[kind](direction) for kind, direction in course)}."
