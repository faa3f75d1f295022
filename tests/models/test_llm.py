"""The gateway against a real HTTP server: what is paid, what is kept, what is told."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import create_engine, text

from safevid_core.models.ledger import Call, LedgerError
from safevid_core.models.llm import (
    PROVIDER_REFUSAL,
    BudgetExceeded,
    ChatRequest,
    Gateway,
    GatewayError,
    Progress,
    ask_structured,
    request_key,
)
from safevid_core.settings import Settings, TextModel, load_settings
from tests.models.chat_server import ChatServer, bodies, cuts, drips, fails, says

PLANTED = "sk-planted-0123456789abcdef"


def ask(model: TextModel, *texts: str, **more: Any) -> list[ChatRequest]:
    return [ChatRequest(model, [{"role": "user", "content": text}], **more) for text in texts]


def test_a_question_is_paid_for_once(server: ChatServer, gateway: Gateway, text_model: TextModel) -> None:
    first = gateway.ask_many(ask(text_model, "a", "b", "a"), asset="x")
    assert [answer.text for answer in first] == ["echo: a", "echo: b", "echo: a"]
    assert [answer.cached for answer in first] == [False, False, True]
    again = gateway.ask_many(ask(text_model, "b", "a"), asset="y")
    assert [answer.text for answer in again] == ["echo: b", "echo: a"]
    assert all(answer.cached for answer in again)
    assert server.paid == {"a": 1, "b": 1}
    assert (gateway.spend("x").calls, gateway.spend("x").cached) == (2, 1)
    assert (gateway.spend("y").calls, gateway.spend("y").cached) == (0, 2)
    assert gateway.spend().tokens_in == 22


def test_a_new_process_reads_what_an_old_one_paid(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    Gateway(settings(providers=[])).ask_many(ask(text_model, "a"), asset="x")
    answer = Gateway(settings(providers=[])).ask_many(ask(text_model, "a"), asset="x")[0]
    assert answer.cached
    assert answer.tokens_in == 11
    assert server.paid == {"a": 1}


def test_sample_index_and_media_are_questions_of_their_own(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    requests = (
        ask(text_model, "a") + ask(text_model, "a", sample_index=1) + ask(text_model, "a", media=("m",))
    )
    gateway.ask_many(requests, asset="x")
    assert server.paid == {"a": 3}


def test_retry_after_is_obeyed(server: ChatServer, gateway: Gateway, text_model: TextModel) -> None:
    server.queue(fails(429, retry_after="2"))
    answer = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    assert answer.text == "echo: a"
    assert server.at[1] - server.at[0] >= 2.0


@pytest.mark.parametrize("misfortune", [fails(429), fails(500), fails(503), cuts()])
def test_a_passing_fault_is_retried(
    server: ChatServer, gateway: Gateway, text_model: TextModel, misfortune: Any
) -> None:
    server.queue(misfortune)
    answer = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    assert (answer.outcome, answer.text) == ("ok", "echo: a")
    assert server.paid == {"a": 1}
    assert gateway.ledger.answers([answer.request_key])[answer.request_key].attempts == 2


def test_a_lasting_fault_fails_its_row_and_is_not_cached(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    server.queue(*[fails(503)] * 3)
    answer = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    assert answer.outcome == "failed"
    assert "openai/loopback" in answer.reason
    assert "run again" in answer.reason
    assert gateway.ledger.answers([answer.request_key]) == {}
    assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].text == "echo: a"


def test_an_answer_that_never_ends_is_cut_off(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.queue(drips())
    gateway = Gateway(settings(providers=[], timeout_s=1, max_attempts=2))
    assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].text == "echo: a"


@pytest.mark.parametrize(("status", "fix"), [(401, "key"), (404, "name"), (400, "settings")])
def test_a_hopeless_request_is_sent_once(
    server: ChatServer, gateway: Gateway, text_model: TextModel, status: int, fix: str
) -> None:
    server.queue(fails(status))
    answer = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    assert answer.outcome == "failed"
    assert fix in answer.reason
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        says("", finish_reason="content_filter"),
        says("partly", finish_reason="content_filter"),
        says("", refusal="I will not"),
        fails(400, "blocked by content_policy_violation", code="content_policy_violation"),
    ],
)
def test_a_provider_refusal_is_undecidable_and_kept(
    server: ChatServer, gateway: Gateway, text_model: TextModel, refusal: Any
) -> None:
    server.queue(refusal)
    for cached in (False, True):
        answer = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
        assert (answer.outcome, answer.reason, answer.text) == ("undecidable", PROVIDER_REFUSAL, None)
        assert answer.cached is cached
    assert len(server.seen) == 1


def test_an_empty_answer_is_kept_and_asked_again_only_on_demand(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.queue(says("  "))
    gateway = Gateway(settings(providers=[]))
    assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].outcome == "failed"
    again = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    assert (again.outcome, again.cached, again.text) == ("failed", True, None)
    anew = Gateway(settings(providers=[], retry_failed=True)).ask_many(ask(text_model, "a"), asset="x")[0]
    assert anew.text == "echo: a"
    assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].text == "echo: a"
    assert len(server.seen) == 2


def test_concurrency_is_used_and_kept(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.delay_s = 0.05
    gateway = Gateway(settings(providers=[], concurrency=4))
    gateway.ask_many(ask(text_model, *map(str, range(24))), asset="x")
    assert server.most_in_flight == 4


def test_it_works_inside_a_running_loop_and_from_threads(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    async def inside() -> str | None:
        return gateway.ask_many(ask(text_model, "loop"), asset="x")[0].text

    assert asyncio.run(inside()) == "echo: loop"
    said: list[Any] = []
    server.delay_s = 0.2
    threads = [
        threading.Thread(target=lambda: said.extend(gateway.ask_many(ask(text_model, "same"), asset="x")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.text for answer in said] == ["echo: same"] * 4
    assert server.paid["same"] == 1


def test_two_rounds_that_fail_on_what_the_other_asks_do_not_wait_for_ever(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    server.delay_s = 0.1
    server.queue(*[fails(400)] * 4)
    said: dict[int, list[Any]] = {}

    def round_(name: int, *texts: str) -> None:
        said[name] = gateway.ask_many(ask(text_model, *texts), asset="x")

    threads = [threading.Thread(target=round_, args=(i, *texts)) for i, texts in enumerate(["ab", "ba"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.outcome for answers in said.values() for answer in answers} <= {"ok", "failed"}
    assert sorted(said) == [0, 1]


def _ask_in_process(settings: Settings, model: TextModel, texts: list[str], out: Any) -> None:
    answers = Gateway(settings).ask_many(ask(model, *texts), asset="x")
    out.put([answer.text for answer in answers])


def test_two_processes_asking_the_same_pay_once(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, ledger_url: str
) -> None:
    server.delay_s = 0.1
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    texts = [f"q{i}" for i in range(40)]
    arguments = (settings(providers=[], ledger_url=ledger_url, lease_s=60.0), text_model, texts, out)
    processes = [context.Process(target=_ask_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [out.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert answers == [[f"echo: {text}" for text in texts]] * 2
    assert set(server.paid.values()) == {1}


def test_a_killed_process_leaves_its_answers_and_no_claim(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.delay_s = 0.05
    context = multiprocessing.get_context("spawn")
    texts = [f"q{i}" for i in range(60)]
    made = settings(providers=[], concurrency=2)
    out = context.Queue()
    process = context.Process(target=_ask_in_process, args=(made, text_model, texts, out))
    process.start()
    server.wait_until_paid(10)
    process.kill()
    process.join()
    answers = Gateway(made).ask_many(ask(text_model, *texts), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in texts]
    assert sum(answer.cached for answer in answers) >= 5
    repeated = sum(count - 1 for count in server.paid.values())
    assert repeated <= 4  # two in flight, and two more whose answers were on their way to the disk


def _spend_in_process(settings: Settings, model: TextModel, texts: list[str], out: Any) -> None:
    gateway = Gateway(settings, run="shared")
    try:
        gateway.ask_many(ask(model, *texts), asset="x")
    except BudgetExceeded as error:
        out.put((gateway.spend().cost_usd, str(error)))


def test_processes_of_one_run_share_its_budget(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, ledger_url: str
) -> None:
    server.delay_s = 0.05
    terms = {
        "openai/loopback": {"usd_per_million_in": 0, "usd_per_million_out": 10_000}
    }  # 7 tokens a call, 10 at most
    made = settings(
        providers=[], ledger_url=ledger_url, budget_usd=1.0, terms=terms, concurrency=3, lease_s=60.0
    )
    model = text_model.model_copy(update={"max_tokens": 10})
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    processes = [
        context.Process(target=_spend_in_process, args=(made, model, [f"{name}{i}" for i in range(20)], out))
        for name in "ab"
    ]
    for process in processes:
        process.start()
    spent = [out.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert all("models.budget_usd" in line for _, line in spent)
    total = sum(usd for usd, _ in spent)
    assert total == pytest.approx(0.07 * sum(server.paid.values()))
    assert 0.9 < total <= 1.0


def test_an_asset_stops_at_a_budget_of_its_own(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    terms = {"openai/loopback": {"usd_per_million_in": 0, "usd_per_million_out": 10_000}}
    model = text_model.model_copy(update={"max_tokens": 10})
    gateway = Gateway(settings(providers=[], asset_budgets_usd={"x": 0.3}, terms=terms))
    with pytest.raises(BudgetExceeded, match=r"asset_budgets_usd\.x"):
        gateway.ask_many(ask(model, *"abcdefgh"), asset="x")
    assert 0.2 <= gateway.spend("x").cost_usd <= 0.3
    assert len(gateway.ask_many(ask(model, *"ABCDEFGH"), asset="y")) == 8


def test_a_budget_needs_a_price(settings: Callable[..., Settings]) -> None:
    gateway = Gateway(settings(providers=[], budget_usd=1.0))
    with pytest.raises(GatewayError, match=r"models\.terms"):
        gateway.ask_many(ask(TextModel(model="nobody/knows-this"), "a"), asset="x")


def test_the_budget_stops_before_it_is_passed(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    import litellm

    price = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.01, "litellm_provider": "openai"}
    litellm.register_model({"openai/priced": {**price, "mode": "chat", "max_tokens": 100}})
    priced = text_model.model_copy(update={"model": "openai/priced", "max_tokens": 10})
    gateway = Gateway(settings(providers=[], budget_usd=0.5, concurrency=4))
    requests = ask(priced, *map(str, range(40)))
    with pytest.raises(BudgetExceeded, match="budget_usd"):
        gateway.ask_many(requests, asset="x")
    spent = gateway.spend("x")
    assert 0 < spent.cost_usd <= 0.5
    assert spent.cost_usd == pytest.approx(0.07 * spent.calls)
    assert len(gateway.ledger.answers([request_key(request) for request in requests])) == spent.calls
    richer = Gateway(settings(providers=[], budget_usd=50))
    assert all(answer.outcome == "ok" for answer in richer.ask_many(requests, asset="x"))
    assert set(server.paid.values()) == {1}


def completion(content: Any, **others: Any) -> str:
    """The body of a 200 whose message has this content."""
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "loopback"}
    return json.dumps({**body, "choices": choices, "usage": usage, **others})


QUOTED = "A kite, 'model_response_object': ModelResponse(\n\nreceived_args={'response_object': 1"
PAID = {
    "parts": (completion([{"type": "text", "text": "A "}, {"type": "text", "text": "kite."}]), "A kite."),
    "strings": (completion(["A kite."]), "A kite."),
    "one part": (completion({"type": "text", "text": "A kite."}), "A kite."),
    "thinking": (
        completion([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A kite."}]),
        "A kite.",
    ),
    "usage of another form": (completion("A kite.", usage=[18]), "A kite."),
    "fractions of tokens": (
        completion("A kite.", usage={"prompt_tokens": 10.5, "completion_tokens": 6.5, "total_tokens": 17}),
        "A kite.",
    ),
    "quoted end": (completion([QUOTED]), QUOTED),
    "a number": (completion(5), ""),
    "choices null": (completion("", choices=None), ""),
    "choices a string": (completion("", choices="x"), ""),
    "choices of nothing": (completion("", choices=[None]), ""),
    "no choices": (json.dumps({"id": "1", "usage": {"prompt_tokens": 11, "completion_tokens": 7}}), ""),
    "nothing": ("{}", ""),
    "choices an object": (completion("", choices={"message": {"content": "A kite."}}), "A kite."),
    "message a string": (completion("", choices=[{"message": "A kite."}]), "A kite."),
    "an error beside": (completion("A kite.", error={"message": "x", "code": 500}), "A kite."),
    "error words beside": (completion("A kite.", error="boom"), "A kite."),
    "an error beside parts": (completion(["A kite."], error="boom"), "A kite."),
}


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "deepseek"])
@pytest.mark.parametrize("form", PAID)
def test_an_answer_of_another_form_is_paid_once_and_read(
    server: ChatServer, settings: Callable[..., Settings], provider: str, form: str
) -> None:
    body, text = PAID[form]
    server.queue(bodies(body))
    model = TextModel(model=f"{provider}/loopback", api_base=server.url, max_tokens=100)
    terms = {model.model: {"usd_per_million_in": 1_000, "usd_per_million_out": 1_000}}
    gateway = Gateway(settings(providers=[], terms=terms, max_attempts=3))
    (answer,) = gateway.ask_many(ask(model, "What flies?"), asset="x")
    assert len(server.seen) == 1, "asked again though it was paid for"
    assert answer.cost_usd > 0
    assert (answer.outcome, answer.text) == (("ok", text) if text else ("failed", None))
    (again,) = gateway.ask_many(ask(model, "What flies?"), asset="x")
    assert again.cached


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}, "choices": None}, True),
        ({"error": {"message": "blocked", "code": "content_policy_violation"}}, True),
        ({"error": {"message": "no", "code": 400}, "choices": []}, False),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}, "choices": None}, False),
        ({"error": "insufficient balance"}, False),
        ({"code": 30001, "message": "insufficient balance"}, False),
    ],
    ids=str,
)
def test_a_200_that_holds_an_error_alone_is_that_error(
    server: ChatServer,
    settings: Callable[..., Settings],
    provider: str,
    body: dict[str, Any],
    refused: bool,
) -> None:
    server.queue(bodies(json.dumps(body)))
    model = TextModel(model=f"{provider}/loopback", api_base=server.url, max_tokens=100)
    terms = {model.model: {"usd_per_million_in": 1_000, "usd_per_million_out": 1_000}}
    gateway = Gateway(settings(providers=[], terms=terms, max_attempts=3))
    (answer,) = gateway.ask_many(ask(model, "a"), asset="x")
    assert (answer.reason == PROVIDER_REFUSAL) == refused
    assert (answer.text, answer.cost_usd) == (None, 0)
    assert len(server.seen) == 1
    (again,) = gateway.ask_many(ask(model, "a"), asset="x")
    assert (again.cached, again.text) == ((True, None) if refused else (False, "echo: a"))


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "Provider returned error", "code": 502}}',
        '{"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}',
        "",
        "<html>busy</html>",
        "null",
        completion("A kite.")[:60],
    ],
)
def test_a_200_without_an_answer_is_tried_again_if_it_may_pass(
    server: ChatServer, gateway: Gateway, text_model: TextModel, body: str
) -> None:
    server.queue(bodies(body))
    assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].text == "echo: a"
    assert len(server.seen) == 2


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
@pytest.mark.parametrize(
    ("usage", "message", "tokens"),
    [
        ({"prompt_tokens": 11, "total_tokens": 1011}, {"content": ""}, (11, 1000)),
        ({"prompt_tokens": 11}, {"content": None, "reasoning_content": "Hm."}, None),
        ({"prompt_tokens": 11, "completion_tokens": 0, "total_tokens": 11}, {"content": ""}, None),
        (
            {"prompt_tokens": 11, "completion_tokens": 900, "completion_tokens_details": {"text_tokens": 1}},
            {"content": "A kite."},
            (11, 900),
        ),
    ],
    ids=["total", "thoughts", "cut", "details"],
)
def test_an_odd_usage_is_booked_at_its_most(
    server: ChatServer,
    settings: Callable[..., Settings],
    provider: str,
    usage: dict[str, Any],
    message: dict[str, Any],
    tokens: tuple[int, int] | None,
) -> None:
    choices = [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", **message}}]
    server.queue(bodies(completion("", choices=choices, usage=usage)))
    model = TextModel(model=f"{provider}/gpt-4o", api_base=server.url, max_tokens=1000)
    terms = {model.model: {"usd_per_million_in": 1, "usd_per_million_out": 2}} if provider != "openai" else {}
    gateway = Gateway(settings(providers=[], terms=terms))
    (request,) = ask(model, "a")
    (answer,) = gateway.ask_many([request], asset="x")
    price = gateway.prices.a_token(model)
    assert price is not None
    expected = price[0] * tokens[0] + price[1] * tokens[1] if tokens else gateway.prices.bound(request)
    assert gateway.ledger.spent(gateway.run) == pytest.approx(expected)
    assert (answer.tokens_in, answer.tokens_out) == (tokens or (0, 0))


def test_a_finish_reason_that_no_database_takes_is_stored_without_what_it_minds(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    server.queue(says("Yes.", "er\0r \ud800"))
    for _ in range(2):
        assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].outcome == "failed"
    assert len(server.seen) == 1


def test_a_budget_asks_what_an_image_counts_before_it_shows_one(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    terms = {text_model.model: {"usd_per_million_in": 1, "usd_per_million_out": 1}}
    gateway = Gateway(settings(providers=[], budget_usd=1.0, terms=terms))
    with pytest.raises(GatewayError, match="tokens_per_image"):
        gateway.ask_many(ask(text_model, "a", images=4), asset="x")
    assert server.seen == []


def test_half_an_answer_beside_a_filters_error_is_none(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    server.queue(bodies(completion("First you take", error={"code": "content_filter", "message": "no"})))
    (answer,) = gateway.ask_many(ask(text_model, "a"), asset="x")
    assert (answer.outcome, answer.reason, answer.text) == ("undecidable", PROVIDER_REFUSAL, None)


@hypothesis_settings(max_examples=12, deadline=None)
@given(
    usages=st.lists(
        st.sampled_from(
            [
                None,
                {},
                [],
                {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
                {"prompt_tokens": -3, "completion_tokens": 1, "total_tokens": -2},
                {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29},
                {"prompt_tokens": 9.5, "completion_tokens": 2, "total_tokens": 11.5},
            ]
        ),
        min_size=1,
        max_size=6,
    ),
    budget=st.floats(0.01, 0.4),
    concurrency=st.integers(1, 16),
    name=st.sampled_from(["loopback", "gpt-4o"]),
)
def test_a_run_never_spends_more_than_its_budget(
    tmp_path_factory: pytest.TempPathFactory,
    usages: list[Any],
    budget: float,
    concurrency: int,
    name: str,
) -> None:
    server = ChatServer()
    try:
        server.queue(
            *[bodies(completion("Yes.", usage=usages[i % len(usages)], model=name)) for i in range(60)]
        )
        model = TextModel(model="openai/loopback", api_base=server.url, max_tokens=20)
        priced = {"usd_per_million_in": 100, "usd_per_million_out": 500}
        models = {
            "providers": [],
            "budget_usd": budget,
            "concurrency": concurrency,
            "terms": {model.model: priced},
        }
        overrides = {"root": str(tmp_path_factory.mktemp("budget")), "models": models}
        gateway = Gateway(load_settings("pocket", overrides=overrides))
        with suppress(BudgetExceeded):
            gateway.ask_many(ask(model, *map(str, range(60))), asset="x")
        spent = gateway.ledger.spent(gateway.run)
        assert spent <= budget + 1e-9
        (first,) = ask(model, "0")
        assert (spent > 0) == (gateway.prices.bound(first) <= budget), "what can be afforded is asked"
    finally:
        server.close()


def test_what_a_provider_writes_can_be_stored_whatever_it_is(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, ledger_url: str
) -> None:
    message = {"role": "assistant", "content": "Yes.\0 \ud800"}
    choice = {"index": 0, "finish_reason": "st\0op \ud800", "message": message}
    huge = {"prompt_tokens": 10**19, "completion_tokens": 10**12, "total_tokens": 10**19}
    server.queue(
        bodies(completion("Yes.", choices=[choice])),
        bodies(completion("Yes.", usage=huge)),
        bodies(completion("Yes.", choices=[{**choice, "finish_reason": "x" * 200_000}])),
    )
    gateway = Gateway(settings(providers=[], ledger_url=ledger_url))
    gateway.ask_many(ask(text_model, "a", "b", "c"), asset="x")
    again = gateway.ask_many(ask(text_model, "a", "b", "c"), asset="x")
    assert all(answer.cached for answer in again)
    assert len(server.seen) == 3


def test_a_ledger_that_fails_while_claiming_loses_nothing_that_was_sent(
    server: ChatServer,
    settings: Callable[..., Settings],
    text_model: TextModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.delay_s = 0.3
    gateway = Gateway(settings(providers=[], concurrency=8))
    acquire, count = gateway.ledger.acquire, iter(range(100))

    def failing(*arguments: Any, **more: Any) -> Any:
        if next(count) == 1:
            raise LedgerError("away")
        return acquire(*arguments, **more)

    monkeypatch.setattr(gateway.ledger, "acquire", failing)
    texts = [str(i) for i in range(200)]
    with pytest.raises(LedgerError, match="away"):
        gateway.ask_many(ask(text_model, *texts), asset="x")
    assert len(gateway.ask_many(ask(text_model, *texts), asset="x")) == 200
    assert set(server.paid.values()) == {1}


def test_an_answer_whose_claim_cannot_be_ended_is_stored_once(
    server: ChatServer,
    settings: Callable[..., Settings],
    text_model: TextModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = Gateway(settings(providers=[], concurrency=1))  # the first question is the refused one
    server.queue(fails(400))

    def failing(*_: Any) -> None:
        raise LedgerError("away")

    with monkeypatch.context() as patched, suppress(LedgerError):
        patched.setattr(gateway.ledger, "release", failing)
        gateway.ask_many(ask(text_model, "a", "b"), asset="x")
    gateway.ask_many(ask(text_model, "b"), asset="x")
    with gateway.ledger.reading() as connection:
        assert connection.execute(text("select count(*) from safevid_calls")).scalar() == 1


def test_threads_that_store_what_was_not_store_it_once(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    gateway = Gateway(settings(providers=[]))
    paid = [Call(f"k{i}", "m", "1", "x", outcome="ok", text="yes") for i in range(5)]
    gateway._unstored.extend(("run", [each]) for each in paid)
    threads = [threading.Thread(target=gateway._store_unstored) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with gateway.ledger.reading() as connection:
        assert connection.execute(text("select count(*) from safevid_calls")).scalar() == 5


def _ask_until_interrupted(settings: Settings, model: TextModel, count: int) -> None:
    with suppress(KeyboardInterrupt):
        Gateway(settings).ask_many(ask(model, *map(str, range(count))), asset="x")


def test_what_was_sent_before_an_interrupt_is_kept(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.delay_s = 1.0
    made = settings(providers=[], concurrency=8)
    process = multiprocessing.get_context("spawn").Process(
        target=_ask_until_interrupted, args=(made, text_model, 100)
    )
    process.start()
    while len(server.seen) < 12:
        time.sleep(0.01)
    time.sleep(0.5)  # it waits for answers: Python loses an interrupt that hits the end of an object
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 0
    sent = len(server.seen)
    assert sent < 100, "nothing is sent any more"
    server.delay_s = 0.0
    gateway = Gateway(made)
    gateway.ask_many(ask(text_model, *map(str, range(100))), asset="x")
    assert set(server.paid.values()) == {1}, "what was sent is not paid for again"


def test_a_panic_while_rendering_is_raised_and_not_waited_for(
    gateway: Gateway, text_model: TextModel
) -> None:
    class Panic(BaseException):
        pass

    def render() -> Any:
        raise Panic("of a module in another language")

    with pytest.raises(Panic):
        gateway.ask_many(ask(text_model, "a", render=render), asset="x")


def test_a_round_whose_renewals_fail_for_longer_than_its_lease_keeps_what_it_sent(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, tmp_path: Path
) -> None:
    server.delay_s = 5.0
    made = settings(providers=[], lease_s=1.0)
    asked = ask(text_model, "a", "b", "c")
    rounds = [threading.Thread(target=Gateway(made).ask_many, args=(asked,), kwargs={"asset": "x"})]
    rounds[0].start()
    while len(server.seen) < 3:
        time.sleep(0.01)
    holder = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    holder.execute("begin immediate")
    time.sleep(1.7)
    holder.execute("rollback")
    time.sleep(0.5)  # a renewal comes through, late
    rounds.append(threading.Thread(target=Gateway(made).ask_many, args=(asked,), kwargs={"asset": "x"}))
    rounds[1].start()
    for each in rounds:
        each.join()
    assert server.paid == {"a": 1, "b": 1, "c": 1}


def test_an_alias_of_a_priced_model_is_free_by_name_and_stops_a_budget(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.queue(*[bodies(completion("Yes.", model="gpt-4o"))] * 300)
    gateway = Gateway(settings(providers=[], budget_usd=1.0, concurrency=16))
    with pytest.raises(GatewayError, match=r"says that it is gpt-4o.*models\.terms"):
        gateway.ask_many(ask(text_model, *map(str, range(300))), asset="x")
    assert gateway.ledger.spent(gateway.run) == 0, "booked by the price that was set aside"
    assert len(server.seen) == 1, "one question goes first"
    terms = {text_model.model: {"usd_per_million_in": 0, "usd_per_million_out": 0}}
    free = Gateway(settings(providers=[], budget_usd=1.0, terms=terms))
    assert all(answer.text for answer in free.ask_many(ask(text_model, "a", "b"), asset="x"))


def test_a_free_server_is_asked_many_at_once_after_its_first_answer(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.delay_s = 0.1
    server.queue(fails(400))
    gateway = Gateway(settings(providers=[], budget_usd=1.0, concurrency=8))
    answers = gateway.ask_many(ask(text_model, *map(str, range(24))), asset="x")
    assert sum(answer.outcome == "ok" for answer in answers) == 23
    assert server.at[2] - server.at[0] >= 0.2, "one by one until the first answer"
    assert server.most_in_flight == 8


def test_a_planted_key_reaches_the_provider_and_nothing_else(
    server: ChatServer,
    settings: Callable[..., Settings],
    text_model: TextModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LOOPBACK_API_KEY", PLANTED)
    caplog.set_level(logging.DEBUG)
    model = text_model.model_copy(update={"api_key_env": "LOOPBACK_API_KEY"})
    gateway = Gateway(settings(providers=[], max_attempts=2))
    server.queue(says(None, echo_key=True), fails(401, echo_key=True), *[fails(500, echo_key=True)] * 2)
    answers = [gateway.ask_many(ask(model, text), asset="x")[0] for text in "abc"]
    assert [answer.outcome for answer in answers] == ["ok", "failed", "failed"]
    assert all(headers["authorization"].endswith(PLANTED) for headers in server.headers)
    gateway.ledger.close()
    captured = capfd.readouterr()
    for place in (repr(answers), caplog.text, captured.out, captured.err, repr(gateway.ledger)):
        assert PLANTED not in place
    for file in tmp_path.rglob("ledger*"):
        assert PLANTED.encode() not in file.read_bytes()


_CRASH = """
import json, sys
from safevid_core.models.llm import ChatRequest, Gateway
from safevid_core.settings import TextModel, load_settings
root, url = sys.argv[1:]
models = {"providers": [], "max_attempts": 1, "ledger_url": f"sqlite:///{root}/ledger.sqlite"}
gateway = Gateway(load_settings("pocket", overrides={"root": root, "models": models}))
model = TextModel(model="openai/loopback", api_base=url, api_key_env="LOOPBACK_API_KEY")
print(gateway.ask_many([ChatRequest(model, [{"role": "user", "content": "a"}])], asset="x"))
raise RuntimeError(f"crashed with {gateway!r} {gateway.ledger!r} {vars(gateway.limits)} {model!r}")
"""


def test_a_planted_key_is_in_no_crash(server: ChatServer, tmp_path: Path) -> None:
    server.queue(fails(401, echo_key=True))
    said = subprocess.run(
        [sys.executable, "-X", "dev", "-X", "faulthandler", "-c", _CRASH, str(tmp_path), server.url],
        capture_output=True,
        text=True,
        env={**os.environ, "LOOPBACK_API_KEY": PLANTED, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.headers[0]["authorization"].endswith(PLANTED)
    assert said.returncode == 1
    assert "RuntimeError: crashed" in said.stderr
    assert "LOOPBACK_API_KEY" in said.stdout, "the error names the variable"
    assert PLANTED not in said.stdout + said.stderr


def test_a_missing_key_is_one_error_that_names_the_variable(gateway: Gateway, text_model: TextModel) -> None:
    model = text_model.model_copy(update={"api_key_env": "NOT_SET_ANYWHERE"})
    with pytest.raises(GatewayError, match="NOT_SET_ANYWHERE"):
        gateway.ask_many(ask(model, "a"), asset="x")


def test_a_key_is_sent_without_the_line_end_of_its_file(
    server: ChatServer, gateway: Gateway, text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_API_KEY", f"{PLANTED}\n")
    model = text_model.model_copy(update={"api_key_env": "LOOPBACK_API_KEY"})
    server.queue(fails(401, echo_key=True))
    answer = gateway.ask_many(ask(model, "a"), asset="x")[0]
    assert server.headers[0]["authorization"].endswith(PLANTED)
    assert PLANTED not in answer.reason


def test_a_key_that_no_header_carries_is_one_error_that_does_not_show_it(
    gateway: Gateway, text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_API_KEY", PLANTED.replace("-", "\u2013"))
    model = text_model.model_copy(update={"api_key_env": "LOOPBACK_API_KEY"})
    with pytest.raises(GatewayError, match="LOOPBACK_API_KEY holds characters") as caught:
        gateway.ask_many(ask(model, "a"), asset="x")
    assert "planted" not in str(caught.value)


def test_a_fault_of_our_own_does_not_show_a_key(
    gateway: Gateway, text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_API_KEY", PLANTED)

    def render() -> Any:
        raise RuntimeError(f"no frames for {os.environ['LOOPBACK_API_KEY']}")

    with pytest.raises(GatewayError, match=r"RuntimeError: no frames for \[redacted\]") as caught:
        gateway.ask_many(ask(text_model, "a", render=render), asset="x")
    assert PLANTED not in "".join(traceback.format_exception(caught.value))


def test_a_local_server_is_never_sent_the_hosted_key(
    server: ChatServer, gateway: Gateway, text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    gateway.ask_many(ask(text_model, "a"), asset="x")
    assert PLANTED not in server.headers[0]["authorization"]


class Claim(BaseModel):
    text: str
    strength: int


def test_structured_answers_are_repaired_once_and_never_bought_twice(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    good = '{"text": "red", "strength": 3}'
    server.queue(says('Sure:\n```json\n{"text": "red", "strength": "much"}\n```'), says(good))
    for cached in (False, True):
        value, answer = ask_structured(gateway, ask(text_model, "a"), Claim, asset="x")[0]
        assert value == Claim(text="red", strength=3)
        assert (answer.outcome, answer.cached, answer.tokens_in) == ("ok", cached, 22)
    assert len(server.seen) == 2
    assert "strength" in server.seen[1]["messages"][-1]["content"]


def test_an_answer_beyond_repair_fails_with_both_texts_kept(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    server.queue(says("not json"), says("still not"))
    value, answer = ask_structured(gateway, ask(text_model, "a"), Claim, asset="x")[0]
    assert value is None
    assert (answer.outcome, answer.text) == ("failed", None)
    assert "Claim" in answer.reason
    first = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    assert first.text == "not json"
    assert gateway.ledger.answers([answer.request_key])[answer.request_key].text == "still not"


def test_what_nobody_could_read_is_asked_again_only_on_demand(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel
) -> None:
    server.queue(says("not json"), says("still not"))
    for gateway in (Gateway(settings(providers=[])), Gateway(settings(providers=[]))):
        assert ask_structured(gateway, ask(text_model, "a"), Claim, asset="x")[0][0] is None
    assert len(server.seen) == 2
    server.queue(says('{"text": "red", "strength": 3}'))
    anew = Gateway(settings(providers=[], retry_failed=True))
    value, answer = ask_structured(anew, ask(text_model, "a"), Claim, asset="x")[0]
    assert (value, answer.outcome) == (Claim(text="red", strength=3), "ok")
    assert len(server.seen) == 3
    value, answer = ask_structured(gateway, ask(text_model, "a"), Claim, asset="x")[0]
    assert (value, answer.cached) == (Claim(text="red", strength=3), True)
    with create_engine(gateway.settings.ledger_url).connect() as connection:
        kept = connection.scalars(text("select text from safevid_calls order by created_at")).all()
    assert kept[:2] == ["not json", "still not"]


def test_the_second_model_is_asked_where_the_first_refuses(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    second = text_model.model_copy(update={"model": "openai/second"})
    model = text_model.model_copy(update={"second": second})
    server.queue(says("", finish_reason="content_filter"))
    for cached in (False, True):
        refused = gateway.ask_many(ask(model, "a"), asset="x")[0]
        fine = gateway.ask_many(ask(model, "b"), asset="x")[0]
        assert (refused.text, refused.model, refused.cached) == ("echo: a", "openai/second", cached)
        assert (refused.tokens_in, fine.tokens_in) == (22, 11)
        assert fine.model == "openai/loopback"
    assert [body["model"] for body in server.seen] == ["loopback", "second", "loopback"]
    assert gateway.spend("x").refused == 1


def test_where_both_models_refuse_the_refusal_stands(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    second = text_model.model_copy(update={"model": "openai/second"})
    server.queue(*[says("", finish_reason="content_filter")] * 2)
    answer = gateway.ask_many(ask(text_model.model_copy(update={"second": second}), "a"), asset="x")[0]
    assert (answer.outcome, answer.reason) == ("undecidable", PROVIDER_REFUSAL)


@pytest.fixture
def down(server: ChatServer, settings: Callable[..., Settings]) -> Callable[[int, float], Gateway]:
    """Opens a gateway to a provider that fails so many requests. Its breaker waits so many seconds."""

    def open_gateway(faults: int, wait_s: float) -> Gateway:
        server.queue(*[fails(503)] * faults)
        breaker = {"breaker_faults": 4, "breaker_wait_s": wait_s}
        return Gateway(settings(providers=[], concurrency=4, max_attempts=2, **breaker))

    return open_gateway


def test_a_provider_that_is_down_is_left_alone_and_found_again(
    server: ChatServer, down: Callable[[int, float], Gateway], text_model: TextModel
) -> None:
    answers = down(5, 0.3).ask_many(ask(text_model, *map(str, range(12))), asset="x")
    assert all(answer.text for answer in answers[4:])
    assert len(server.seen) == 12 + 5 - sum(answer.unanswered for answer in answers)
    gaps = [later - sooner for sooner, later in zip(server.at, server.at[1:], strict=False)]
    assert max(gaps) >= 0.3


def test_a_provider_that_stays_down_fails_the_rest_at_once(
    server: ChatServer, down: Callable[[int, float], Gateway], text_model: TextModel
) -> None:
    gateway = down(1000, 0.1)
    answers = gateway.ask_many(ask(text_model, *map(str, range(200))), asset="x")
    assert {(answer.outcome, answer.unanswered) for answer in answers} == {("failed", True)}
    assert "provider is down" in answers[-1].reason
    assert len(server.seen) < 20
    server.queued.clear()
    time.sleep(1.1)
    again = gateway.ask_many(ask(text_model, *map(str, range(200))), asset="x")
    assert all(answer.text for answer in again)


def test_a_long_retry_after_is_obeyed_by_not_asking(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    server.queue(fails(429, retry_after="3600"))
    first = gateway.ask_many(ask(text_model, "a"), asset="x")[0]
    second = gateway.ask_many(ask(text_model, "b"), asset="x")[0]
    assert (first.unanswered, second.unanswered) == (True, True)
    assert "run again in 3" in second.reason
    assert len(server.seen) == 1


def test_a_limit_that_headers_tell_is_kept(
    server: ChatServer, gateway: Gateway, text_model: TextModel
) -> None:
    spent = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    server.queue(says(None, headers={**spent, "x-ratelimit-reset-requests": "1.2s"}))
    gateway.ask_many(ask(text_model, "a"), asset="x")
    gateway.ask_many(ask(text_model, "b"), asset="x")
    assert server.at[1] - server.at[0] >= 1.2
    assert gateway.limits.of(text_model.model).requests.limit == 60


def test_progress_tells_what_was_done_and_spent(
    server: ChatServer,
    settings: Callable[..., Settings],
    text_model: TextModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "safevid_core")
    server.delay_s = 0.05
    progress: list[Progress] = []
    terms = {"openai/loopback": {"usd_per_million_in": 1e6, "usd_per_million_out": 0}}
    made = settings(providers=[], concurrency=2, progress_s=0.1, terms=terms)
    gateway = Gateway(made, on_progress=progress.append)
    gateway.ask_many(ask(text_model, "q0"), asset="x")
    progress.clear()
    server.queue(says(""))
    gateway.ask_many(ask(text_model, *(f"q{i}" for i in range(20))), asset="x")
    first, last = progress[0], progress[-1]
    assert 0 < first.spent.calls < last.spent.calls == 19
    assert first.left_s is not None
    assert first.left_s > 0
    assert (last.total, last.cached, last.spent.failed, last.spent.tokens_in) == (20, 1, 1, 19 * 11)
    assert "20 of 20 done, 1 cached, 1 failed, 342 tokens, 209.0000 USD" in caplog.text
    figures = gateway.spend("x").figures()
    assert (figures["done"], figures["cached"], figures["failed"]) == (20, 1, 1)
    assert figures["calls_per_second"] > 0


def test_an_answer_that_no_database_takes_is_stored_without_what_it_minds(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, ledger_url: str
) -> None:
    server.queue(says("nul \0 and half a pair \ud83d end"))
    gateway = Gateway(settings(providers=[], ledger_url=ledger_url))
    assert gateway.ask_many(ask(text_model, "a"), asset="x")[0].text == "nul  and half a pair ? end"


REQUESTS = st.builds(
    ChatRequest,
    st.builds(
        TextModel,
        model=st.sampled_from(["openai/a", "openai/b"]),
        revision=st.sampled_from(["1", "2"]),
        temperature=st.sampled_from([0.0, 0.7]),
        max_tokens=st.sampled_from([1, 2]),
    ),
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text()})),
    st.lists(st.text("ab", max_size=2), max_size=2).map(tuple),
    st.integers(0, 2),
)


@given(first=REQUESTS, second=REQUESTS)
@hypothesis_settings(max_examples=300, deadline=None)
def test_keys_are_equal_exactly_where_requests_are(first: ChatRequest, second: ChatRequest) -> None:
    assert (request_key(first) == request_key(second)) == (first == second)


@given(request=REQUESTS)
@hypothesis_settings(max_examples=100, deadline=None)
def test_a_key_ignores_the_order_of_fields_the_server_and_the_name_of_the_key(request: ChatRequest) -> None:
    turned = [dict(reversed(message.items())) for message in request.messages]
    moved = request.model.model_copy(update={"api_base": "http://elsewhere", "api_key_env": "OTHER"})
    other = ChatRequest(moved, turned, request.media, request.sample_index)
    assert request_key(other) == request_key(request)
    assert len(request_key(request)) == 32
