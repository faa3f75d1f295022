"""Lets Ctrl-C interrupt a wait in a process that imports polars."""

from __future__ import annotations

import signal


def let_waits_be_interrupted() -> None:
    """Take the flag SA_RESTART from the handler of SIGINT. To be called after polars was imported.

    polars (2.1) installs a handler with this flag when it is imported. The kernel then resumes a wait for a
    lock, a future or a child process, and Python raises KeyboardInterrupt only when the wait is over. The
    handlers of Python have no such flag. The handler itself stays.
    """
    signal.siginterrupt(signal.SIGINT, True)
