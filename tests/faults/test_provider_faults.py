"""What a provider may do wrong, by a real HTTP server: every question answered once and paid once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from safevid_core.models.bill import bill
from safevid_core.models.llm import PROVIDER_REFUSAL, Gateway, ask_structured
from safevid_core.settings import Settings, TextModel
from tests.models.chat_server import ChatServer, Reply, bodies, cuts, drips, fails, says
from tests.models.test_llm import ask

TEXTS = [f"q{i}" for i in range(24)]

PASSING: dict[str, Reply] = {
    "429 without Retry-After": fails(429),
    "429 with Retry-After": fails(429, retry_after="1"),
    "500": fails(500),
    "503": fails(503),
    "a connection cut in the middle of the body": cuts(),
    "an answer that never ends": drips(),
    "a body that is not JSON": bodies("<html>busy</html>"),
    "half a JSON body": bodies('{"choices": [{"message": {"content": "half'),
    "a 200 with an error inside": bodies('{"error": {"message": "overloaded", "code": 503}}'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_after_a_passing_fault_every_question_is_answered_and_paid_once(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, fault: Reply
) -> None:
    gateway = Gateway(settings(providers=[], timeout_s=2, max_attempts=4, concurrency=4))
    scattered = random.Random(0).sample(range(12), 4)
    server.queue(*[fault if place in scattered else says(None) for place in range(12)])
    answers = gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in TEXTS]
    assert server.paid == dict.fromkeys(TEXTS, 1)
    assert bill(gateway.ledger, by=()).rows()[0][:2] == (24, 24), "no failure is in the ledger"
    assert all(answer.cached for answer in gateway.ask_many(ask(text_model, *TEXTS), asset="x"))


LASTING = {
    "a wrong model name": (fails(404, "no such model"), "name"),
    "an expired key": (fails(401, "expired"), "key"),
    "a provider that is down": (fails(503), "run again"),
}


@pytest.mark.parametrize(("fault", "fix"), LASTING.values(), ids=LASTING.keys())
def test_a_lasting_fault_fails_each_row_and_caches_none(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, fault: Reply, fix: str
) -> None:
    gateway = Gateway(settings(providers=[], max_attempts=2, breaker_wait_s=0.05, concurrency=4))
    server.queue(*[fault] * 500)
    answers = gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    assert all((answer.outcome, answer.unanswered) == ("failed", True) for answer in answers)
    assert fix in answers[0].reason
    assert bill(gateway.ledger).is_empty()
    server.queued.clear()
    again = Gateway(gateway.settings).ask_many(ask(text_model, *TEXTS), asset="x")
    assert [answer.text for answer in again] == [f"echo: {text}" for text in TEXTS]
    assert server.paid == dict.fromkeys(TEXTS, 1)


class Claim(BaseModel):
    text: str
    strength: int


GOOD = '{"text": "red", "strength": 3}'
UNUSABLE = {
    "no JSON": ("surely!", 2),
    "a wrong schema": ('{"text": "red", "strength": "very"}', 2),
    "nothing": ("", 1),
    "a filter's stop": (None, 1),
}


@pytest.mark.parametrize(("said", "calls"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_was_paid_and_is_of_no_use_is_kept_counted_and_never_served(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, said: str | None, calls: int
) -> None:
    reply = says("partly", finish_reason="content_filter") if said is None else says(said)
    server.queue(*[reply] * calls)
    gateway = Gateway(settings(providers=[]))
    for _ in range(2):
        value, answer = ask_structured(gateway, ask(text_model, "a"), Claim, asset="x")[0]
        assert (value, answer.text, answer.unanswered) == (None, None, False)
        if said is None:
            assert (answer.outcome, answer.reason) == ("undecidable", PROVIDER_REFUSAL)
        else:
            assert answer.outcome == "failed"
    assert len(server.seen) == calls, "asked again by nobody"
    assert bill(gateway.ledger, by=())["calls"].item() == calls
    server.queue(says(GOOD))
    anew = Gateway(settings(providers=[], retry_failed=True))
    assert ask_structured(anew, ask(text_model, "a"), Claim, asset="x")[0][0] is not None
    assert ask_structured(gateway, ask(text_model, "a"), Claim, asset="x")[0][1].cached
    assert bill(gateway.ledger, by=())["calls"].item() == calls + 1


def test_many_faults_at_once_in_any_order(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    generator = random.Random(7)
    quick: list[Any] = [fault for name, fault in PASSING.items() if "never ends" not in name]
    for _ in range(3):
        server.queue(*[generator.choice([*quick, says(None)]) for _ in range(20)])
        gateway = Gateway(
            settings(providers=[], max_attempts=8, concurrency=8, breaker_wait_s=0.05, breaker_faults=5)
        )
        gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    answers = gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in TEXTS]
    assert server.paid == dict.fromkeys(TEXTS, 1)
