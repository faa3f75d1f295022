"""Batch files against a real HTTP server: the rows of the online path, at half the price, through kills."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine

from safevid_core.models.ledger import BATCH_LINES, BATCHES, CALLS, LEASES, Ledger
from safevid_core.models.llm import PROVIDER_REFUSAL, BudgetExceeded, ChatAnswer, ChatRequest, Gateway
from safevid_core.settings import Settings, TextModel
from tests.models.batch_server import BatchServer
from tests.models.chat_server import ChatServer
from tests.models.test_llm import PLANTED, ask

Change = Callable[[bytes], bytes]
TERMS = {"batch": True, "usd_per_million_in": 1000, "usd_per_million_out": 2000}


@pytest.fixture
def batch_server() -> Iterator[BatchServer]:
    with closing(BatchServer()) as server:
        yield server


@pytest.fixture
def model(batch_server: BatchServer) -> TextModel:
    return TextModel(model="openai/loopback", api_base=batch_server.url)


@pytest.fixture
def changing(batch_server: BatchServer, batched: Callable[..., Settings]) -> Callable[[Change], Gateway]:
    """A gateway to a provider that answers at once and changes its line about question `b`."""

    def opened(change: Change) -> Gateway:
        batch_server.open.set()
        batch_server.changes = {"b": change}
        return Gateway(batched())

    return opened


@pytest.fixture
def batched(settings: Callable[..., Settings]) -> Callable[..., Settings]:
    def make(**models: Any) -> Settings:
        terms = {"openai/loopback": TERMS}
        asked = {"providers": [], "terms": terms, "batch_poll_s": 0.05, "timeout_s": 5, "max_attempts": 2}
        return settings(**{**asked, **models})

    return make


def stored(ledger: Ledger, table: Any = CALLS) -> list[Any]:
    with ledger.reading() as connection:
        return list(connection.execute(table.select()).mappings())


def without_times(rows: list[Any]) -> list[dict[str, Any]]:
    own = ("call_id", "created_at", "latency_s", "run", "cost_usd", "batch_id")
    kept = [{name: value for name, value in row.items() if name not in own} for row in rows]
    return sorted(kept, key=lambda row: str(row["request_key"]))


def test_the_rows_are_those_of_the_online_path(
    batch_server: BatchServer,
    server: ChatServer,
    batched: Callable[..., Settings],
    model: TextModel,
) -> None:
    batch_server.open.set()
    texts = [f"q{i}" for i in range(30)]
    gateway = Gateway(batched())
    answers = gateway.ask_many(ask(model, *texts, "q0"), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in texts] + ["echo: q0"]
    assert len(batch_server.batches) == 1
    assert gateway.spend("x").cost_usd == pytest.approx(30 * 0.5 * (11 * 1e-3 + 7 * 2e-3))
    assert stored(gateway.ledger, BATCHES) == stored(gateway.ledger, BATCH_LINES) == []
    online = Gateway(batched(ledger_url="sqlite://", terms={}))
    online_model = model.model_copy(update={"api_base": server.url})
    online.ask_many(ask(online_model, *texts), asset="x")
    assert without_times(stored(gateway.ledger)) == without_times(stored(online.ledger))
    assert all(answer.cached for answer in gateway.ask_many(ask(model, *texts), asset="y"))
    assert set(batch_server.paid.values()) == {1}


def test_online_and_batched_models_are_asked_together(
    batch_server: BatchServer, server: ChatServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    batch_server.open.set()
    online = TextModel(model="openai/online", api_base=server.url)
    requests = [
        request for pair in zip(ask(model, *"abc"), ask(online, *"ABC"), strict=True) for request in pair
    ]
    answers = Gateway(batched()).ask_many(requests, asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in "aAbBcC"]
    assert (sum(batch_server.paid.values()), sum(server.paid.values())) == (3, 3)


def test_refusals_and_errors_of_single_lines_end_like_online_ones(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    batch_server.open.set()
    batch_server.errors = {"a": (400, "content_policy_violation"), "b": (500, "trouble"), "c": (400, "bad")}
    gateway = Gateway(batched())
    a, b, c, d = gateway.ask_many(ask(model, *"abcd"), asset="x")
    assert (a.outcome, a.reason, a.unanswered) == ("undecidable", PROVIDER_REFUSAL, False)
    assert (b.outcome, b.unanswered, c.outcome, c.unanswered) == ("failed", True, "failed", False)
    assert d.text == "echo: d"
    batch_server.errors = {}
    again = gateway.ask_many(ask(model, *"abcd"), asset="x")
    assert [answer.text for answer in again] == [None, "echo: b", "echo: c", "echo: d"]
    assert batch_server.paid == {"a": 1, "b": 2, "c": 2, "d": 1}


def test_what_an_expired_batch_left_out_is_asked_by_the_next_run(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    batch_server.open.set()
    batch_server.end = "expired"
    answers = Gateway(batched()).ask_many(ask(model, *"abcd"), asset="x")
    assert [answer.text for answer in answers] == ["echo: a", "echo: b", None, None]
    assert "expired" in answers[2].reason
    assert answers[2].unanswered
    batch_server.end = "completed"
    again = Gateway(batched()).ask_many(ask(model, *"abcd"), asset="x")
    assert [answer.text for answer in again] == [f"echo: {text}" for text in "abcd"]
    assert batch_server.paid == {"a": 1, "b": 1, "c": 2, "d": 2}


def _ask_in_process(settings: Settings, requests: list[ChatRequest], run: str | None = None) -> None:
    Gateway(settings, run=run).ask_many(requests, asset="x")


def _killed_while_it_waits(
    batch_server: BatchServer, settings: Settings, requests: list[ChatRequest], run: str | None = None
) -> None:
    """Ask in a process of its own, which is killed when the provider has the batch."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_ask_in_process, args=(settings, requests, run))
    process.start()
    _until(lambda: batch_server.polls > 2)
    process.kill()
    process.join()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_a_killed_process_loses_no_batch(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel, ledger_url: str
) -> None:
    made = batched(ledger_url=ledger_url)
    requests = ask(model, *(f"q{i}" for i in range(20)))
    _killed_while_it_waits(batch_server, made, requests)
    batch_server.open.set()
    answers = Gateway(made).ask_many([*requests, *ask(model, "new")], asset="x")
    assert [answer.text for answer in answers] == [f"echo: q{i}" for i in range(20)] + ["echo: new"]
    assert set(batch_server.paid.values()) == {1}
    assert len(batch_server.batches) == 2


