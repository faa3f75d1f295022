"""What of a model's words is its answer: what it says after it has thought, and nothing of the thinking.

Reasoning models put their drafts between marks. A server may take them out, hand them over whole, or hand
over the end alone, with a closing mark and no opening one. What follows the last closing mark is the
answer. Where a mark opens and none closes, the model never came to its answer.

A mark within backticks, or within a reply that is JSON as a whole, is a word about a mark. Examples:
`<think>Yes.</think>No.` says No; `Yes.</think>No.` says No; `<think>Yes.` says nothing.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

NO_ANSWER = "the model thought and gave no answer; raise its limit of tokens"

_STEM = r"think|thought|reason|rationale|reflection|analysis|scratchpad|monologue|internal|cot"
# With what models put around it: `seed:think`, `antThinking`, `inner_monologue`, `reasoning_content`.
_NAME = rf"(?:\w{{1,20}}[:_-]|ant)?(?:{_STEM})(?:ing|s)?(?:[_-]\w{{1,20}})?"
_CLOSES = re.compile(
    rf"(?:<|&lt;)/\s*{_NAME}\s*(?:>|&gt;)|\[/(?:think|thinking|reasoning)\]|◁/think▷|<[|｜]/{_NAME}[|｜]>"
    r"|<\|end_of_thought\|>|<\|END_THINKING\|>"
    # gpt-oss: the channel of the answer follows that of the analysis. A server that drops the special tokens
    # leaves the channels' names. Gemma: the channel's end.
    r"|<\|channel\|>\s*final\s*<\|message\|>|(?-i:assistantfinal)|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_OPENS = re.compile(
    rf"(?:<|&lt;)\s*{_NAME}(?:\s[^<>]*?)?(?:>|&gt;)|\[(?:think|thinking|reasoning)\]|◁think▷|<[|｜]{_NAME}[|｜]>"
    r"|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|channel\|>\s*(?:analysis|commentary)\b"
    r"|\A\s*(?-i:analysis(?=[A-Z]))|<\|channel>\s*thought\b|<unused94>",
    re.IGNORECASE,
)
# What some models put around the answer that follows.
_AROUND = re.compile(
    r"<answer>(?P<plain>.*?)(?:</answer>)?|<\|START_RESPONSE\|>(?P<cohere>.*?)(?:<\|END_RESPONSE\|>)?"
    r"|<\|begin_of_solution\|>(?P<solution>.*?)(?:<\|end_of_solution\|>)?",
    re.IGNORECASE | re.DOTALL,
)
# The end of a turn, where a server hands it over.
_TURN_ENDS = re.compile(r"\s*(?:<\|(?:return|end|im_end|eot_id|endoftext)\|>\s*)+\Z")
# A title's or an initial's point ends no sentence, nor does that of a number in a list.
_SENTENCE_END = re.compile(
    r"(?:[。！？।]|(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bSt)(?<!\be\.g)(?<!\bi\.e)(?<!\b[A-Z])(?<!^\d)(?<!^\d\d)"
    r"[.!?…](?=[\"'”’)\]*_]*(?:\s|$)))[\"'”’)\]*_]*",
    re.MULTILINE,
)
# Marks that are no words of any answer, with or without thinking before them.
_SOLUTION = re.compile(r"\A\s*<\|begin_of_solution\|>|<\|(?:return|end|im_end|eot_id|endoftext)\|>\s*\Z")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_FIRST_LETTER = re.compile(r"\w")


class Reply(NamedTuple):
    """A reply whose marks leave no doubt what is thinking and what is the answer.

    Attributes:
        thinking: What stands before the answer, without the marks; empty if there is none.
        answer: What follows, stripped.
        opened: Whether the thinking begins with a mark; True if there is no thinking.
    """

    thinking: str
    answer: str
    opened: bool


def answer_of(words: str) -> str | None:
    """The answer in a model's words; None where it never came to one."""
    if _is_json(words):
        return words
    plain = _CODE.sub(_without_marks, words)
    closed = [mark.end() for mark in _CLOSES.finditer(plain)]
    begins = closed[-1] if closed else 0
    if _OPENS.search(plain, begins):
        return None
    if not closed:
        return _within(words.strip()) if _SOLUTION.search(words) else words
    return _within(words[begins:].strip())


def plain_reply(words: str) -> Reply | None:
    """A reply's thinking and answer, if the thinking stands before the answer and holds no second end.

    Examples: `<think>a</think>b` and `a</think>b` are such replies. `<think>a</think>b</think>c`,
    `a</think>b</think>c` and `a <think>b</think>c` are not: one of their marks may be quoted.
    """
    if _is_json(words):
        return Reply("", words.strip(), opened=True)
    plain = _CODE.sub(_without_marks, words)
    opens, closes = list(_OPENS.finditer(plain)), list(_CLOSES.finditer(plain))
    if not opens and not closes:
        return Reply("", _within(words.strip()) if _SOLUTION.search(words) else words.strip(), opened=True)
    opened = bool(opens) and not plain[: opens[0].start()].strip()
    if len(closes) != 1 or (opens and (not opened or opens[-1].start() > closes[0].start())):
        return None
    begins = opens[0].end() if opened else 0
    answer = _within(words[closes[0].end() :].strip())
    return Reply(words[begins : closes[0].start()].strip(), answer, opened)


def without_marks(text: str) -> str:
    """The text with a blank in the name of each thinking mark: `</t hink>` is no mark."""
    for marks in (_OPENS, _CLOSES):
        text = marks.sub(lambda found: _FIRST_LETTER.sub(r"\g<0> ", found[0], count=1), text)
    return text


def is_thinking_token(token: str) -> bool:
    """Whether a token of a tokenizer is a thinking mark or a part of one, as `<|channel|>` is."""
    return bool(_OPENS.search(token) or _CLOSES.search(token)) or token in ("<|channel|>", "<|message|>")


def _within(answer: str) -> str:
    """An answer without the marks that some models put around it."""
    answer = _TURN_ENDS.sub("", answer)
    around = _AROUND.fullmatch(answer)
    return answer if around is None else str(around[around.lastgroup or 0]).strip()


def _is_json(words: str) -> bool:
    """Whether the words are one object or array of JSON, within a code fence or not."""
    fenced = _FENCED.fullmatch(words.strip())
    value = fenced[1] if fenced else words.strip()
    if not value.startswith(("{", "[")):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _without_marks(code: re.Match[str]) -> str:
    """Code with its marks hidden, unless a draft ends in it: then its first backticks belong to the draft."""
    closing = _CLOSES.search(code[0])
    ends_a_draft = closing is not None and _OPENS.search(code[0], 0, closing.start()) is None
    if ends_a_draft and closing is not None and code[0].strip("` \n") != closing[0]:
        return code[0]
    return "\0" * len(code[0])


def whole_sentences(text: str) -> str:
    """A text that was cut off, up to its last whole sentence; empty where not even the first was finished."""
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""
