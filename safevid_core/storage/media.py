"""The media index: SHA-256 of each clip and picture -> the present paths of its file.

No table holds a path. A stage that lists files records their paths, and code that opens a file asks the index
at that moment. So moving files changes no row and no fingerprint. The index is the SQLite file `media.sqlite`
below the lake's root. Paths below the root are stored relative to it, so a lake can be moved as a whole. A
hash may have several paths. Those that were recorded last come first.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safevid_core.contracts.errors import SafeVidError, VideoError

FILE_NAME = "media.sqlite"
# Number of hashes in one query.
_BATCH = 10_000
# Seconds for which a writer waits for another.
_BUSY_S = 60.0
# Number of indexes that a thread keeps open.
_MOST_OPEN = 4
_SCHEMA = """\
CREATE TABLE IF NOT EXISTS places (
    sha256 TEXT NOT NULL, place BLOB NOT NULL, size INTEGER NOT NULL, recorded INTEGER NOT NULL,
    PRIMARY KEY (sha256, place)
) WITHOUT ROWID"""
_LOOK_UP = """\
SELECT places.sha256, place, size, recorded FROM json_each(?) AS wanted
CROSS JOIN places ON places.sha256 = wanted.value"""
_CONNECTIONS = threading.local()


class MediaIndexError(SafeVidError):
    """A media index cannot be read or written. The message names its file and says what to do."""


class MediaMissing(VideoError):
    """A file is at none of its recorded paths. The next run looks for it again.

    Attributes:
        sha256: Hash of the file.
        last_place: The path that was recorded last. None if no path was ever recorded.
        line: The message without its last part, which says that the next run tries again.
    """

    def __init__(self, sha256: str, last_place: Path | None, *, replaced: bool = False) -> None:
        self.sha256, self.last_place = sha256, last_place
        if last_place is None:
            line = (
                f"media {sha256[:12]}: no path is recorded in this lake; materialise clip_manifest, or the "
                "benchmark that it belongs to"
            )
        else:
            what = "was replaced by another file" if replaced else "is gone"
            line = (
                f"media {sha256[:12]}: its file {str(last_place)!r} {what}; put it back, or set the source "
                "in the settings to its new folder and materialise clip_manifest"
            )
        self.line = line
        super().__init__(line, transient=True)


@dataclass(frozen=True)
class MediaFile(os.PathLike[str]):
    """A file that is known by its hash. Its path is looked up each time it is opened."""

    sha256: str
    index: MediaIndex = field(compare=False, repr=False)

    def __fspath__(self) -> str:
        """The present path of the file.

        Raises:
            MediaMissing: If the file is at none of its recorded paths.
        """
        return str(self.index.path(self.sha256))


class MediaIndex:
    """The recorded paths of the media of one lake.

    Several processes and threads may read and record at once.

    Args:
        root: The lake's root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._prefix = os.path.join(self.root, "")

    @property
    def database(self) -> Path:
        return self.root / FILE_NAME

    def record(self, places: Iterable[tuple[str, Path, int]]) -> int:
        """Record the present paths of files.

        The given paths come first for their hashes, in the given order. Earlier paths follow. Nothing is
        written if the index holds them in this order already.

        Args:
            places: (sha256, path, size in bytes) of each file.

        Returns:
            The number of hashes whose paths changed.
        """
        by_hash: dict[str, dict[bytes, int]] = {}
        for sha256, path, size in places:
            by_hash.setdefault(sha256, {})[self._stored(path)] = size
        if not by_hash:
            return 0
        changed = self._changed(by_hash)
        if changed:
            now = time.time_ns()
            rows = (
                (sha256, place, size, now - position)
                for sha256 in changed
                for position, (place, size) in enumerate(by_hash[sha256].items())
            )
            with self._connection(write=True) as connection:
                connection.executemany("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", rows)
        return len(changed)

    def path(self, sha256: str) -> Path:
        """The first recorded path with a file of the recorded size.

        Raises:
            MediaMissing: If there is none.
        """
        return self._first_there(sha256, self._known([sha256]).get(sha256, {}))

    def paths(self, hashes: Iterable[str]) -> dict[str, Path]:
        """Hash -> path, as :meth:`path` returns it. Hashes whose files are missing are left out."""
        found: dict[str, Path] = {}
        for some in _portions(list(dict.fromkeys(hashes))):
            for sha256, places in self._known(some).items():
                try:
                    found[sha256] = self._first_there(sha256, places)
                except MediaMissing:
                    continue
        return found

    def file(self, sha256: str | None) -> MediaFile | None:
        """The file with this hash, looked up when it is opened. None if the hash is None or empty."""
        return MediaFile(sha256, self) if sha256 else None

    def last_known(self, sha256: str) -> Path | None:
        """The path that was recorded last, whether or not the file exists. None if there is none."""
        return next((self._placed(place) for place in self._known([sha256]).get(sha256, {})), None)

    def places(self, sha256: str) -> list[Path]:
        """Every known place that holds a file of the recorded size, the latest recording first."""
        found = []
        for stored, size in self._known([sha256]).get(sha256, {}).items():
            path = self._placed(stored)
            if path.is_file() and path.stat().st_size == size:
                found.append(path)
        return found

    def forget(self, hashes: Iterable[str]) -> None:
        """Remove the places of some media from the index. Files are not touched."""
        wanted = [(sha256,) for sha256 in dict.fromkeys(hashes)]
        if wanted and self.database.is_file():
            with self._connection(write=True) as connection:
                connection.executemany("DELETE FROM places WHERE sha256 = ?", wanted)

    def for_export(self, hashes: Iterable[str]) -> dict[str, str]:
        """Hash -> path for an export: relative to the root if it is below the root, otherwise absolute.

        A missing file has the path that was recorded last. A hash without a recorded path is left out.
        """
        wanted = list(dict.fromkeys(hashes))
        found = self.paths(wanted)
        last = ((sha256, self.last_known(sha256)) for sha256 in wanted if sha256 not in found)
        found |= {sha256: path for sha256, path in last if path is not None}
        return {sha256: os.fsdecode(self._stored(path)) for sha256, path in found.items()}

    def _first_there(self, sha256: str, places: dict[bytes, int]) -> Path:
        last: Path | None = None
        replaced = False
        for stored, size in places.items():
            path = os.path.join(self.root, os.fsdecode(stored))
            try:
                there: int | None = os.stat(path).st_size
            except OSError:
                there = None
            if there == size:
                return Path(path)
            if last is None:
                last, replaced = Path(path), there is not None
        raise MediaMissing(sha256, last, replaced=replaced)

    def _changed(self, by_hash: dict[str, dict[bytes, int]]) -> list[str]:
        """The hashes whose first recorded paths are not the given ones."""
        changed: list[str] = []
        for some in _portions(list(by_hash)):
            known = self._known(some)
            for sha256 in some:
                given = list(by_hash[sha256].items())
                if list(known.get(sha256, {}).items())[: len(given)] != given:
                    changed.append(sha256)
        return changed

    def _known(self, hashes: Collection[str]) -> dict[str, dict[bytes, int]]:
        """Hash -> recorded paths with their sizes, latest first. Hashes without a path are left out."""
        if not self.database.is_file():
            return {}
        found: dict[str, list[tuple[int, bytes, int]]] = {}
        with self._connection() as connection:
            for sha256, place, size, recorded in connection.execute(_LOOK_UP, (json.dumps(list(hashes)),)):
                found.setdefault(sha256, []).append((-recorded, place, size))
        return {
            sha256: {place: size for _, place, size in (sorted(places) if len(places) > 1 else places)}
            for sha256, places in found.items()
        }

    def _stored(self, path: Path) -> bytes:
        """A path as it is stored: relative to the root if it is below the root, otherwise absolute."""
        place = os.fspath(path)
        if not place.startswith("/"):
            place = os.path.abspath(place)
        if ".." in place:
            place = os.path.realpath(place)
        return os.fsencode(place.removeprefix(self._prefix))

    def _placed(self, stored: bytes) -> Path:
        return self.root / os.fsdecode(stored)

    @contextmanager
    def _connection(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """This thread's connection. The transaction of a writer is committed at the end of the block."""
        try:
            connection = self._open()
            if not write:
                yield connection
                return
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise MediaIndexError(
                f"media index {self.database} cannot be used ({error}); check disk and permissions, "
                "or delete the file: clip_manifest and the benchmarks record the paths again when they run"
            ) from None

    def _open(self) -> sqlite3.Connection:
        """The connection of this thread and process. A deleted or replaced file is opened again."""
        kept: dict[str, tuple[tuple[int, int, int], sqlite3.Connection]] = _CONNECTIONS.__dict__
        name = str(self.database)
        before = kept.get(name)
        if before is not None and before[0] == _identity(self.database):
            return before[1]
        kept.pop(name, None)
        while len(kept) >= _MOST_OPEN:
            kept.pop(next(iter(kept)))[1].close()
        self.root.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(name, timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_SCHEMA)
        kept[name] = (_identity(self.database), connection)
        return connection


def _identity(path: Path) -> tuple[int, int, int]:
    """Process, device and inode of an open file. Device and inode are 0 if the file does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return os.getpid(), 0, 0
    return os.getpid(), stat.st_dev, stat.st_ino


def _portions(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(hashes), _BATCH):
        yield hashes[start : start + _BATCH]
