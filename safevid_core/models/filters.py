"""How providers say that a filter of their own stopped a question or an answer, in their own dialects.

A filter's no is an answer of a kind: it is counted, a second model may be asked, and the same question is
not asked again. It is told by a finish reason, by an error's code, or, where the provider has no code, by
the words of an error that is about the request. Each spelling stands in its provider's documentation:

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

# Parts of finish reasons, without case, dashes and underscores; each provider builds its own words of them.
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
# The model came to its end. Servers that send no finish reason are taken at their text; every other reason,
# as `network_error`, `abort`, `repetition` or one that is not known yet, says that the answer broke off.
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
# A code that is a number counts only as the value of a code.
_NUMBERED = re.compile(r"(?:code|status_code)[\"']?\s*[:=]\s*[\"']?(?:1301|1026|1027)\b", re.IGNORECASE)
# Statuses with which a filter answers. 401 and 404 are about the key and the model, 429 about the pace.
_STATUSES = frozenset({400, 403, 422, 451})


def is_filter_stop(finish_reason: str | None) -> bool:
    """Whether a finish reason, in any provider's spelling, says that a filter stopped the answer."""
    said = _letters(finish_reason)
    return any(part in said for part in _STOPS)


def is_filter_error(status: int | None, words: str) -> bool:
    """Whether an error says that a filter of the provider stopped the request.

    Args:
        status: The HTTP status; None where there was none.
        words: The error's words, its body among them.
    """
    if status not in _STATUSES:
        return False
    if status == 451:  # unavailable for legal reasons: StepFun's filter, and no other fault of a model's
        return True
    said = words.lower()
    return any(code in said for code in _CODES) or _NUMBERED.search(words) is not None


def is_cut(finish_reason: str | None) -> bool:
    """Whether a finish reason says that the answer was cut off at its limit of tokens."""
    said = _letters(finish_reason)
    return any(part in said for part in _CUTS)


def is_broken_off(finish_reason: str | None) -> bool:
    """Whether a finish reason says that the answer is not whole, for no limit of tokens and no filter."""
    told = (is_filter_stop(finish_reason), is_cut(finish_reason), _letters(finish_reason) in _ENDS)
    return not any(told)


def is_filtered_body(fields: Mapping[str, Any]) -> bool:
    """Whether the fields beside the choices of a response say that a filter stopped the answer.

    MiniMax sends 200 with half a text, `base_resp.status_code` 1026 or 1027 and `output_sensitive`; Zhipu
    sends `contentFilter: [{"role": "assistant", "level": 0}]`, 0 being the most severe of its four levels.
    """
    told = fields.get("base_resp")
    if isinstance(told, Mapping) and str(told.get("status_code")) in ("1026", "1027"):
        return True
    if fields.get("output_sensitive") is True or fields.get("input_sensitive") is True:
        return True
    levels = fields.get("contentFilter") or fields.get("content_filter") or ()
    each = levels if isinstance(levels, list) else ()
    return any(isinstance(one, Mapping) and str(one.get("level")) == "0" for one in each)


def _letters(finish_reason: str | None) -> str:
    """A finish reason's letters, without case and the name of its enumeration."""
    said = re.sub(r"[^a-z]", "", (finish_reason or "").rpartition(".")[2].lower())
    return said.removeprefix("finishreason")