def test_a_batch_whose_submission_was_not_confirmed_is_found_again(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    batch_server.lose_answers = 1
    batch_server.open.set()
    lost = Gateway(batched()).ask_many(ask(model, *"abc"), asset="x")
    assert {(answer.outcome, answer.unanswered) for answer in lost} == {("failed", True)}
    found = Gateway(batched()).ask_many(ask(model, *"abc"), asset="x")
    assert [answer.text for answer in found] == ["echo: a", "echo: b", "echo: c"]
    assert set(batch_server.paid.values()) == {1}


def test_a_provider_that_cannot_be_reached_costs_nothing_and_loses_nothing(
    batched: Callable[..., Settings], model: TextModel, batch_server: BatchServer
) -> None:
    away = model.model_copy(update={"api_base": "http://127.0.0.1:9/v1"})
    answers = Gateway(batched(max_attempts=1)).ask_many(ask(away, "a"), asset="x")
    assert (answers[0].outcome, answers[0].unanswered) == ("failed", True)
    assert "openai/loopback" in answers[0].reason
    batch_server.open.set()
    assert Gateway(batched()).ask_many(ask(model, "a"), asset="x")[0].text == "echo: a"


def test_two_askers_of_the_same_share_one_batch(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    made, answers = batched(), dict[int, list[ChatAnswer]]()
    requests = ask(model, *"abc")
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: Gateway(made).ask_many(requests, asset="x")}))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    _until(lambda: batch_server.polls > 2)
    batch_server.open.set()
    for thread in threads:
        thread.join(60)
    assert [answer.text for answer in answers[0]] == [answer.text for answer in answers[1]]
    assert len(batch_server.batches) == 1


