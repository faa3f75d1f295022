"""Ctrl-C ends the command with one line and exit code 130, wherever the signal arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safevid_core.storage.lake import WHOLE, Lake
from tests.command import PROJECT, all_gone, command_line, takes_interrupts
from tests.video.clips_for_tests import numbered_frames, write_video

LINE = "safevid: interrupted; finished work is kept\n"
CTRL_C = "os.kill(os.getpid(), signal.SIGINT)"


def ended(source: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, as a terminal starts it."""
    return subprocess.run(
        [sys.executable, "-c", f"import os, signal, sys, time\n{source}", *map(str, arguments)],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True, text=True, timeout=120, preexec_fn=takes_interrupts,
    )  # fmt: skip


@pytest.fixture
def one_clip(tmp_path: Path) -> dict[str, str]:
    """Settings with a source of one clip, as environment."""
    write_video(tmp_path / "clips" / "a.mp4", numbered_frames(24))
    sources = f'[{{"kind": "folder", "path": "{tmp_path / "clips"}"}}]'
    return {"SAFEVID_CORPUS__SOURCES": sources}


AFTER_THE_STEP = f"""
import dagster as dg
handle = dg.DagsterInstance.handle_new_event
def handle_and_interrupt(self, event, **more):
    handle(self, event, **more)
    if event.is_dagster_event and event.dagster_event.event_type_value == "STEP_SUCCESS":
        {CTRL_C}
dg.DagsterInstance.handle_new_event = handle_and_interrupt
from safevid_dagster.cli import main
main()
"""


def test_a_signal_between_the_steps_of_dagster_is_not_forgotten(
    tmp_path: Path, one_clip: dict[str, str]
) -> None:
    """Dagster notes it while it writes its events, and drops the note when the run ends."""
    root = tmp_path / "root"
    done = ended(AFTER_THE_STEP, "--root", root, "run", "pocket_clips", "clip_manifest", **one_clip)
    assert (done.returncode, done.stderr) == (130, LINE)
    assert "clip_manifest" not in done.stdout
    lake = Lake(root, "pocket")
    assert lake.manifest("pocket_clips", WHOLE) is not None, "finished work is kept"
    assert lake.manifest("clip_manifest", WHOLE) is None


@pytest.mark.parametrize("wait", ["threading.Event().wait()", "subprocess.run(['sleep', '60'])"])
def test_a_wait_can_be_interrupted_though_polars_was_imported(wait: str) -> None:
    """polars has the kernel resume the wait. The gateway waits so for answers, and a stage for its pool."""
    source = f"""
import threading, subprocess, safevid_core.contracts.tables
waiter = os.getpid()
threading.Timer(1.0, lambda: os.kill(waiter, signal.SIGINT)).start()
try:
    {wait}
except KeyboardInterrupt:
    os._exit(7)
"""
    started = time.monotonic()
    assert ended(source).returncode == 7
    assert time.monotonic() - started < 40


def test_a_signal_that_python_drops_in_a_finaliser_comes_again() -> None:
    source = f"""
from safevid_dagster.interrupts import noted_interrupts
class Ends:
    def __del__(self):
        {CTRL_C}
try:
    with noted_interrupts():
        each = Ends()
        del each
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""
    started = time.monotonic()
    done = ended(source)
    assert (done.returncode, done.stderr) == (7, "")
    assert time.monotonic() - started < 30


def test_an_error_in_a_finaliser_is_reported_as_ever() -> None:
    source = """
from safevid_dagster.interrupts import noted_interrupts
class Ends:
    def __del__(self):
        raise ValueError("in a finaliser")
with noted_interrupts():
    each = Ends()
    del each
"""
    done = ended(source)
    assert done.returncode == 0
    assert "ValueError: in a finaliser" in done.stderr


def test_a_signal_that_a_library_swallows_is_raised_at_the_next_stage() -> None:
    source = f"""
from safevid_dagster.interrupts import noted_interrupts, raise_lost_interrupt
with noted_interrupts():
    raise_lost_interrupt()
    try:
        {CTRL_C}
        time.sleep(60)
    except BaseException:
        pass
    try:
        raise_lost_interrupt()
    except KeyboardInterrupt:
        sys.exit(7)
"""
    assert ended(source).returncode == 7


def test_a_command_that_went_on_to_its_end_says_that_it_was_interrupted(tmp_path: Path) -> None:
    source = f"""
from safevid_dagster.cli import main, status
def swallowing(*arguments):
    try:
        {CTRL_C}
        time.sleep(60)
    except BaseException:
        return {{}}
status.spend_of = swallowing
main()
"""
    done = ended(source, "--root", tmp_path, "status", "pocket_clips")
    assert (done.returncode, done.stderr) == (130, LINE)


@pytest.mark.parametrize(
    "module", ["typer", "safevid_dagster.cli.commands", "polars", "safevid_core.pipeline"]
)
def test_a_signal_while_the_command_loads_is_one_line(tmp_path: Path, module: str) -> None:
    source = f"""
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {CTRL_C}
sys.meta_path.insert(0, Hook())
from safevid_dagster.cli import main
main()
"""
    done = ended(source, "--root", tmp_path, "status", "pocket_clips")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE)


def test_every_process_of_a_terminal_gets_the_signal_and_none_says_a_word(tmp_path: Path) -> None:
    """Dagster watches the output of a step with two processes of its own."""
    process = subprocess.Popen(
        command_line("--root", tmp_path / "root", "run", "pocket_clips"),
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=takes_interrupts,
    )  # fmt: skip
    watchers = ["pgrep", "-g", str(process.pid), "-f", "watch_orphans"]
    while subprocess.run(watchers, stdout=subprocess.DEVNULL).returncode != 0:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.5)  # until they are past their start
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, LINE)
    assert all_gone(process.pid)
