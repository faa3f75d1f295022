"""Caches the SHA-256 of files for all stages and processes.

A hash is computed once for each state of a file: its size, times and inode. The cache is an SQLite file in
the lake's folder `cache/`, which may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

_CHUNK = 1 << 20
# A file that changed less than this ago may change again without a change of its times. FAT has steps of 2 s.
_SETTLED_S = 2.0
_MOST_IN_MEMORY = 65_536
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL) "
    "WITHOUT ROWID"
)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        OSError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def state_of(path: str | Path) -> str:
    """Size, times and inode of a file, as one string.

    Raises:
        OSError: If the file does not exist.
    """
    stat = os.stat(path)
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


class FileHashes:
    """Hashes of files by path and state. Threads and processes may share one store.

    Args:
        store: The SQLite file. None keeps the hashes in memory only. If the file cannot be read or written,
            the hashes are computed again and kept in memory.
    """

    def __init__(self, store: Path | None = None) -> None:
        self.store = None if store is None else Path(store).absolute()
        self._memory: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._connection: tuple[int, sqlite3.Connection] | None = None

    @classmethod
    def below(cls, root: Path) -> FileHashes:
        """The cache of the lake with this root."""
        return cls(root / "cache" / "file_hashes.sqlite")

    def sha256(self, path: str | Path) -> str:
        """Hex SHA-256 of a file's bytes.

        Raises:
            OSError: If the file cannot be read.
        """
        # Bytes of the path that are not valid UTF-8 are escaped.
        name = os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")
        state = state_of(path)
        with self._lock:
            known = self._memory.get(name)
            if known is None or known[0] != state:
                known = self._stored(name)
        if known is not None and known[0] == state:
            self._remember(name, known)
            return known[1]
        sha256 = file_sha256(Path(path))
        if state_of(path) == state and _is_settled(path):
            self._remember(name, (state, sha256))
            with self._lock:
                self._store(name, state, sha256)
        return sha256

    def _remember(self, name: str, known: tuple[str, str]) -> None:
        with self._lock:
            if len(self._memory) >= _MOST_IN_MEMORY:
                self._memory.clear()
            self._memory[name] = known

    def _stored(self, name: str) -> tuple[str, str] | None:
        try:
            connection = self._connected()
            if connection is None:
                return None
            found = connection.execute("SELECT state, sha256 FROM hashes WHERE path = ?", (name,))
            return found.fetchone()
        except (sqlite3.Error, OSError, UnicodeError):
            self._give_up()
            return None

    def _store(self, name: str, state: str, sha256: str) -> None:
        try:
            connection = self._connected()
            if connection is not None:
                connection.execute("REPLACE INTO hashes VALUES (?, ?, ?)", (name, state, sha256))
        except (sqlite3.Error, OSError, UnicodeError):
            self._give_up()

    def _connected(self) -> sqlite3.Connection | None:
        """The connection of this process. A forked process opens its own. None without a store."""
        if self.store is None:
            return None
        if self._connection is None or self._connection[0] != os.getpid():
            self.store.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.store, timeout=10, isolation_level=None, check_same_thread=False
            )
            # A lost entry is only computed again, so no write waits for the disk.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_SCHEMA)
            self._connection = (os.getpid(), connection)
        return self._connection[1]

    def _give_up(self) -> None:
        """Use memory only from now on, and remove the store if it is not a database."""
        store, self.store, self._connection = self.store, None, None
        with suppress(OSError):
            if store is not None and store.is_file():
                with open(store, "rb") as file:
                    damaged = file.read(16) != b"SQLite format 3\0"
                if damaged:
                    store.unlink()


def _is_settled(path: str | Path) -> bool:
    stat = os.stat(path)
    return time.time() - max(stat.st_mtime, stat.st_ctime) >= _SETTLED_S
