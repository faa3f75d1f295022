"""How a teacher is asked: one system message with the task, one user message that is a JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safevid_core.lake import settings_hash
from safevid_core.models.llm import ChatAnswer, ChatRequest
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
    return settings_hash(model.model, model.revision, model.temperature, model.max_tokens, task)


def spend_info(*answers: Sequence[ChatAnswer]) -> dict[str, Any]:
    """Calls made, calls answered from the ledger, and their cost, for a stage's metadata."""
    all_answers: Iterable[ChatAnswer] = [answer for some in answers for answer in some]
    cached = [answer.cached for answer in all_answers]
    return {
        "calls": cached.count(False),
        "cached_calls": cached.count(True),
        "cost_usd": round(sum(answer.cost_usd for some in answers for answer in some), 6),
    }
