"""`kill -9` at any moment: what was stored is whole, and only what was in flight is asked again."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safevid_core.models.bill import bill
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings, TextModel
from tests.models.chat_server import ChatServer
from tests.models.test_llm import ask

CONCURRENCY = 4
SEED = 2505


def _ask_all(settings: Settings, model: TextModel, texts: list[str]) -> None:
    Gateway(settings, run="killed").ask_many(ask(model, *texts), asset="x")


@pytest.mark.parametrize(
    "kills",
    [pytest.param(5, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.faults)],
)
def test_killed_runs_lose_nothing_and_repeat_only_what_was_in_flight(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, ledger_url: str, kills: int
) -> None:
    generator = random.Random(SEED)
    server.delay_s = 0.02
    texts = [f"q{i}" for i in range(60 * kills)]
    made = settings(providers=[], concurrency=CONCURRENCY, ledger_url=ledger_url, lease_s=1.0)
    context = multiprocessing.get_context("spawn")
    for _ in range(kills):
        paid_before = sum(server.paid.values())
        process = context.Process(target=_ask_all, args=(made, text_model, texts))
        process.start()
        wanted = paid_before + generator.randint(1, 50)
        deadline = time.monotonic() + 60
        while sum(server.paid.values()) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        process.join()
    gateway = Gateway(made, run="last")
    answers = gateway.ask_many(ask(text_model, *texts), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in texts]
    assert sum(answer.cached for answer in answers) >= kills
    # In flight at a kill, or answered and on the way to the disk.
    repeated = sum(count - 1 for count in server.paid.values())
    assert repeated <= 3 * CONCURRENCY * kills
    totals = bill(gateway.ledger, by=()).row(0, named=True)
    assert totals["calls"] == totals["usable"] == len(texts), "no failure was cached, no answer stored twice"


def test_the_ledger_of_a_killed_process_is_whole(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, tmp_path: Path
) -> None:
    server.delay_s = 0.005
    process = multiprocessing.get_context("spawn").Process(
        target=_ask_all, args=(settings(providers=[]), text_model, [f"q{i}" for i in range(2000)])
    )
    process.start()
    server.wait_until_paid(100)
    process.kill()
    process.join()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        found: list[Any] = connection.execute("pragma integrity_check").fetchall()
    assert found == [("ok",)]
