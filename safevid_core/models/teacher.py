"""How a teacher is asked: one system message with the task, one user message that is a JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safevid_core.lake import settings_hash
from safevid_core.models.llm import PROVIDER_REFUSAL, ChatAnswer, ChatRequest
from safevid_core.settings import TextModel


def teacher_request(model: TextModel, task: str, material: Mapping[str, Any]) -> ChatRequest:
    """A request with the task as system message and the material as JSON.

    The material is data: descriptions and queries in it were written by others, and the task says so.
    """
    return ChatRequest(
        model,
        [
            {"role": "system", "content": task},
            {"role": "user", "content": json.dumps(material, ensure_ascii=False)},
        ],
    )


def teacher_hash(model: TextModel, task: str) -> str:
    """What decides a teacher's answers, for a stage's inputs; the address it is reached at does not."""
    chain = []
    asked: TextModel | None = model
    while asked is not None:
        chain += [asked.model, asked.revision, asked.temperature, asked.max_tokens]
        asked = asked.second
    return settings_hash(*chain, task)


def spend_info(*answers: Sequence[ChatAnswer]) -> dict[str, Any]:
    """Calls made, calls answered from the ledger, tokens and cost, for a stage's metadata.

    `cut` counts answers that were cut off at their limit of tokens. `unusable` counts stored answers that
    are none, refusals of the provider (`provider_refusals`) among them; `unanswered` counts questions for
    which no model could be reached, for which :func:`safevid_core.lake.run_stage` makes the partition
    again.
    """
    all_answers: list[ChatAnswer] = [answer for some in answers for answer in some]
    bought = [answer for answer in all_answers if not answer.cached]
    unusable = [answer for answer in all_answers if answer.outcome != "ok" and not answer.unanswered]
    return {
        "calls": len(bought),
        "cached_calls": len(all_answers) - len(bought),
        "unusable": len(unusable),
        "provider_refusals": sum(answer.reason == PROVIDER_REFUSAL for answer in unusable),
        "cut": sum(answer.cut for answer in all_answers if answer.text is not None),
        "unanswered": sum(answer.unanswered for answer in all_answers),
        "tokens_in": sum(answer.tokens_in for answer in bought),
        "tokens_out": sum(answer.tokens_out for answer in bought),
        "cost_usd": round(sum(answer.cost_usd for answer in bought), 6),
    }
