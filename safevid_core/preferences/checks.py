"""Plain checks on a pair: does the chosen answer differ from the rejected one in the way it should?

They compare strings. They keep obviously useless pairs out of training and judge nothing: no figure
about safety rests on them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

MAX_CHOSEN_CHARACTERS = 2_000
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´′＇", "'"))

_CANNOT = (
    r"cannot|can'?t|can not|could not|couldn'?t|will not|won'?t|would not|wouldn'?t|must not|mustn'?t"
    r"|shall not|do not|don'?t|should not|shouldn'?t"
)
_NOT_ABLE = r"not (?:able|going|allowed|permitted|willing|in a position)|unable|unwilling"
_ASIDE = r"(?:,? (?:in good (?:conscience|faith)|however|therefore|\w+ly|also|ever|even|just|still),?)*"
_UNABLE = (
    r"(?:i|we)(?: (?:really|simply|just|also|still|must say|am afraid))?"
    rf"(?: (?:{_CANNOT})(?: (?:and|or) (?:{_CANNOT}))*"
    rf"|(?: am|'m| are|'re){_ASIDE} (?:{_NOT_ABLE})(?: to)?"
    r"|(?: will| would|'ll|'d) (?:not be able|be unable) to|(?: won'?t| wouldn'?t| can'?t) be(?: able to)?)"
)
# A sentence without its subject: "Sorry, can't help with that."
_BEGINS = (
    r"(?:^|[.!?;] |\bsorry,? (?:but )?|\bunfortunately,? )(?:cannot|can'?t|won'?t|(?:not able|unable) to)"
)
_HOW = (
    rf"(?: be able to)?{_ASIDE}"
    r"(?: (?:want to|wish to|agree to|(?:think|believe|feel) (?:that )?i (?:can|should)))?"
)
_HELP = (
    # "I cannot help but smile", "I cannot help noticing" are none.
    r"(?:help(?! but\b| \w+ing\b)|helping|assist|assisting|answer|do (?:that|this|so|what you)"
    r"|provide|providing|support|comply|explain|tell you|give|giving|offer|share|sharing"
    r"|write|create|generate|produce|fulfil|fulfill|satisfy|engage|participate|discuss|recommend|advise"
    r"|suggest|condone|endorse|encourage|promote|facilitate|teach|instruct|show (?:you|how)|guide"
    r"|go along|continue|proceed|complete|respond|describe how|accommodate|carry out|take part"
    r"|be of (?:help|assistance)"
    r"|(?:be )?(?:a )?part of|(?:be )?involved in|walk (?:you|anyone|someone) through|go into|aid"
    r"|supply|detail|disclose|coach|outline|list|make (?:a|an|this|that|it|you)|process (?:this|that|your"
    r"|the) request)"
)
_POLICY = r"(?:guidelines?|polic(?:y|ies)|programming|principles|values|rules|training)"
_REFUSAL = re.compile(
    rf"(?:\b{_UNABLE}|{_BEGINS}){_HOW} ?{_HELP}\b"
    rf"|\b(?:i|we)(?: am|'m| are|'re) (?:\w+ )?sorry,? (?:but|i (?:{_CANNOT}|am unable|'m unable))\b"
    r"|\b(?:i|we)(?: must|'ll have to| have to| need to| will(?: have to)?| would have to)(?: \w+ly)?"
    r" (?:decline|refuse)\b"
    r"|\b(?:i|we)(?: am|'m| are|'re) (?:obliged|required|bound|forced) to (?:decline|refuse)\b"
    r"|\b(?:i|we)(?: \w+ly)? (?:refuse|decline)(?: to\b|[.,;!]|$)|\bi refuse\b"
    r"|\bi(?: do not| don'?t| would not|'m not| am not) (?:feel )?comfortable\b"
    r"|\b(?:i|we)(?: would|'d)? (?:rather not|prefer not to)\b"
    r"|\b(?:i|we) have no intention of\b"
    r"|\b(?:i|we)(?: am|'m| are|'re) (?:prohibited|forbidden|barred) from\b"
    r"|\b(?:i|we)(?: am|'m| are|'re) (?:programmed|designed|trained|instructed) not to\b"
    r"|^no,? i (?:will not|won'?t|cannot|can'?t)\b"
    r"|\b(?:is not|isn't|'s not) something (?:that )?(?:i|we)(?: can| could| will| would|'m| am|'re| are)\b"
    r"|\bis something (?:that )?(?:i|we) (?:cannot|can'?t|won'?t|will not)\b"
    rf"|\bagainst (?:my|our)(?: \w+){{0,2}} {_POLICY}\b"
    rf"|\bmy(?: \w+){{0,2}} {_POLICY} (?:do(?:es)? not|don't|doesn't|prevents?|prohibits?|forbids?)\b"
    r"|\b(?:it is|it's|it would) not (?:be )?(?:appropriate|ethical|within my \w+)(?: \w+){0,8}? to"
    r" (?:provide|help|assist|give|offer|share|explain)\b"
    r"|\bnot within my (?:programming|guidelines|capabilities)\b"
)
# Emphasis and what takes no place on the page.
_UNSEEN = re.compile("[*_\u200b-\u200d\u2060\ufeff\u00ad]")
_DENIAL = re.compile(
    r"\b(?:is|are|was|were|do|does|did) not\b|\b(?:isn|aren|wasn|doesn|didn)'t\b"
    r"|\bnot so\b|\bactually\b|^no\b",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a text holds the words of a refusal; a string check, not a judge."""
    return bool(_REFUSAL.search(plain_words(text)))


def denies(text: str) -> bool:
    """Whether a text holds the words of a denial; a string check, not a judge."""
    return bool(_DENIAL.search(plain_words(text)))


def plain_words(text: str) -> str:
    """Lower case, with straight apostrophes and one blank between words, so that patterns see words alone."""
    straight = _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).translate(_APOSTROPHES)
    return " ".join(straight.lower().split())


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
