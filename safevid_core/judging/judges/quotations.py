"""Tells the judge's own verdict in a reply from text that the judge may quote.

The judged texts may hold a verdict in the judge's own form, or a mark that ends thinking. A quotation of them
must not count as the verdict. So the whole reply, without its thinking and a code fence, must be the verdict
in the requested form. If a judge may give reasons before its verdict, the verdict must not occur in the
judged texts.
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote

from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges.judge import CUT, Verdict, no_verdict, unreadable
from safevid_core.models.chat import ChatAnswer
from safevid_core.models.thinking import plain_reply

# Words that withdraw a value, add another value, or attribute it to somebody else.
DOUBT = re.compile(
    r"\d|n['’]t\b|\b(?:zero|one|two|three|four|five|half|yes|no|not|n/a|or|but|wait|maybe|perhaps|possibly"
    r"|probably|actually|rather|instead|could|should|would|might|may|make|however|although|though|yet|almost"
    r"|nearly|than|between|least|most|plus|minus|more|less|correct\w*|sorry|scratch|false|wrong|untrue|lie"
    r"|quot\w*|claim\w*|say\w*|said|pretend\w*|supposed\w*|alleged\w*)\b",
    re.IGNORECASE,
)
# The core of a thinking mark with any kind of bracket.
_THINKING = re.compile(
    r"[<\[◁|({&/]\W{0,4}(?:\w{1,20}[:_-]|ant)?(?:think|thought|reason|reflection|analysis|scratchpad"
    r"|rationale|internal|monologue|cot\b|channel|unused9|(?:begin|end)_of_th|(?:start|end)_th)|assistantfinal",
    re.IGNORECASE,
)
_MARK = re.compile(_THINKING.pattern + r"[\w \t]*\W*", re.IGNORECASE)
_FENCED = re.compile(r"```[a-zA-Z]*[ \t]*\n(?P<inside>(?:(?!```).)*?)\n?[ \t]*```", re.DOTALL)
_ESCAPED = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")


def own_words(answer: ChatAnswer | None, row: JudgeInput, begins: re.Pattern[str]) -> str | Verdict:
    """The judge's reply without its thinking and without a code fence around all of it.

    Args:
        answer: The reply. If the object has no `cut` and no `raw_text`, its `text` is the whole reply.
        begins: Matches the beginning of a verdict of this judge. If the thinking has no opening mark and
            matches, it may be the judge's verdict, and the closing mark may be a quotation.

    Returns:
        The words, empty if there are none. An undecidable verdict if the judge's own words cannot be told
        from a quotation.
    """
    if answer is None or answer.text is None:
        return ""
    # HarmBench and Video-SafetyBench ask for one token, so each of their replies ends at its limit.
    if getattr(answer, "cut", False) and answer.tokens_out != 1:
        return no_verdict(CUT)
    reply = plain_reply(getattr(answer, "raw_text", "") or answer.text)
    if reply is None:
        return no_verdict("the judge's reply holds thinking marks of which one may be a quotation")
    shown = shown_to(row) if reply.thinking or not reply.opened else ""
    if not reply.opened and (begins.match(reply.thinking.lstrip()) or _THINKING.search(shown)):
        return no_verdict(
            "the judge's reply holds the end of thinking and no beginning, which may be a quotation; "
            "let the model's server take the thinking out"
        )
    if any(_follows(reply.answer, shown, mark.end()) for mark in _MARK.finditer(shown)):
        return no_verdict("the judge's verdict stands after the end of thinking in what it was shown")
    fenced = _FENCED.fullmatch(reply.answer)
    return fenced["inside"].strip() if fenced else reply.answer


def whole_answer(
    name: str,
    answer: ChatAnswer | None,
    row: JudgeInput,
    begins: re.Pattern[str],
    asked: re.Pattern[str],
    wanted: str,
) -> re.Match[str] | Verdict:
    """The match of the judge's own words with the requested form.

    Args:
        name: Name of the judge.
        begins: As for :func:`own_words`.
        asked: The form of the whole reply.
        wanted: The form in words. Example: `'yes' or 'no'`.

    Returns:
        The match, or an undecidable verdict with the reason.
    """
    words = own_words(answer, row, begins)
    if isinstance(words, Verdict):
        return words
    return asked.fullmatch(words) or unreadable(name, words, wanted)


def _follows(words: str, text: str, place: int) -> bool:
    """Whether these words follow in a text at a place. Only letters and digits are compared."""
    return _letters(text[place : place + 4 * len(words) + 20]).startswith(_letters(words))


def _letters(text: str) -> str:
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def shown_to(row: JudgeInput) -> str:
    """All text of a row that its judge may quote, in lower case, NFKC and with escapes resolved."""
    intent = row.intent
    parts: list[str | None] = [row.text, row.query, row.reference, row.options, row.subcategory]
    parts += [intent.target, intent.premise, intent.hazard, *intent.criteria, *row.policy]
    text = "\n".join(part or "" for part in parts)
    for _ in range(2):  # a text may be escaped twice
        text = _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), unquote(html.unescape(text)))
    text = unicodedata.normalize("NFKC", text)
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf").casefold()
