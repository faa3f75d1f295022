"""Detection of provider content filters, from finish reasons, error codes and error messages.

A refusal by a filter counts as an answer: the gateway stores it, may ask a second model, and does not ask
the same question again. The filter is detected by the finish reason, by the error code, or, if the provider
has no code, by the words of an error about the request. Each spelling is from the provider's documentation:

| provider | says |
|---|---|
| OpenAI, Azure | 400 `content_filter`, `content_policy_violation`, `ResponsibleAIPolicyViolation` |
| DashScope (Alibaba) | 400 `data_inspection_failed`, `DataInspectionFailed` |
| DeepSeek | 400 "Content Exists Risk" |
| Zhipu | 400 code 1301; finish reason `sensitive`; `contentFilter` of level 0 |
| OpenRouter | 403 with `flagged_input` or `reasons` of a moderation |
| xAI | 403 "Content violates usage guidelines" |
| Gemini | finish reasons `SAFETY`, `PROHIBITED_CONTENT`, `BLOCKLIST`, `RECITATION`, `SPII`; `blockReason` |
| Bedrock | stop reasons `guardrail_intervened`, `content_filtered`; 400 "by our content filters" |
| Anthropic | stop reason `refusal`; 400 "Output blocked by content filtering policy" |
| StepFun | 451 `censorship_blocked` |
| MiniMax | 1026, 1027, in an error or in the `base_resp` of a 200 |
| Moonshot, Volcengine | `content_filter`; `SensitiveContentDetected` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Parts of finish reasons, in lower case without dashes and underscores. Example: `filter` is in OpenAI's
# `content_filter` and in Bedrock's `content_filtered`.
_STOPS = (
    "filter", "safety", "refus", "guardrail", "prohibited", "blocklist", "blocked", "recitation", "spii",
    "sensitive", "riskcontrol", "moderat", "toxic", "policy", "modelarmor", "violation", "censor",
    "jailbreak",
    "flagged",
)  # fmt: skip
_CUTS = (
    "length",
    "maxtokens",
    "outputtokens",
    "newtokens",
    "completiontokens",
    "tokenlimit",
    "contextwindow",
)
# Finish reasons of a complete answer. A missing finish reason counts as complete. Every other reason, such as
# `network_error`, `abort`, `repetition` or an unknown one, means that the answer is incomplete.
_ENDS = frozenset(
    {"", "none", "null", "stop", "stopped", "stopsequence", "stopstring", "stopstringfound", "stoptoken",
     "eos", "eostoken", "eostokenid", "eosfound", "endofsequence", "endoftext", "endturn", "end",
     "complete", "completed", "completion", "done", "finish", "finished", "success", "normal", "unspecified",
     "toolcalls", "toolcall", "tooluse", "functioncall"}
)  # fmt: skip
_CODES = (
    "content_policy_violation", "content_filter", "contentfilter", "content filter", "content_safety",
    "content safety", "moderation_blocked", "censorship_block",
    "responsibleaipolicyviolation", "data_inspection_failed", "datainspectionfailed", "content exists risk",
    "flagged_input", "sensitivecontentdetected", "inputtextsensitivecontent", "outputtextsensitivecontent",
    "inputimagesensitivecontent", "prohibited_content", "blockreason", "block_reason", "guardrail_intervened",
    "content violates usage guidelines", "violates our usage policies", "violates usage guidelines",
    "content management policy", "failed check: safety_check",
    "safety_check_type",
    "requires moderation", "input was flagged", "input new_sensitive", "output new_sensitive",
    "new_sensitive", "content_blocked",
    "content_moderation", "inappropriate content", "rejected as a result of our safety system",
    "flagged as potentially violating", "considered high risk", "unsafe or sensitive content",
    "不安全或敏感内容", "敏感内容", "内容安全",
)  # fmt: skip
# A numeric code counts only as the value of a field `code` or `status_code`.
_NUMBERED = re.compile(r"(?:code|status_code)[\"']?\s*[:=]\s*[\"']?(?:1301|1026|1027)\b", re.IGNORECASE)
# HTTP statuses of filters. 401 and 404 are errors of the key and the model name, 429 of the rate.
_STATUSES = frozenset({400, 403, 422, 451})


def is_filter_stop(finish_reason: str | None) -> bool:
    """Return whether a finish reason of any provider means that a filter stopped the answer."""
    letters = _letters(finish_reason)
    return any(part in letters for part in _STOPS)


def is_filter_error(status: int | None, words: str) -> bool:
    """Return whether an error means that a filter of the provider stopped the request.

    Args:
        status: The HTTP status. None if there was none.
        words: The message and the body of the error.
    """
    if status not in _STATUSES:
        return False
    if status == 451:  # "unavailable for legal reasons": only StepFun's filter sends it
        return True
    lowered = words.lower()
    return any(code in lowered for code in _CODES) or _NUMBERED.search(words) is not None


def is_cut(finish_reason: str | None) -> bool:
    """Return whether a finish reason means that the answer was cut off at its token limit."""
    letters = _letters(finish_reason)
    return any(part in letters for part in _CUTS)


def is_broken_off(finish_reason: str | None) -> bool:
    """Return whether a finish reason means an incomplete answer for a reason other than limit or filter."""
    explained = (is_filter_stop(finish_reason), is_cut(finish_reason), _letters(finish_reason) in _ENDS)
    return not any(explained)


def is_filtered_body(fields: Mapping[str, Any]) -> bool:
    """Return whether the fields of a reply outside its choices mean that a filter stopped the answer.

    MiniMax sends status 200 with part of a text, `base_resp.status_code` 1026 or 1027, and
    `output_sensitive`. Zhipu sends `contentFilter: [{"role": "assistant", "level": 0}]`. Level 0 is the most
    severe of four.
    """
    base = fields.get("base_resp")
    if isinstance(base, Mapping) and str(base.get("status_code")) in ("1026", "1027"):
        return True
    if fields.get("output_sensitive") is True or fields.get("input_sensitive") is True:
        return True
    levels = fields.get("contentFilter") or fields.get("content_filter") or ()
    each = levels if isinstance(levels, list) else ()
    return any(isinstance(one, Mapping) and str(one.get("level")) == "0" for one in each)


def _letters(finish_reason: str | None) -> str:
    """Return the letters of a finish reason in lower case, without the name of an enumeration.

    Example: `FinishReason.MAX_TOKENS` gives `maxtokens`.
    """
    letters = re.sub(r"[^a-z]", "", (finish_reason or "").rpartition(".")[2].lower())
    return letters.removeprefix("finishreason")