def test_the_key_reaches_the_provider_and_neither_file_nor_ledger(
    batch_server: BatchServer,
    batched: Callable[..., Settings],
    model: TextModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOPBACK_API_KEY", PLANTED)
    batch_server.open.set()
    gateway = Gateway(batched())
    gateway.ask_many(ask(model.model_copy(update={"api_key_env": "LOOPBACK_API_KEY"}), "a"), asset="x")
    assert batch_server.authorizations == {f"Bearer {PLANTED}"}
    assert PLANTED not in repr(batch_server.files) + repr(batch_server.batches)
    assert PLANTED not in repr(stored(gateway.ledger))


def _changed(change: Callable[[dict[str, Any]], object]) -> Change:
    def made(line: bytes) -> bytes:
        whole = json.loads(line)
        change(whole)
        return json.dumps(whole).encode()

    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[: len(line) // 2],
        lambda line: line[:-1] + b', "deep": ' + b"[" * 100_000,
        _changed(lambda line: line.update(response="x")),
        _changed(lambda line: line.update(response=None)),
        _changed(lambda line: line["response"].update(body="x")),
        _changed(lambda line: line["response"].update(body=["x"])),
    ],
    ids=["cut", "deep", "response text", "response null", "body text", "body list"],
)
def test_an_answer_that_cannot_be_read_is_on_the_bill_and_alone_in_it(
    batch_server: BatchServer, changing: Callable[[Change], Gateway], model: TextModel, change: Change
) -> None:
    gateway = changing(change)
    requests = ask(model, *"abc")
    for _ in range(2):
        a, b, c = gateway.ask_many(requests, asset="x")
        assert (a.text, b.outcome, c.text) == ("echo: a", "failed", "echo: c")
        assert "cannot be read" in b.reason
    bound = gateway.prices.bound(requests[1])
    assert gateway.ledger.spent(gateway.run) == pytest.approx(bound + 2 * 0.0125)
    assert set(batch_server.paid.values()) == {1}


@pytest.mark.parametrize(
    "change",
    [
        _changed(lambda line: line["response"].update(status_code="200")),
        _changed(lambda line: line["response"].pop("status_code")),
        _changed(lambda line: line["response"]["body"]["choices"][0].update(finish_reason="stop\ud800")),
        lambda line: b"\xef\xbb\xbf" + line.replace(b'"stop"', b'"\xff\xfestop"'),
    ],
    ids=["status text", "no status", "surrogate", "not utf-8"],
)
def test_an_answer_in_an_odd_line_is_an_answer(
    changing: Callable[[Change], Gateway], model: TextModel, change: Change
) -> None:
    answers = changing(change).ask_many(ask(model, *"abc"), asset="x")
    assert [answer.text for answer in answers] == ["echo: a", "echo: b", "echo: c"]


@pytest.mark.parametrize(
    "line", [b"oops", b"[1]", b'{"response": null}', b'{"custom_id": [1]}', b"[" * 100_000, b"\xff"]
)
def test_a_line_that_names_no_question_is_skipped(
    batch_server: BatchServer, changing: Callable[[Change], Gateway], model: TextModel, line: bytes
) -> None:
    gateway = changing(lambda _: line)
    a, b, c = gateway.ask_many(ask(model, *"abc"), asset="x")
    assert (a.text, b.unanswered, c.text) == ("echo: a", True, "echo: c")
    batch_server.changes = {}
    assert gateway.ask_many(ask(model, "b"), asset="x")[0].text == "echo: b"


