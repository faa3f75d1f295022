"""A full disk, a locked database and a database server that restarts: nothing paid is lost or paid twice."""

from __future__ import annotations

import multiprocessing
import resource
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from safevid_core.models.ledger import LedgerError
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings, TextModel
from tests.models.chat_server import ChatServer, says
from tests.models.test_llm import ask

TEXTS = [f"q{i}" for i in range(40)]


def _ask_on_a_full_disk(settings: Settings, model: TextModel, room: int, out: Any) -> None:
    """Ask with so many bytes of room left for the ledger's files, then with enough."""
    gateway = Gateway(settings)
    gateway.ask_many(ask(model, "first"), asset="x")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in settings.root.glob("ledger.sqlite*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room, most))
    said = []
    for _ in range(2):
        try:
            gateway.ask_many(ask(model, *TEXTS), asset="x")
        except LedgerError as error:
            said.append(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    answers = gateway.ask_many(ask(model, *TEXTS), asset="x")
    out.put((said, [answer.text for answer in answers]))


@pytest.mark.parametrize("room", [0, 60_000])
def test_a_full_disk_is_reported_and_what_was_paid_is_stored_when_there_is_room(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, room: int
) -> None:
    long = "An answer of some words. " * 400
    server.queue(*[says(long)] * 41)
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    arguments = (settings(providers=[], concurrency=4), text_model, room, out)
    process = context.Process(target=_ask_on_a_full_disk, args=arguments)
    process.start()
    said, texts = out.get(timeout=60)
    process.join()
    assert len(said) == 2
    assert all("ledger" in line and "check the disk" in line for line in said)
    assert texts == [long] * 40
    assert server.paid == dict.fromkeys(["first", *TEXTS], 1)


def _hold(path: Path, seconds: float) -> threading.Thread:
    """Lock a database for writing from another connection for so long."""
    locked = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(path)
        connection.execute("begin immediate")
        locked.set()
        time.sleep(seconds)
        connection.rollback()
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    return thread


def test_a_locked_database_is_waited_for(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, tmp_path: Path
) -> None:
    gateway = Gateway(settings(providers=[]))
    holder = _hold(tmp_path / "ledger.sqlite", 2.0)
    answers = gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    holder.join()
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in TEXTS]
    assert server.paid == dict.fromkeys(TEXTS, 1)


def _cut_connections(url: str) -> int:
    """What a database server does when it restarts: every connection to this database ends."""
    engine = create_engine(url)
    own = "pid <> pg_backend_pid() and datname = current_database()"
    with engine.connect() as connection:
        cut = connection.execute(
            text(f"select pg_terminate_backend(pid) from pg_stat_activity where {own}")
        ).rowcount
    engine.dispose()
    return cut


def test_a_database_server_that_drops_its_connections_costs_no_call_twice(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, postgres_database: str
) -> None:
    gateway = Gateway(settings(providers=[], ledger_url=postgres_database, concurrency=4))
    server.delay_s = 0.02
    over, cut = threading.Event(), []

    def restart_now_and_then() -> None:
        while not over.wait(0.03):
            cut.append(_cut_connections(postgres_database))

    restarting = threading.Thread(target=restart_now_and_then)
    restarting.start()
    lines = []
    deadline = time.monotonic() + 60
    try:
        while len(server.paid) < len(TEXTS) and time.monotonic() < deadline:
            try:
                gateway.ask_many(ask(text_model, *TEXTS), asset="x")
            except LedgerError as error:
                lines.append(str(error))
    finally:
        over.set()
        restarting.join()
    answers = gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {said}" for said in TEXTS]
    assert server.paid == dict.fromkeys(TEXTS, 1)
    assert sum(cut) > 0
    assert all("who else holds it" in line for line in lines)


def test_a_database_locked_for_long_is_reported_and_nothing_is_paid_twice(
    server: ChatServer, settings: Callable[..., Settings], text_model: TextModel, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite?timeout=0.3"
    gateway = Gateway(settings(providers=[], ledger_url=url))
    server.delay_s = 0.5
    holders = []

    def lock_while_asked() -> None:
        while not server.seen:
            time.sleep(0.01)
        holders.append(_hold(tmp_path / "ledger.sqlite", 3.0))

    locking = threading.Thread(target=lock_while_asked)
    locking.start()
    with pytest.raises(LedgerError, match="who else holds it"):
        gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    locking.join()
    holders[0].join()
    answers = gateway.ask_many(ask(text_model, *TEXTS), asset="x")
    assert [answer.text for answer in answers] == [f"echo: {text}" for text in TEXTS]
    assert server.paid == dict.fromkeys(TEXTS, 1)
