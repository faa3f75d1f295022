"""Requests to a teacher model: a system message with the task, and a user message that is a JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safevid_core.models.llm import PROVIDER_REFUSAL, ChatAnswer, ChatRequest
from safevid_core.settings import TextModel
from safevid_core.storage.lake import settings_hash


def teacher_request(model: TextModel, task: str, material: Mapping[str, Any]) -> ChatRequest:
    """Return a request with the task as system message and the material as JSON.

    The material is data and never an instruction: others wrote the descriptions and queries in it. Each task
    says so.
    """
    return ChatRequest(
        model,
        [
            {"role": "system", "content": task},
            {"role": "user", "content": json.dumps(material, ensure_ascii=False)},
        ],
    )


def teacher_hash(model: TextModel, task: str) -> str:
    """Return a hash of everything that changes a teacher's answers, for the inputs of a stage.

    The address of the server is not part of it. The model's `second` is.
    """
    chain = []
    asked: TextModel | None = model
    while asked is not None:
        chain += [asked.model, asked.revision, asked.temperature, asked.max_tokens]
        asked = asked.second
    return settings_hash(*chain, task)


def spend_info(*answers: Sequence[ChatAnswer]) -> dict[str, Any]:
    """Return counts, tokens and cost of some answers, for the metadata of a stage.

    Returns:
        `calls`: calls that were made. `cached_calls`: answers from the ledger. `unusable`: stored answers
        that are not usable, with refusals. `provider_refusals`: the refusals among them. `cut`: answers that
        were cut off at their token limit. `unanswered`: questions for which no model could be reached. If
        there are any, :func:`safevid_core.storage.lake.run_stage` makes the partition again. `tokens_in`,
        `tokens_out` and `cost_usd` of the calls.
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
