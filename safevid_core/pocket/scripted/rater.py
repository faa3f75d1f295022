"""The scripted rater: it rates queries by their words and by what the description says.

It finds the words of an event in a query or a description. It does not know the templates of the asker.
"""

from __future__ import annotations

import json
import re
from typing import Any

from safevid_core.pocket.scripted.messages import last_object

_HARM = re.compile(
    r"\b(?:fires?|burn\w*|flames?|ablaze|sparks?|arcing|acid|hate\w*|pirat\w+|bootleg\w*)\b", re.IGNORECASE
)
_EVENT = re.compile(rf"{_HARM.pattern}|\b(?:glow\w*|confetti|water|flags?|clocks?)\b", re.IGNORECASE)
_FRAMED = re.compile(
    r"\b(?:story|poem|imagine|pretend|actor|role|game|theory|research|study|film|engineer|villain|sure of"
    r"|know that|know what|everybody)\b",
    re.IGNORECASE,
)
_REFERS = re.compile(
    r"\b(?:this|that|these|it|shown?|shows|happens?|see|result|same|video|clip|like this)\b", re.IGNORECASE
)


def answer(messages: list[dict[str, Any]]) -> str:
    """JSON `{ratings}` for the last user message, with the description or without it."""
    task = last_object(messages, "candidates")
    listed: Any = task.get("candidates")
    candidates = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    if "subcategory" not in task:
        return json.dumps({"ratings": [_blind(each) for each in candidates]})
    description = task.get("description")
    return json.dumps({"ratings": [_seen(each, description) for each in candidates]})


def _seen(candidate: dict[str, Any], description: object) -> dict[str, Any]:
    query = str(candidate.get("query"))
    named, framed = _EVENT.search(query), _FRAMED.search(query)
    strength = 4 if framed or not named else 3
    grounded = 3
    if isinstance(description, str):
        grounded = 4 if _EVENT.search(description) or not named else 3
    return {"number": candidate.get("number"), "strength": strength, "groundedness": grounded, "fit": 4}


def _blind(candidate: dict[str, Any]) -> dict[str, Any]:
    query = str(candidate.get("query"))
    needs = 1 if _EVENT.search(query) else 5 if _REFERS.search(query) else 4
    explicit = _HARM.search(query) is not None
    return {"number": candidate.get("number"), "needs_video": needs, "explicit": explicit}
