"""Ctrl-C that no library loses.

Python raises KeyboardInterrupt in whatever code runs when the signal arrives. It gets lost in four ways:

- Dagster notes the signal while it writes its events, raises it in the next step, and forgets it if the run
  has no further step (`dagster._utils.interrupts.capture_interrupts`).
- Python prints and drops an exception that is raised while it finalises an object or releases the lock of a
  module that is being imported.
- Python makes a RuntimeError of an exception that is raised while it makes a class (`__set_name__`).
- A library catches every exception.

The interpreter writes each signal into a socket as well, whatever handler is installed
(`signal.set_wakeup_fd`). Where a stage or partition begins, :func:`raise_lost_interrupt` reads the socket.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_AGAIN_S = 0.1  # after this the dropped exception's code has ended, and the signal is sent once more


class _Notes:
    """Whether SIGINT arrived, read from the socket into which the interpreter writes each signal."""

    def __init__(self) -> None:
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)
        self._arrived = False

    def arrived(self) -> bool:
        with suppress(BlockingIOError):
            while some := self.reader.recv(4096):
                self._arrived |= signal.SIGINT in some
        return self._arrived

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


_notes: _Notes | None = None


@contextmanager
def noted_interrupts() -> Iterator[None]:
    """Note each Ctrl-C while the block lasts, and send one again that Python drops in a finaliser.

    It works in the main thread alone. In another thread the block changes nothing.
    """
    global _notes
    if threading.current_thread() is not threading.main_thread() or _notes is not None:
        yield
        return
    notes = _Notes()
    wakeup = signal.set_wakeup_fd(notes.writer.fileno(), warn_on_full_buffer=False)
    hook = sys.unraisablehook
    timers: list[threading.Timer] = []

    def send_again(dropped: Any) -> None:
        if notes.arrived() and not issubclass(dropped.exc_type, Exception):
            main = threading.main_thread().ident or 0
            timer = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
            timer.daemon = True
            timer.start()
            timers.append(timer)
        else:
            hook(dropped)

    sys.unraisablehook = send_again
    _notes = notes
    try:
        yield
    finally:
        _notes = None
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        signal.set_wakeup_fd(wakeup)
        notes.close()


def was_interrupted() -> bool:
    """Whether Ctrl-C came since the block of :func:`noted_interrupts` began. False outside of it."""
    return _notes is not None and _notes.arrived()


def raise_lost_interrupt() -> None:
    """Raise the signal once more if it came and the program still goes on.

    The handler that is installed decides what is raised: within a step of Dagster Dagster's own exception,
    elsewhere KeyboardInterrupt.
    """
    if was_interrupted():
        signal.raise_signal(signal.SIGINT)
