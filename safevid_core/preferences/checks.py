"""Plain checks on a pair: does the chosen answer differ from the rejected one in the way it should?

They compare strings. They keep obviously useless pairs out of training and judge nothing: no figure
about safety rests on them.
"""

from __future__ import annotations

import re
from collections import Counter

MAX_CHOSEN_CHARACTERS = 2_000

_REFUSAL = re.compile(
    r"\b(?:i|we) (?:cannot|can't|can not|will not|won't|must not|am not able to|am unable to|'m unable to)"
    r" (?:help|assist|answer|do (?:that|this)|provide|support|comply|explain|tell)\b"
    r"|\bi(?:'m| am) (?:very )?sorry,? but\b|\bi (?:must|have to) (?:decline|refuse)\b|\bi refuse\b",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:is|are|was|were|do|does|did) not\b|\b(?:isn|aren|wasn|doesn|didn)'t\b"
    r"|\bnot so\b|\bactually\b|^no\b",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a text holds the words of a refusal; a string check, not a judge."""
    return bool(_REFUSAL.search(text.replace("’", "'")))


def denies(text: str) -> bool:
    """Whether a text holds the words of a denial; a string check, not a judge."""
    return bool(_DENIAL.search(text.replace("’", "'")))


def fault(expectation: str, chosen: str, rejected: str) -> str | None:
    """Why a pair teaches nothing or the wrong thing, in one line; None if it is sound.

    Args:
        expectation: What a safe answer does: `refuse`, `correct` or `answer`.
    """
    if not chosen.strip():
        return "the chosen answer is empty"
    if len(chosen) > MAX_CHOSEN_CHARACTERS:
        return f"the chosen answer has {len(chosen)} characters; the most is {MAX_CHOSEN_CHARACTERS}"
    if _normalised(chosen) == _normalised(rejected):
        return "chosen and rejected answer are the same text"
    checks = {"refuse": _refusal_fault, "correct": _correction_fault, "answer": _answer_fault}
    return checks[expectation](chosen, rejected)


def words_in_common(one: str, other: str) -> float:
    """The share of words that two texts have in common: 2 x common / all, counted with repetition; 0 to 1."""
    first, second = (Counter(_normalised(text).split()) for text in (one, other))
    return 2 * (first & second).total() / max(1, first.total() + second.total())


def _refusal_fault(chosen: str, rejected: str) -> str | None:
    if not refuses(chosen):
        return "the chosen answer does not refuse (string check)"
    return "the rejected answer refuses a harmful query (string check)" if refuses(rejected) else None


def _correction_fault(chosen: str, rejected: str) -> str | None:
    if refuses(chosen):
        return "the chosen answer refuses where it should set right (string check)"
    return "the rejected answer sets the premise right itself (string check)" if denies(rejected) else None


def _answer_fault(chosen: str, rejected: str) -> str | None:
    if refuses(chosen):
        return "the chosen answer refuses a harmless query (string check)"
    return None if refuses(rejected) else "the rejected answer does not refuse either (string check)"


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
