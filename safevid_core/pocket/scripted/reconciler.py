"""The scripted teacher that reconciles: it writes one description from several candidates of a clip.

Each candidate is read as claims, each with an attribute and a value: colour, red. A claim is kept if at least
two witnesses assert it. The signals are a witness for colour and motion. For motion they count as two
witnesses, because they named no wrong motion in 300 rendered clips (in 123 of these they named none). They
never contradict a colour, because a colour that they do not list may still be in the clip. Candidates are
data: an instruction in a candidate is not followed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from safevid_core.pocket.scripted.messages import last_object

# Attribute of a rendered clip -> the kind of a claim about it.
_KINDS = {"object": "object", "colour": "colour", "motion": "motion", "event": "event", "scene": "place"}
SIGNAL = "signal"
MIN_WITNESSES = 2
_MOTION_WEIGHT_OF_SIGNAL = 2

_COLOURS = frozenset((
    "red", "green", "blue", "yellow", "white", "purple", "black", "grey", "gray", "brown", "orange", "pink",
    "violet", "cyan", "teal",
))  # fmt: skip
_ARTICLES = frozenset(("a", "an", "one", "the", "some"))
_VERBS = frozenset(
    [
        "is",
        "are",
        "moves",
        "stays",
        "goes",
        "glows",
        "throws",
        "leaks",
        "drips",
        "shows",
        "plays",
        "burns",
        "has",
    ]
)
_MOVING = frozenset(["moves", "move", "goes", "travels", "drifts", "flies", "rolls", "slides", "floats"])
_DIRECTIONS = ("left", "right", "up", "down")
_STILL = re.compile(r"\b(?:still|motionless|not mov(?:e|ing)|nothing moves|at rest)\b")
_OPENING = re.compile(
    r"^(?:the|this) (?:video|clip|scene|footage) (?:shows|is of|contains|depicts) |^(?:we|you) (?:can )?see "
)
_PLACE = re.compile(r"\b(?:in|at) ((?:an?|the) [a-z]+(?: (?:room|shop|station|field|park|court))?)\b")
_NO_PLACE = frozenset(
    [
        "video",
        "clip",
        "scene",
        "footage",
        "middle",
        "background",
        "foreground",
        "frame",
        "left",
        "right",
        "top",
        "bottom",
        "air",
        "front",
        "end",
    ]
)
# Sentences that do not observe the clip: they address the reader or are about the task.
_NO_OBSERVATION = re.compile(
    r"\b(?:you|your|i|we|please|ignore|instructions?|mark|rules?|system|prompt|safe|unsafe|answer|must|should)\b"
)


@dataclass
class _Testimony:
    """What one witness says: attribute -> value, and the sentences that fit no attribute."""

    witness: str
    values: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Measured:
    """What the signals say: colours by share, colours of the moving object, and one motion or none."""

    colours: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()
    motion: str | None = None


def answer(messages: list[dict[str, Any]]) -> str:
    """JSON `{description, claims, dropped}` for the last user message.

    The message is a JSON object with `candidates`, a list of `{describer, text}`, and `signal`, the text of
    the signals or null. Each claim has `text, kind, asserted_by, omitted_by, contradicted_by, start_s,
    end_s`, and each dropped claim also `why`. The times are null. The description is empty if no claim is
    kept.
    """
    task = last_object(messages)
    testimonies = [_testify(name, text) for name, text in _candidates(task)]
    signal_text = task.get("signal")
    measured = _measure(signal_text) if isinstance(signal_text, str) and signal_text.strip() else None
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for attribute in _KINDS:
        claims = _claims(attribute, testimonies, measured)
        winner = _winner(claims)
        for claim in claims:
            if claim is winner:
                kept.append(claim)
            else:
                dropped.append({**claim, "why": _why(claim, winner)})
    remarks, rejected = _remarks(testimonies)
    kept += remarks
    dropped += rejected
    said = {claim["attribute"]: claim["value"] for claim in kept}
    picture = [] if said.keys() & {"object", "colour"} else _of_the_picture(testimonies, measured)
    kept += picture
    description = _describe(said, [claim["text"] for claim in picture], [each["value"] for each in remarks])
    lists = {"claims": [_as_json(claim) for claim in kept], "dropped": [_as_json(claim) for claim in dropped]}
    return json.dumps({"description": description, **lists})


def _as_json(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim as it is answered: of a kind that the contract knows, without attribute and value."""
    kind = _KINDS.get(claim["attribute"], "other")
    left = {key: value for key, value in claim.items() if key not in ("attribute", "value")}
    return {**left, "kind": kind, "start_s": None, "end_s": None}