def test_a_submission_that_is_refused_fails_its_own_questions_alone(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    made = batched(terms={"openai/loopback": TERMS, "openai/other": TERMS})
    batch_server.open.set()
    batch_server.refused = {"c"}
    gateway = Gateway(made)
    requests = ask(model, *"ab") + ask(model.model_copy(update={"model": "openai/other"}), "c")
    a, b, c = gateway.ask_many(requests, asset="x")
    assert (a.text, b.text, c.outcome) == ("echo: a", "echo: b", "failed")
    assert "no such model here" in c.reason
    assert stored(gateway.ledger, BATCHES) == []
    batch_server.refused = set()
    assert [each.text for each in Gateway(made).ask_many(requests, asset="x")] == [
        "echo: a",
        "echo: b",
        "echo: c",
    ]
    assert batch_server.paid == {"a": 1, "b": 1, "c": 1}


def test_a_batch_that_cannot_be_looked_for_fails_its_own_questions_alone(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    batch_server.open.set()
    batch_server.lose_answers = 1
    made = batched()
    Gateway(made).ask_many(ask(model, *"ab"), asset="x")
    batch_server.listless = True
    a, b, c = Gateway(made).ask_many(ask(model, *"abc"), asset="x")
    assert (a.unanswered, b.unanswered, c.text) == (True, True, "echo: c")
    batch_server.listless = False
    assert [each.text for each in Gateway(made).ask_many(ask(model, *"ab"), asset="x")] == [
        "echo: a",
        "echo: b",
    ]
    assert set(batch_server.paid.values()) == {1}


@pytest.mark.parametrize(
    "gone", [{"batch-0": 404}, {"batch-0": 400}, {"file-1": 404}], ids=["batch", "batch, 400", "output file"]
)
def test_the_questions_of_a_batch_that_is_gone_are_asked_by_the_next_run(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel, gone: dict[str, int]
) -> None:
    made = batched()
    batch_server.gone = gone
    batch_server.open.set()
    a = Gateway(made).ask_many(ask(model, "a"), asset="x")[0]
    assert a.unanswered
    assert "no longer knows batch batch-0; run again" in a.reason
    assert Gateway(made).ask_many(ask(model, "a"), asset="x")[0].text == "echo: a"


def test_a_wrong_address_loses_no_batch(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel
) -> None:
    made = batched()
    _killed_while_it_waits(batch_server, made, ask(model, "a"))
    batch_server.open.set()
    elsewhere = model.model_copy(update={"api_base": f"{batch_server.url}/elsewhere"})
    a = Gateway(made).ask_many(ask(elsewhere, "a"), asset="x")[0]
    assert a.unanswered
    assert "api_base" in a.reason
    assert Gateway(made).ask_many(ask(model, "a"), asset="x")[0].text == "echo: a"
    assert batch_server.paid == {"a": 1}


def test_an_open_batch_counts_under_the_budget_of_its_run_and_is_collected_under_it(
    batch_server: BatchServer,
    server: ChatServer,
    batched: Callable[..., Settings],
    model: TextModel,
    ledger_url: str,
) -> None:
    online_terms = {"usd_per_million_in": 1000, "usd_per_million_out": 2000}
    terms = {"openai/loopback": TERMS, "openai/online": online_terms}
    made = batched(ledger_url=ledger_url, terms=terms, budget_usd=2.0)
    short = model.model_copy(update={"max_tokens": 7})
    requests = ask(short, *(f"q{i}" for i in range(5)))
    _killed_while_it_waits(batch_server, made, requests, "run")
    gateway = Gateway(made, run="run")
    set_aside = 5 * gateway.prices.bound(requests[0])
    online = TextModel(model="openai/online", api_base=server.url, max_tokens=7)
    with pytest.raises(BudgetExceeded):
        gateway.ask_many(ask(online, *(f"b{i}" for i in range(50))), asset="y")
    assert 0 < gateway.ledger.spent("run") <= 2.0 - set_aside
    batch_server.open.set()
    answers = Gateway(made, run="run").ask_many(requests, asset="x")
    assert [answer.text for answer in answers] == [f"echo: q{i}" for i in range(5)]
    charged = 0.025 * sum(server.paid.values()) + 0.0125 * sum(batch_server.paid.values())
    assert gateway.ledger.spent("run") == pytest.approx(charged)
    assert charged <= 2.0


def test_two_that_collect_one_batch_book_it_once_to_the_run_that_submitted_it(
    batch_server: BatchServer, batched: Callable[..., Settings], model: TextModel, ledger_url: str
) -> None:
    made, answers = batched(ledger_url=ledger_url), dict[str, list[ChatAnswer]]()
    requests = ask(model, *"abc")
    ledger = Ledger(ledger_url)

    def collect(run: str) -> None:
        answers[run] = Gateway(made, run=run).ask_many(requests, asset="x")

    threads = [threading.Thread(target=collect, args=(run,)) for run in ("first", "second")]
    threads[0].start()
    _until(lambda: batch_server.polls > 2)
    with create_engine(ledger_url).begin() as connection:  # as when its lease is over
        connection.execute(LEASES.delete())
    threads[1].start()
    _until(lambda: len(stored(ledger, LEASES)) == 3)
    time.sleep(0.5)  # the second one polls too
    batch_server.open.set()
    for thread in threads:
        thread.join(60)
    assert [answer.text for answer in answers["first"]] == ["echo: a", "echo: b", "echo: c"]
    assert [answer.text for answer in answers["second"]] == ["echo: a", "echo: b", "echo: c"]
    assert len(stored(ledger)) == 3
    assert ledger.spent("first") == pytest.approx(3 * 0.0125)
    assert ledger.spent("second") == 0
