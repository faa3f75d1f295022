"""Runs that share a ledger and cannot see each other's processes, as containers of one host name do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from safevid_core.models.bill import bill
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings
from tests.models.chat_server import ChatServer

pytestmark = pytest.mark.faults

QUESTIONS = 200
CONCURRENCY = 8
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")


@pytest.fixture
def start(server: ChatServer, tmp_path: Path, ledger_url: str) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a process that asks everything, in namespaces of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine makes no namespaces")
    started = []

    def begin(lease_s: float = 2.0) -> subprocess.Popen:
        arguments = [tmp_path, ledger_url, server.url, QUESTIONS, lease_s, CONCURRENCY]
        asking = [sys.executable, "-m", "tests.faults.asking", *map(str, arguments)]
        process = subprocess.Popen(
            [*CONTAINER, "sh", "-c", 'echo worker > /proc/sys/kernel/hostname && exec "$0" "$@"', *asking],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def stopped(process: subprocess.Popen) -> Iterator[None]:
    """A process and its children, held still as a suspended container is."""
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in family:
            os.kill(each, signal.SIGCONT)


def test_two_containers_that_ask_the_same_pay_once(
    server: ChatServer, start: Callable[..., subprocess.Popen]
) -> None:
    server.delay_s = 0.1
    both = [start(), start()]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert sum(server.paid.values()) == len(server.paid) == QUESTIONS


def test_a_killed_container_costs_what_it_had_in_flight(
    server: ChatServer, start: Callable[..., subprocess.Popen]
) -> None:
    server.delay_s = 0.1
    first = start()
    server.wait_until_paid(QUESTIONS // 4)
    second = start()
    server.wait_until_paid(QUESTIONS // 3)
    first.kill()
    assert second.wait(timeout=120) == 0
    assert len(server.paid) == QUESTIONS
    assert sum(server.paid.values()) - QUESTIONS <= 2 * CONCURRENCY


def test_a_container_that_slept_past_its_lease_sends_nothing_that_others_have_taken_over(
    server: ChatServer,
    start: Callable[..., subprocess.Popen],
    settings: Callable[..., Settings],
    ledger_url: str,
) -> None:
    server.delay_s = 0.1
    first = start(lease_s=1.0)
    server.wait_until_paid(QUESTIONS // 4)
    with stopped(first):
        time.sleep(1.5)
        second = start(lease_s=1.0)
        server.wait_until_paid(QUESTIONS // 2)
    assert (first.wait(timeout=120), second.wait(timeout=120)) == (0, 0)
    assert len(server.paid) == QUESTIONS
    assert sum(server.paid.values()) - QUESTIONS <= 2 * CONCURRENCY
    totals = bill(Gateway(settings(providers=[], ledger_url=ledger_url)).ledger, by=()).row(0, named=True)
    assert totals["usable"] == sum(server.paid.values()), "what was paid twice stands on the bill twice"
