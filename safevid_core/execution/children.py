"""Processes that this process starts: Ctrl-C does not reach them, and they end with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds that a process has to end after SIGTERM. A training writes nothing then: its checkpoints are whole.
ENDS_WITHIN_S = 10.0


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started in the block do not receive SIGINT, and neither do their children.

    A terminal sends Ctrl-C to every process of a command. A child would print a traceback of its own, and the
    parent, which is interrupted itself, would take its death for a failure. A signal that this process gets
    in the block arrives when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(process: subprocess.Popen[str]) -> None:
    """End a process that still runs, and wait until it has."""
    process.terminate()
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
