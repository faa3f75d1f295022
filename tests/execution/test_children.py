"""Processes that a run starts: Ctrl-C does not reach them, and none outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from safevid_core.alignment import dpo
from safevid_core.alignment.dpo import Program
from safevid_core.alignment.job import Job
from safevid_core.execution import children
from safevid_core.execution.children import end, without_interrupts
from safevid_core.settings import load_settings

BLOCKED = "import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(99)
"""


def started(source: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)


def test_a_child_and_its_children_do_not_receive_the_signal() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with without_interrupts():
        grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BLOCKED!r}])"
        found = [started(BLOCKED), started(grandchild)]
    assert [each.communicate(timeout=60)[0] for each in found] == [f"[{int(signal.SIGINT)}]\n"] * 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert started(BLOCKED).communicate(timeout=60)[0] == f"{sorted(map(int, before))}\n"


def test_a_signal_in_the_block_arrives_at_its_end() -> None:
    reached = []

    def block() -> None:
        with without_interrupts():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            block()
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == ["the end"]


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ENDS_WITHIN_S", 0.5)
    process = started(STUBBORN)
    assert process.stdout is not None
    process.stdout.readline()
    end(process)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def test_a_training_is_started_without_interrupts_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner is interrupted while it waits for the training."""
    held = tmp_path / "held"
    (tmp_path / "waiting.py").write_text(
        "import pathlib, signal, time\n"
        "blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        f"pathlib.Path('{held}.part').write_text(str(blocked))\n"
        f"pathlib.Path('{held}.part').rename('{held}')\n"
        "time.sleep(99)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(Job, "file", property(lambda self: tmp_path / "job.json"))
    settings, job = load_settings("pocket").alignment, object.__new__(Job)
    ran: list[subprocess.Popen[str]] = []

    def train() -> None:
        with dpo._launched([job], settings, lambda: nullcontext(Program("waiting", {}))) as launch:
            assert launch._process is not None
            ran.append(launch._process)
            while not held.exists():
                assert launch._process.poll() is None
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert held.read_text() == f"[{int(signal.SIGINT)}]"
    assert ran[0].returncode is not None
