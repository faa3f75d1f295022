"""Separation of a model's thinking from its answer.

Reasoning models write their thinking between marks such as `<think>` and `</think>`. A server may remove the
thinking, return it with both marks, or return it with the closing mark only. The answer is the text after the
last closing mark. If a mark opens and none closes, there is no answer.

Marks within backticks do not count, nor do marks in a reply that is valid JSON as a whole. Examples:
`<think>Yes.</think>No.` and `Yes.</think>No.` have the answer "No."; `<think>Yes.` has none.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

NO_ANSWER = "the model thought and gave no answer; raise its limit of tokens"

_STEM = r"think|thought|reason|rationale|reflection|analysis|scratchpad|monologue|internal|cot"
# With prefixes and suffixes of models: `seed:think`, `antThinking`, `inner_monologue`, `reasoning_content`.
_NAME = rf"(?:\w{{1,20}}[:_-]|ant)?(?:{_STEM})(?:ing|s)?(?:[_-]\w{{1,20}})?"
_CLOSES = re.compile(
    rf"(?:<|&lt;)/\s*{_NAME}\s*(?:>|&gt;)|\[/(?:think|thinking|reasoning)\]|◁/think▷|<[|｜]/{_NAME}[|｜]>"
    r"|<\|end_of_thought\|>|<\|END_THINKING\|>"
    # gpt-oss: the channel of the answer follows the channel of the analysis. A server that removes the
    # special tokens leaves the names of the channels. Gemma: the end of the channel.
    r"|<\|channel\|>\s*final\s*<\|message\|>|(?-i:assistantfinal)|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_OPENS = re.compile(
    rf"(?:<|&lt;)\s*{_NAME}(?:\s[^<>]*?)?(?:>|&gt;)|\[(?:think|thinking|reasoning)\]|◁think▷|<[|｜]{_NAME}[|｜]>"
    r"|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|channel\|>\s*(?:analysis|commentary)\b"
    r"|\A\s*(?-i:analysis(?=[A-Z]))|<\|channel>\s*thought\b|<unused94>",
    re.IGNORECASE,
)
# Marks that some models write around the answer.
_AROUND = re.compile(
    r"<answer>(?P<plain>.*?)(?:</answer>)?|<\|START_RESPONSE\|>(?P<cohere>.*?)(?:<\|END_RESPONSE\|>)?"
    r"|<\|begin_of_solution\|>(?P<solution>.*?)(?:<\|end_of_solution\|>)?",
    re.IGNORECASE | re.DOTALL,
)
# End-of-turn tokens, which some servers return.
_TURN_ENDS = re.compile(r"\s*(?:<\|(?:return|end|im_end|eot_id|endoftext)\|>\s*)+\Z")
# A period after a title, after an initial or after the number of a list item does not end a sentence.
_SENTENCE_END = re.compile(
    r"(?:[。！？।]|(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bSt)(?<!\be\.g)(?<!\bi\.e)(?<!\b[A-Z])(?<!^\d)(?<!^\d\d)"
    r"[.!?…](?=[\"'”’)\]*_]*(?:\s|$)))[\"'”’)\]*_]*",
    re.MULTILINE,
)
# Marks that are never part of an answer, with or without thinking before them.
_SOLUTION = re.compile(r"\A\s*<\|begin_of_solution\|>|<\|(?:return|end|im_end|eot_id|endoftext)\|>\s*\Z")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_FIRST_LETTER = re.compile(r"\w")


class Reply(NamedTuple):
    """A reply whose marks separate thinking and answer without ambiguity.

    Attributes:
        thinking: The text before the answer, without marks. Empty if there is none.
        answer: The answer, stripped.
        opened: Whether the thinking begins with an opening mark. True if there is no thinking.
    """

    thinking: str
    answer: str
    opened: bool


def answer_of(words: str) -> str | None:
    """Return the answer in a model's text. None if there is none."""
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
    """Return the thinking and the answer of a reply. None if its marks are ambiguous.

    Examples: `<think>a</think>b` and `a</think>b` are unambiguous. `<think>a</think>b</think>c`,
    `a</think>b</think>c` and `a <think>b</think>c` give None, because one of their marks may be quoted.
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
    """Return the text with a blank in each thinking mark. Example: `</think>` becomes `</t hink>`."""
    for marks in (_OPENS, _CLOSES):
        text = marks.sub(lambda found: _FIRST_LETTER.sub(r"\g<0> ", found[0], count=1), text)
    return text


def is_thinking_token(token: str) -> bool:
    """Return whether a tokenizer's token is a thinking mark or a part of one, such as `<|channel|>`."""
    return bool(_OPENS.search(token) or _CLOSES.search(token)) or token in ("<|channel|>", "<|message|>")


def _within(answer: str) -> str:
    """Return an answer without the marks around it."""
    answer = _TURN_ENDS.sub("", answer)
    around = _AROUND.fullmatch(answer)
    return answer if around is None else str(around[around.lastgroup or 0]).strip()


def _is_json(words: str) -> bool:
    """Return whether the text is one JSON object or array, with or without a code fence."""
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
    """Return a code span with its marks hidden.

    If the span holds a closing mark without an opening one, the first backticks belong to the thinking. The
    span is then returned unchanged.
    """
    closing = _CLOSES.search(code[0])
    ends_a_draft = closing is not None and _OPENS.search(code[0], 0, closing.start()) is None
    if ends_a_draft and closing is not None and code[0].strip("` \n") != closing[0]:
        return code[0]
    return "\0" * len(code[0])


def whole_sentences(text: str) -> str:
    """Return a cut text up to its last complete sentence. Empty if no sentence is complete."""
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""