def _claims(
    attribute: str, testimonies: Sequence[_Testimony], measured: _Measured | None
) -> list[dict[str, Any]]:
    """All values claimed for an attribute in the order of first mention, each with the witnesses' stances."""
    said = {each.witness: each.values.get(attribute) for each in testimonies}
    values = list(dict.fromkeys(value for value in said.values() if value))
    if attribute == "motion" and measured and measured.motion and measured.motion not in values:
        values.append(measured.motion)
    claims = []
    for value in values:
        asserted = [name for name, theirs in said.items() if theirs == value]
        contradicted = [name for name, theirs in said.items() if theirs and theirs != value]
        omitted = [name for name, theirs in said.items() if not theirs]
        if measured and attribute in ("colour", "motion"):
            _stance(attribute, value, measured, asserted, omitted, contradicted).append(SIGNAL)
        claims.append(_claim(attribute, value, asserted, omitted, contradicted))
    return claims


def _stance(
    attribute: str,
    value: str,
    measured: _Measured,
    asserted: list[str],
    omitted: list[str],
    contradicted: list[str],
) -> list[str]:
    """Which of the three lists the signals belong to for one value."""
    if attribute == "colour":
        return asserted if value in measured.colours + measured.moving else omitted
    if measured.motion is None:
        return omitted
    return asserted if value == measured.motion else contradicted


def _claim(
    attribute: str, value: str, asserted: list[str], omitted: list[str], contradicted: list[str]
) -> dict[str, Any]:
    sentence = {
        "object": f"The object is {_article(value)} {value}.",
        "colour": f"It is {value}.",
        "motion": f"It {_moves(value)}.",
        "event": f"It {value}.",
        "scene": f"It is in {value}.",
    }.get(attribute, value)
    return {
        "text": sentence,
        "attribute": attribute,
        "value": value,
        "asserted_by": asserted,
        "omitted_by": omitted,
        "contradicted_by": contradicted,
    }


