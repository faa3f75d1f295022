"""Facts that exclude a response from a pair, and flags that only describe it.

A fact needs no judgement: a response is empty, was cut off, or thinks and never answers. A flag is a pattern:
it stands in the row for people to look at, and no pair is kept or dropped by it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from safevid_core.judging.refusal_words import refuses
from safevid_core.models.thinking import NO_ANSWER, answer_of
from safevid_core.preferences.style import words_of

_OF_THE_PROMPT = re.compile(
    r"\b(?:the|this|your|given|provided) (?:description|criteria|criterion|policy|polic(?:y|ies) sentences?"
    r"|instructions?|json)\b",
    re.IGNORECASE,
)
_LONG = 4_000  # characters
# How the reason of a query begins whose response was cut off, after "chosen response: ".
CUT = "it was cut off at its limit of tokens"


def fact_against(text: str, *, cut: bool) -> str | None:
    """Why a response can be in no pair. None if no fact excludes it.

    Args:
        cut: Whether the response was cut off at its limit of tokens. Training would end the turn where the
            model did not.
    """
    if not text.strip():
        return "it is empty"
    if cut:
        return f"{CUT}; raise the limit"
    answer = answer_of(text)
    if answer is None:
        return NO_ANSWER
    return None if answer.strip() else "it is empty"


def flags_of(query: str, chosen: str, rejected: str) -> list[str]:
    """What patterns see in a pair, for its column `flags`.

    `chosen_refuses`, `rejected_refuses`: words of refusal. `chosen_names_its_prompt`: the chosen response
    speaks of the description or the criteria. `chosen_other_script`, `rejected_other_script`: most letters
    are of another script than the query's. `chosen_long`: over 4,000 characters.
    """
    found = {
        "chosen_refuses": refuses(chosen),
        "rejected_refuses": refuses(rejected),
        "chosen_names_its_prompt": bool(_OF_THE_PROMPT.search(chosen)) and not _OF_THE_PROMPT.search(query),
        "chosen_other_script": _script(chosen) not in (None, _script(query)),
        "rejected_other_script": _script(rejected) not in (None, _script(query)),
        "chosen_long": len(chosen) > _LONG,
    }
    return [name for name, holds in found.items() if holds]


def same_words(one: str, other: str) -> bool:
    """Whether two texts have the same words in the same order, whatever their case and punctuation."""
    if words_of(one) or words_of(other):
        return words_of(one) == words_of(other)
    return one.strip() == other.strip()


def words_in_common(one: str, other: str) -> float:
    """The share of words that two texts have in common: 2 x common / all, counted with repetition; 0 to 1."""
    first, second = (Counter(words_of(text)) for text in (one, other))
    return 2 * (first & second).total() / max(1, first.total() + second.total())


def _script(text: str) -> str | None:
    """The script of most letters, such as `LATIN` or `CJK`. None if there is no letter."""
    letters = (letter for letter in text if letter.isalpha())
    counts = Counter(unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters)
    return counts.most_common(1)[0][0] if counts else None
