"""Writes files and folders of the local disk so that a crash leaves them whole or unchanged."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SYNCS = 16


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file and sync it with its name. A crash leaves the old file, none, or the complete new one."""
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # mkstemp's 0600 would hide reports from the other users of a server
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and sync the names of the new ones to the disk."""
    new = []
    while not folder.is_dir():
        new.append(folder)
        folder = folder.parent
    for each in reversed(new):
        each.mkdir(exist_ok=True)
        sync(each.parent)


def sync(path: Path) -> None:
    """Sync a file's bytes, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Sync a folder and everything in it to the disk, the contents first.

    Several threads wait for the disk at once, and a file system commits their files together: 3,000 files
    took 28 s one by one and 0.5 s with 16 threads.
    """
    found = [(Path(parent), names) for parent, _, names in os.walk(folder, topdown=False)]
    files = [parent / name for parent, names in found for name in names]
    with ThreadPoolExecutor(_SYNCS) as threads:
        for some in (files, [parent for parent, _ in found]):
            deque(threads.map(sync, some), maxlen=0)


def move_folder(folder: Path, target: Path) -> bool:
    """Move a finished folder to `target`, and sync it.

    If several processes try at once, one succeeds, because no file system replaces a folder that is not
    empty.

    Returns:
        False, with nothing moved, if `target` exists and is not empty.
    """
    make_folder(target.parent)
    folder.chmod(0o755)  # mkdtemp's 0700 would hide it from the other users of a server
    sync_folder(folder)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    sync(target.parent)
    return True