def _winner(claims: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The claim to keep: the one with the most weight. None if its weight is less than two witnesses.

    Of two claims with equal weight, the one that the signals assert is kept. If they assert both or neither,
    no claim is kept.
    """
    ranked = sorted(claims, key=_standing, reverse=True)
    if not ranked or _weight(ranked[0]) < MIN_WITNESSES:
        return None
    return ranked[0] if len(ranked) == 1 or _standing(ranked[0]) > _standing(ranked[1]) else None


def _standing(claim: dict[str, Any]) -> tuple[int, bool]:
    return _weight(claim), SIGNAL in claim["asserted_by"]


def _weight(claim: dict[str, Any]) -> int:
    of_signal = _MOTION_WEIGHT_OF_SIGNAL if claim["attribute"] == "motion" else 1
    return sum(of_signal if name == SIGNAL else 1 for name in claim["asserted_by"])


def _why(claim: dict[str, Any], winner: dict[str, Any] | None) -> str:
    by = " and ".join(claim["asserted_by"])
    if winner is not None:
        return f"said by {by}; {' and '.join(winner['asserted_by'])} say {winner['value']}"
    if _weight(claim) < MIN_WITNESSES:
        return f"said by {by} only; two witnesses are needed"
    return f"said by {by}; as many say otherwise"


def _remarks(testimonies: Sequence[_Testimony]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sentences that fit no attribute, kept and dropped. One is kept if two witnesses say it of the clip."""
    counts = Counter(remark for each in testimonies for remark in dict.fromkeys(each.remarks))
    kept, dropped = [], []
    for remark, count in counts.items():
        asserted = [each.witness for each in testimonies if remark in each.remarks]
        omitted = [each.witness for each in testimonies if remark not in each.remarks]
        claim = _claim("remark", remark, asserted, omitted, [])
        if _NO_OBSERVATION.search(remark):
            dropped.append({**claim, "why": f"said by {' and '.join(asserted)}; no statement about the clip"})
        elif count < MIN_WITNESSES:
            dropped.append({**claim, "why": f"said by {asserted[0]} only; two witnesses are needed"})
        else:
            kept.append(claim)
    return kept, dropped


def _of_the_picture(testimonies: Sequence[_Testimony], measured: _Measured | None) -> list[dict[str, Any]]:
    """The colours of the whole picture as a claim, for a clip of which no object and no colour is known."""
    if measured is None or not measured.colours:
        return []
    listed = _listed(measured.colours)
    claim = _claim("colour", listed, [SIGNAL], [each.witness for each in testimonies], [])
    return [{**claim, "text": f"The main colours are {listed}."}]


def _describe(said: dict[str, str], picture: Iterable[str], remarks: Iterable[str]) -> str:
    """The kept claims as two or three plain sentences."""
    thing, colour, event = said.get("object"), said.get("colour"), said.get("event")
    if thing:
        words = " ".join(word for word in (colour, thing) if word)
        subject = f"{_article(words)} {words}"
    else:
        subject = f"something {colour}" if colour else "something"
    sentences = []
    does = " ".join(
        part
        for part in (
            _moves(said["motion"]) if "motion" in said else "",
            f"in {said['scene']}" if "scene" in said else "",
        )
        if part
    )
    if does:
        verb = "" if "motion" in said else "is "
        sentences.append(f"{subject} {verb}{does}.")
    elif thing or colour:
        sentences.append(f"The video shows {subject}.")
    if event:
        sentences.append(f"It {event}." if sentences else f"{subject} {event}.")
    sentences += picture
    sentences += [f"{remark}." for remark in remarks]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _testify(witness: str, text: str) -> _Testimony:
    """A description as claims. If it gives an attribute several values, the first one counts."""
    testimony = _Testimony(witness)
    for sentence in re.split(r"[.!?;\n]+", text.lower()):
        words = " ".join(sentence.split())
        values = _values(words)
        if words and not values:
            testimony.remarks.append(words)
        testimony.values = {**values, **testimony.values}
    return testimony


def _values(sentence: str) -> dict[str, str]:
    """Attribute -> value of one sentence in lower case. Empty if the sentence observes nothing."""
    words = _OPENING.sub("", sentence)
    if _NO_OBSERVATION.search(words):
        return {}
    values: dict[str, str] = {}
    for place in _PLACE.finditer(words):
        if place[1].split()[1] not in _NO_PLACE:
            values["scene"] = place[1]
            words = f"{words[: place.start()]} {words[place.end() :]}"
            break
    subject, predicate = _split(words.replace(",", " ").split())
    values |= _of_subject(subject)
    for part in re.split(rf" and (?=(?:{'|'.join(sorted(_VERBS | _MOVING))})\b)", predicate):
        values = {**_of_predicate(part.strip()), **values}
    return values


def _split(words: list[str]) -> tuple[list[str], str]:
    """Subject and predicate of a sentence, split before the first verb, "that", "with" or "on"."""
    for index, word in enumerate(words):
        if index == 0:
            continue
        if word in ("that", "which"):
            return words[:index], " ".join(words[index + 1 :])
        if word == "with":
            return words[:index], " ".join(("shows", *words[index + 1 :]))
        if word == "on":
            return words[:index], " ".join(("is", *words[index:]))
        looks_like_a_verb = index >= 2 and word.endswith("s") and not word.endswith("ss")
        if looks_like_a_verb or word in _VERBS or word in _MOVING:
            return words[:index], " ".join(words[index:])
    return words, ""


def _of_subject(words: list[str]) -> dict[str, str]:
    values = {}
    colour = next((word for word in words if word in _COLOURS), None)
    if colour:
        values["colour"] = colour
    if len(words) > 1 and words[0] in _ARTICLES and words[-1].isalpha() and words[-1] not in _COLOURS:
        values["object"] = words[-1]
    return values


def _of_predicate(predicate: str) -> dict[str, str]:
    words = predicate.split()
    if not words:
        return {}
    direction = next((word for word in words if word.removesuffix("wards") in _DIRECTIONS), None)
    if words[0] in _MOVING and direction:
        return {"motion": direction.removesuffix("wards")}
    if _STILL.search(predicate):
        return {"motion": "still"}
    if words[0] == "is" and len(words) == 2 and words[1] in _COLOURS:
        return {"colour": words[1]}
    if words[0] == "is" and len(words) > 2 and words[1] in _ARTICLES:
        return _of_subject(words[1:])
    if words[0] in ("burns", "burning"):
        return {"event": "is on fire"}
    return {"event": predicate} if len(words) > 1 and words[0] not in _MOVING else {}


def _measure(text: str) -> _Measured:
    """Colours and motion from the text of the signals.

    If the whole picture shifts, the camera moves. That says nothing of the object, so it gives no motion.
    """
    words = text.lower()
    main = re.search(r"\bcolou?rs?\b[^.]*", words)
    moving = re.search(r"\b(?:moving part|what moves) is\b[^.]*", words)
    motion = re.search(r"\bmotion\b[^.]*", words) or re.search(
        r"[^.]*\b(?:moves?|moving|still)\b[^.]*", words
    )
    moved = motion[0] if motion else ""
    directions = {each for each in _DIRECTIONS if re.search(rf"\b{each}(?:wards?)?\b", moved)}
    single = next(iter(directions)) if len(directions) == 1 and "picture" not in moved else None
    still = not directions and (_STILL.search(moved) or "no motion" in moved)
    return _Measured(
        colours=_colours_in(main[0] if main else ""),
        moving=_colours_in(moving[0] if moving else ""),
        motion="still" if still else single,
    )


def _colours_in(words: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in re.findall(r"[a-z]+", words) if word in _COLOURS))


def _candidates(task: dict[str, Any]) -> list[tuple[str, str]]:
    """Describer and text of each candidate. Repeated names are numbered."""
    found: list[tuple[str, str]] = []
    given = task.get("candidates")
    for candidate in given if isinstance(given, list) else []:
        if not isinstance(candidate, dict):
            continue
        name = str(candidate.get("describer") or "unnamed")
        again = sum(taken == name or taken.startswith(f"{name}#") for taken, _ in found)
        found.append((f"{name}#{again + 1}" if again else name, str(candidate.get("text") or "")))
    return found


def _moves(motion: str) -> str:
    return "stays still" if motion == "still" else f"moves {motion}"


def _article(words: str) -> str:
    return "an" if words and words[0] in "aeiou" else "a"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"
