"""Reads and writes files below the root of a lake, on any file system of fsspec.

Names are relative to the root, with `/` between their parts. Renames and syncs exist on the local disk only
and are in :mod:`safevid_core.storage.files`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from safevid_core.storage.files import make_folder, sync, write_atomically


class Place:
    """A folder on a file system.

    Args:
        root: A path of the local disk, or a URL that fsspec knows, such as `memory://lake`.

    Attributes:
        local: The folder as an absolute path. None if it is not on the local disk.
        url: The folder as an absolute path or a URL, for messages.
    """

    def __init__(self, root: str | Path) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        text = str(root)
        if "://" in text and not text.startswith("file://"):
            self._files, self._root = fsspec.core.url_to_fs(text)
            self.local, self.url = None, text.rstrip("/")
        else:
            self._files = LocalFileSystem()
            self.local = Path(text.removeprefix("file://")).absolute()
            self._root = self.url = str(self.local)

    def path(self, name: str) -> str:
        """The path of a name in the file system."""
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def where(self, name: str) -> str:
        """The path or URL of a name, for messages."""
        return f"{self.url}/{name}"

    def names(self, folder: str, *, hidden: bool = False) -> list[str]:
        """The names in a folder, sorted. Empty if the folder does not exist.

        Args:
            hidden: Whether to include names that begin with a dot. Unfinished files have such names.
        """
        try:
            found = self._files.ls(self.path(folder), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(each).rstrip("/").rpartition("/")[2] for each in found}
        return sorted(name for name in names if hidden or not name.startswith("."))

    def exists(self, name: str) -> bool:
        return bool(self._files.exists(self.path(name)))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading.

        Raises:
            FileNotFoundError: If the file does not exist.
        """
        return cast(IO[bytes], self._files.open(self.path(name), "rb"))

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: If the file does not exist.
        """
        return bytes(self._files.cat_file(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a file. Readers see the old file, or none, or the complete new one."""
        if self.local is not None:
            write_atomically(self.local / name, data)
        else:
            self._make_folder_of(name)
            self._files.pipe_file(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file if it does not exist, and return whether it was written. For remote file systems."""
        self._make_folder_of(name)
        try:
            self._files.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Give a local path to write a file to. At the end of the block the file is stored and synced.

        If the block raises, nothing is stored. The caller syncs the folder after all its files are written.
        """
        if self.local is not None:
            path = self.local / name
            make_folder(path.parent)
            try:
                yield path
                sync(path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return
        with tempfile.TemporaryDirectory(prefix="safevid-") as folder:
            path = Path(folder) / "file"
            yield path
            self._make_folder_of(name)
            self._files.put_file(str(path), self.path(name))

    def sync(self, folder: str) -> None:
        """Sync the names in a folder to the disk."""
        if self.local is not None:
            sync(self.local / folder)

    def remove(self, name: str) -> None:
        """Remove a file. An error is ignored, because the next writer tries again."""
        try:
            self._files.rm_file(self.path(name))
        except OSError:
            return

    def modified(self, name: str) -> float | None:
        """Time of the last change of a file, in seconds since 1970. None if the file does not exist."""
        try:
            return float(self._files.modified(self.path(name)).timestamp())
        except FileNotFoundError:
            return None

    def upload(self, folder: Path, name: str) -> None:
        """Store a local folder with all its files. For remote file systems."""
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            below = f"{name}/{path.relative_to(folder).as_posix()}"
            self._make_folder_of(below)
            self._files.put_file(str(path), self.path(below))

    def download(self, name: str, folder: Path) -> None:
        """Copy a folder with all its files to a local folder. For remote file systems."""
        root = self.path(name)
        for found in self._files.find(root):
            target = folder / str(found)[len(root) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(found, str(target))

    def scan(self, names: Sequence[str]) -> pl.LazyFrame:
        """A lazy frame over the rows of Parquet files, with the columns of the first file.

        Columns that only other files have are left out. Columns that another file lacks are null for its
        rows.
        """
        if self.local is not None:
            files = [self.local / name for name in names]
            return pl.scan_parquet(files, glob=False, extra_columns="ignore", missing_columns="insert")
        import pyarrow.dataset

        there: Any = [self.path(name) for name in names]
        return pl.scan_pyarrow_dataset(pyarrow.dataset.dataset(there, filesystem=self._files))

    def _make_folder_of(self, name: str) -> None:
        self._files.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
