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
def test_a_full_disk_is_told_and_what_was_paid_is_stored_when_there_is_room(
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


def test_a_database_locked_for_long_is_told_and_nothing_is_paid_twice(
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
