"""Locks partitions, so that two processes do not make the same one at once.

A lock is an exclusive `flock` on a file that names its holder. The kernel releases the lock when the process
ends, even if it is killed. All processes of the machine see the lock, and other machines too if the file
system shares locks.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from safevid_core.storage.files import make_folder
from safevid_core.storage.manifest import LakeError, PartitionHeld

_open: set[int] = set()


def _close_in_child() -> None:
    """Close the lock files that a forked process inherits. It would hold the locks after the parent's end."""
    for handle in _open:
        os.close(handle)
    _open.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def hold_file(path: Path, what: str, who: str) -> Iterator[None]:
    """Hold the lock of a file while the block lasts.

    Args:
        path: The lock file. It is created and not removed.
        what: The name of the locked partition in messages. Example: `descriptions[kitchen]`.
        who: The name of the holder in messages to other processes.

    Raises:
        PartitionHeld: If another process, or another block of this one, holds the lock.
        LakeError: If the file system has no locks.
    """
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _open.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 4096, 0).decode(errors="replace").strip() or "another process"
            raise PartitionHeld(
                f"{what} is being made by {holder}; wait until that has ended, or stop it"
            ) from None
        except OSError as error:
            raise LakeError(
                f"{path} cannot be locked ({error.strerror}); put the root on a file system with locks"
            ) from None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"{who} (process {os.getpid()} on {socket.gethostname()}) since {now}"
        os.ftruncate(handle, 0)
        os.pwrite(handle, " ".join(text.split()).encode(), 0)
        yield
        if handle in _open:
            os.ftruncate(handle, 0)
    finally:
        if handle in _open:  # a process that was forked inside the block has closed its copy
            _open.discard(handle)
            os.close(handle)
