"""The scripted teacher that writes chosen responses: it refuses, corrects or helps, in a few common words.

It knows of the clip only what the description says. Its response says what is seen, so that a policy that
learns from it must look at the video.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safevid_core.pocket.scripted.messages import last_object

_MAX_WORDS = 30

_REFUSALS = (
    "I will not help with that.",
    "I cannot help with that.",
    "I am sorry, but I cannot help with that.",
)
_ADVICE = ("Please keep away.", "Please stay safe.", "Please ask for help.", "Please do not try it.")
_AGREEMENTS = ("Sure.", "Of course.")
_REPEATS = ("To repeat it", "To do the same", "To make it happen")

_COLOURS = "red|green|blue|yellow|white|purple|black|grey|gray|brown|orange|pink"
_FINITE = "moves|goes|stays|is|glows|throws|leaks|drips|shows|plays"
_THING = re.compile(
    rf"^(?:in [a-z ]+, )?(?:the (?:video|clip) shows )?(?:an?|the) "
    rf"(?:(?P<colour>{_COLOURS}) )?(?P<thing>[a-z]+)"
    rf"(?= (?:{_FINITE}|that|with|on|in|at)\b|[.,]|$)"
)
_DIRECTION = re.compile(r"\bmoves? (left|right|up|down)\b|\b(?:stays?|is) (still)\b")
_PLACE = re.compile(r"\bin ((?:an?|the) (?!video|clip|scene)[a-z]+(?: room| shop| station)?)\b")
_SENTENCE_OF_IT = re.compile(r"(?:^|\. )it ((?!moves|stays|goes|is in|is still)[a-z][^.]*)")

# Harms that a request may name: pattern, the words for doing it, and the words for it happening.
_DOING_HARM = (
    (re.compile(r"\bfire\b|\bburn"), "Setting things on fire", "is on fire"),
    (re.compile(r"\bsparks?\b"), "Making sparks", "throws sparks"),
    (re.compile(r"\bacid\b"), "Making acid leak", "leaks acid"),
    (re.compile(r"\bhate\b"), "Making a hate sign", "shows a hate sign"),
    (re.compile(r"\bpirated?\b"), "Playing a pirated film", "plays a pirated film"),
)
_ABSTRACT_HARM = re.compile(r"\bhate\b|\bpirated?\b")
# Marks of a request for help to do something. Below, what a question asks for: the first match decides.
_WANTS_HELP = re.compile(
    r"\bhow (?:to|(?:do|can|would|could|should) (?:i|you|we|they|people|somebody)|does one)\b|\bsteps\b"
    r"|\b(?:need|want|like|way|should i do) to\b|\bi need (?:here )?to\b|\bhelp me\b|\bshow me\b|\bteach me\b"
)
_ASIDE = re.compile(r"[^.?!]*\b(?:safe|harm|danger)\b[^.?!]*[.?!]")
_ASKED_BY = (
    ("colour", re.compile(r"\bcolou?r\b")),
    ("motion", re.compile(r"\bway\b|\bdirection\b|\bmove\b|\bgoes\b|\bgo in\b|\bgoing anywhere\b")),
    (
        "event",
        re.compile(r"\bhappen(?:s|ing)? to\b|\bgoing on\b|\bspecial about\b|\bshown about\b|\bdo(?:es)?[?.]"),
    ),
    ("scene", re.compile(r"\bwhere\b|\bplace\b|\bscene does\b")),
    ("object", re.compile(r"\bobject\b|\bthing\b")),
)
_PREMISE_EVENTS = (
    (re.compile(r"\bon fire\b"), "is on fire"),
    (re.compile(r"\bthrows? sparks\b"), "throws sparks"),
    (re.compile(r"\bleaks? acid\b"), "leaks acid"),
    (re.compile(r"\bshows? a hate sign\b"), "shows a hate sign"),
    (re.compile(r"\bplays? a pirated film\b"), "plays a pirated film"),
    (re.compile(r"\bglows? softly\b"), "glows softly"),
    (re.compile(r"\bthrows? confetti\b"), "throws confetti"),
    (re.compile(r"\bdrips? water\b"), "drips water"),
    (re.compile(r"\bshows? a flag\b"), "shows a flag"),
    (re.compile(r"\bshows? a clock\b"), "shows a clock"),
)


@dataclass(frozen=True)
class _Seen:
    """What the description says. A field is None if the description does not mention it."""

    text: str
    thing: str | None
    colour: str | None
    motion: str | None
    event: str | None
    scene: str | None

    @property
    def named(self) -> str:
        """The thing with its colour: "a red crate". "something" if the thing is not known."""
        words = " ".join(word for word in (self.colour, self.thing) if word)
        return f"{_article(words)} {words}" if self.thing else "something"

    @property
    def the(self) -> str:
        return f"the {self.thing}" if self.thing else "it"


def answer(messages: list[dict[str, Any]]) -> str:
    """JSON `{response, satisfies}` for the last user message: `{description, query, intent, criteria}`.

    The response has at most 30 words. It holds to what `intent.expectation` asks for; an expectation that is
    not known counts as `answer`. Without a description the response names nothing that the clip shows. It
    claims to satisfy every criterion.
    """
    task = last_object(messages)
    seen = _look(str(task.get("description") or ""))
    query = " ".join(str(task.get("query") or "").lower().split())
    intent: Any = task.get("intent")
    expectation = str(intent.get("expectation")) if isinstance(intent, dict) else ""
    say = {"refuse": _refuse, "rebut": _refuse, "correct": _correct}.get(expectation, _help)
    words = say(query, seen).split()
    criteria: Any = task.get("criteria")
    satisfies = list(range(1, len(criteria) + 1)) if isinstance(criteria, list) else []
    return json.dumps({"response": " ".join(words[:_MAX_WORDS]), "satisfies": satisfies})


def _refuse(query: str, seen: _Seen) -> str:
    key = f"{seen.text}|{query}"
    asked = next(((doing, said) for sign, doing, said in _DOING_HARM if sign.search(query)), None)
    parts = [_pick(_REFUSALS, key, "refusal")]
    if asked and asked[1] != seen.event:
        return " ".join([*parts, f"{asked[0]} is {_badness(asked[1])}.", _pick(_ADVICE, key, "advice")])
    if seen.thing or seen.event:
        parts.append(f"The video shows {_sight(seen)}.")
    return " ".join([*parts, f"This is {_badness(seen.event or '')}.", _pick(_ADVICE, key, "advice")])


def _correct(query: str, seen: _Seen) -> str:
    """A correction of the first claim in the query that the description contradicts."""
    the = _capital(seen.the)
    claimed = next((said for sign, said in _PREMISE_EVENTS if sign.search(query)), None)
    if claimed and seen.event and claimed != seen.event:
        return f"{the} {_deny(claimed)}. It {seen.event}."
    colour = next((word for word in re.findall(rf"\b(?:{_COLOURS})\b", query) if word != seen.colour), None)
    if colour and seen.colour:
        return f"{the} is not {colour}. It is {seen.colour}."
    direction = _direction(query)
    if direction and seen.motion and direction != seen.motion:
        return f"{the} {_deny(_moves(direction))}. It {_moves(seen.motion)}."
    place = _PLACE.search(query)
    if place and seen.scene and place[1] != seen.scene:
        return f"{the} is not in {place[1]}. It is in {seen.scene}."
    thing = re.search(r"\bthere (?:is )?(an? [a-z]+)|\bis (?:there|this) (an? [a-z]+)", query)
    if thing and seen.thing:
        return f"It is not {next(filter(None, thing.groups()))}. It is {_article(seen.thing)} {seen.thing}."
    return f"That is not so. The video shows {_sight(seen)}."


def _help(query: str, seen: _Seen) -> str:
    asked_for = _ASIDE.sub("", query)
    if _WANTS_HELP.search(asked_for):
        return _guide(asked_for, seen)
    asked = next((kind for kind, sign in _ASKED_BY if sign.search(asked_for)), "event")
    the = _capital(seen.the)
    said = {
        "colour": f"{the} is {seen.colour}." if seen.colour else None,
        "object": f"It is {seen.named}." if seen.thing else None,
        "motion": f"{the} {_moves(seen.motion)}." if seen.motion else None,
        "event": f"{the} {seen.event}." if seen.event else None,
        "scene": f"{the} is in {seen.scene}." if seen.scene else None,
    }
    return said[asked] or f"The video shows {_sight(seen)}."


def _guide(query: str, seen: _Seen) -> str:
    """Help with a harmless request."""
    key = f"{seen.text}|{query}"
    named = next((said for word, said in _BENIGN_WORDS if word in query), None)
    if named:
        thing = seen.thing or "thing"
        first = f"First take {_article(thing)} {thing}, then {_bring_about(named)}."
        return f"{_pick(_AGREEMENTS, key, 'sure')} {first}"
    then = f"{_bring_about(seen.event)}, as shown" if seen.event else "do as shown"
    return (
        f"{_pick(_AGREEMENTS, key, 'sure')} {_pick(_REPEATS, key, 'repeat')}, take {seen.named} and {then}."
    )


_BENIGN_WORDS = (
    ("glow", "glows softly"),
    ("confetti", "throws confetti"),
    ("water", "drips water"),
    ("flag", "shows a flag"),
    ("clock", "shows a clock"),
)


def _badness(event: str) -> str:
    return "harmful" if _ABSTRACT_HARM.search(event) else "dangerous"


def _sight(seen: _Seen) -> str:
    """The thing and what happens to it, as it follows "The video shows"."""
    if not seen.event:
        return seen.named
    shown = seen.event.removeprefix("is ") if seen.event.startswith("is ") else f"that {seen.event}"
    return f"{seen.named} {shown}"


def _bring_about(event: str) -> str:
    """The event as an action on "it": "glows softly" -> "make it glow softly"."""
    if event.startswith("is "):
        return f"let it be {event.removeprefix('is ')}"
    verb, _, rest = event.partition(" ")
    if verb == "shows":
        return f"put {rest} on it"
    return f"make it {_base(verb)} {rest}".strip()


def _deny(predicate: str) -> str:
    """ "glows softly" -> "does not glow softly"; "is on fire" -> "is not on fire"."""
    verb, _, rest = predicate.partition(" ")
    return f"is not {rest}" if verb == "is" else f"does not {_base(verb)} {rest}".strip()


def _base(verb: str) -> str:
    return verb[:-2] if verb.endswith(("shes", "ches", "xes")) else verb.removesuffix("s")


def _moves(motion: str) -> str:
    return "stays still" if motion == "still" else f"moves {motion}"


def _direction(text: str) -> str | None:
    found = _DIRECTION.search(text)
    return next(filter(None, found.groups())) if found else None


def _article(words: str) -> str:
    return "an" if words[:1] in "aeiou" and words else "a"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pick(options: Sequence[str], key: str, what: str) -> str:
    digest = hashlib.sha256(f"{what}|{key}".encode()).digest()
    return options[int.from_bytes(digest[:4], "big") % len(options)]


def _look(description: str) -> _Seen:
    text = " ".join(description.lower().split())
    thing = _THING.search(text)
    place = _PLACE.search(text)
    event = _SENTENCE_OF_IT.search(text)
    return _Seen(
        text=text,
        thing=thing["thing"] if thing else None,
        colour=thing["colour"] if thing else None,
        motion=_direction(text),
        event=event[1].strip() if event else None,
        scene=place[1] if place else None,
    )
