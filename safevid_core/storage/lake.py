"""The lake: all tables, partition by partition. A partition is committed whole.

The root is a folder of the local disk or of any file system of fsspec. Below it are::

    layout.json                                      version of this layout
    tables/<asset>/<partition>/rows-<generation>.parquet, outcomes-<generation>.parquet, manifest.json
    blobs/<kind>/<content hash>/...                  checkpoints, releases, evidence
    reports/                                         pages for people
    cache/, locks/                                   on the local disk only

A manifest names the data files of its partition. Readers read the manifest first and then these files.
:mod:`safevid_core.storage.commits` writes partitions.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import OUTCOME_SCHEMA, StageRows
from safevid_core.contracts.tables import Table
from safevid_core.storage.checks import audit_partition, check_conservation
from safevid_core.storage.commits import (
    MANIFEST,
    manifest_bytes,
    remove_old_files,
    with_earlier,
    write_generation,
    write_manifest,
)
from safevid_core.storage.file_hashes import FileHashes
from safevid_core.storage.files import make_folder, move_folder, write_atomically
from safevid_core.storage.fingerprint import WHOLE, stage_fingerprint, to_be_asked_again
from safevid_core.storage.frames import DEFAULT_GB, FrameCache
from safevid_core.storage.hashing import column_hashes, directory_hash, frame_hash, settings_hash
from safevid_core.storage.holds import hold_file
from safevid_core.storage.layout import mark_layout
from safevid_core.storage.manifest import LakeError, Manifest, NothingMade, PartitionHeld
from safevid_core.storage.media import MediaIndex
from safevid_core.storage.place import Place

__all__ = [
    "WHOLE", "Lake", "LakeError", "Manifest", "NothingMade", "PartitionHeld",
    "audit_partition", "check_conservation", "column_hashes", "directory_hash", "frame_hash",
    "settings_hash", "stage_fingerprint", "to_be_asked_again", "write_atomically",
]  # fmt: skip

KEEP_GENERATIONS_S = 3600.0  # longer than the time between a reader's reading the manifest and the files
_MARK, _FAILED = "mark", "failed.json"
_SCRATCH_S = 86_400.0  # a scratch directory of this age was left by a killed run


class Lake:
    """Tables and content-addressed directories below one root.

    Args:
        root: The folder for everything that SafeVid writes, as a path or as a URL that fsspec knows.
        profile: Written to every row as column `profile`.
        frame_cache_gb: Limit of the cache of decoded frames on the disk, in gigabytes. 0 stores none.
        keep_generations_s: Seconds for which data files stay after another commit has replaced them. Defaults
            to an hour.

    Attributes:
        url: The root as an absolute path or a URL, for messages.
        found_layout: The layout of the lake when it was opened. If it is below `LAYOUT`, the tables are made
            again.

    Raises:
        LakeError: If the root cannot be created or written to, or is of a later layout.
    """

    def __init__(
        self,
        root: str | Path,
        profile: str,
        *,
        frame_cache_gb: float = DEFAULT_GB,
        keep_generations_s: float = KEEP_GENERATIONS_S,
    ) -> None:
        self.frame_cache_gb = frame_cache_gb
        self.keep_generations_s = keep_generations_s
        self.profile = profile
        self._place = Place(root)
        self.url = self._place.url
        try:
            if self._place.local is not None:
                self._place.local.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self._place.local):
                    pass
            self.found_layout = mark_layout(self._place)
        except OSError as error:
            raise LakeError(
                f"output folder {self.url} cannot be written ({error.strerror or error}); "
                "choose another with SAFEVID_ROOT or change its permissions"
            ) from None

    @property
    def root(self) -> Path:
        """The root of a lake on the local disk.

        Raises:
            LakeError: If the lake is not on the local disk.
        """
        if self._place.local is None:
            raise LakeError(f"{self.url} is not on the local disk; ask the lake for its files by name")
        return self._place.local

    # Tables

    def assets(self) -> list[str]:
        """Names of all tables in the lake, sorted."""
        return self._place.names("tables")

    def partitions(self, asset: str) -> list[str]:
        """Names of the committed partitions of an asset, sorted."""
        names = self._place.names(f"tables/{asset}")
        return sorted(
            unquote(name) for name in names if self._place.exists(f"tables/{asset}/{name}/{MANIFEST}")
        )

    def manifest(self, asset: str, partition: str = WHOLE) -> Manifest | None:
        """The manifest of a partition. None if the partition is not committed.

        Raises:
            LakeError: If the file is not a manifest.
        """
        name = f"{_folder(asset, partition)}/{MANIFEST}"
        try:
            return Manifest(**json.loads(self._place.read(name)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            where = self._place.where(name)
            raise LakeError(f"{where} is not a manifest; delete it and materialise {asset} again") from None

    def scan(self, table: Table, partitions: Sequence[str] | None = None) -> pl.LazyFrame:
        """A lazy frame over the rows of some partitions, or of all committed ones. Empty if there are none.

        A later commit does not change the rows of this scan, because their files stay for
        `keep_generations_s` seconds after that commit.
        """
        files = self._files(table.name, "rows", partitions)
        if not files:
            return pl.LazyFrame(schema={**table.schema, "profile": pl.String})
        return self._place.scan(files)

    def read(self, table: Table, partition: str | None = None) -> pl.DataFrame:
        """The rows of one partition, or of all partitions, in the order of partition and key."""
        return self.scan(table, None if partition is None else [partition]).collect()

    def outcomes(self, asset: str, partition: str | None = None) -> pl.DataFrame:
        """One row for each input id, with the columns `input_id, outcome, reason`."""
        files = self._files(asset, "outcomes", None if partition is None else [partition])
        return self._place.scan(files).collect() if files else pl.DataFrame(schema=OUTCOME_SCHEMA)

    def open_data(self, manifest: Manifest, kind: str) -> IO[bytes]:
        """Open the Parquet file of a partition's `rows` or `outcomes` for reading."""
        return self._place.open(f"{_folder(manifest.asset, manifest.partition)}/{manifest.files[kind]}")

    def _files(self, asset: str, kind: str, partitions: Sequence[str] | None) -> list[str]:
        found = []
        for partition in self.partitions(asset) if partitions is None else partitions:
            manifest = self.manifest(asset, partition)
            if manifest is not None:
                found.append(f"{_folder(asset, partition)}/{manifest.files[kind]}")
        return found

    def read_mark(self, asset: str, partition: str) -> str:
        """The mark that :meth:`write_mark` stored last. Empty if there is none."""
        try:
            return self._place.read(f"{_folder(asset, partition)}/{_MARK}").decode()
        except FileNotFoundError:
            return ""

    def write_mark(self, asset: str, partition: str, mark: str) -> None:
        """Store a mark in a committed partition's folder. If it is lost, the partition is planned again."""
        if self.read_mark(asset, partition) != mark:
            self._place.write(f"{_folder(asset, partition)}/{_MARK}", mark.encode())

    def read_failure(self, asset: str, partition: str) -> str:
        """Why the last attempt to make a partition failed, in one line. Empty if it did not fail."""
        try:
            return str(json.loads(self._place.read(f"{_folder(asset, partition)}/{_FAILED}"))["error"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def write_failure(self, asset: str, partition: str, error: str) -> None:
        """Store why an attempt to make a partition failed. An empty text removes the stored one."""
        name = f"{_folder(asset, partition)}/{_FAILED}"
        if error:
            self._place.write(name, json.dumps({"error": error, "at": time.time()}).encode())
        elif self._place.exists(name):
            self._place.remove(name)

    @cached_property
    def file_hashes(self) -> FileHashes:
        """The cache of file hashes below the root."""
        return FileHashes.below(self.root)

    @cached_property
    def frames(self) -> FrameCache:
        """The cache of decoded frames below the root."""
        return FrameCache.below(self.root, self.frame_cache_gb, self.file_hashes)

    @cached_property
    def media(self) -> MediaIndex:
        """The index of the present paths of clips and pictures."""
        return MediaIndex(self.local_path())

    def place_of(self, asset: str, partition: str = WHOLE) -> str:
        """The folder of a partition as a path or URL, for messages."""
        return self._place.where(_folder(asset, partition))

    def folder(self, asset: str, partition: str = WHOLE) -> Path:
        """The folder of a partition of a lake on the local disk.

        Raises:
            LakeError: If the lake is not on the local disk.
        """
        return self.root / _folder(asset, partition)

    def commit(
        self,
        table: Table,
        partition: str,
        stage: StageRows,
        fingerprint: str,
        inputs: Mapping[str, str],
        seconds: float = 0.0,
    ) -> Manifest:
        """Write a new generation of a partition, its manifest last.

        A killed process leaves the old partition or the new one. The files of the old one stay for
        `keep_generations_s` seconds. A later commit of the partition removes them.
        """
        folder = _folder(table.name, partition)
        manifest = write_generation(
            self._place, folder, table, partition, stage,
            profile=self.profile, fingerprint=fingerprint, inputs=inputs, seconds=seconds,
        )  # fmt: skip
        before = self.manifest(table.name, partition)
        manifest = with_earlier(manifest, before, self.keep_generations_s)
        write_manifest(self._place, folder, manifest)
        remove_old_files(self._place, folder, manifest, self.keep_generations_s)
        return manifest

    def commit_once(
        self, table: Table, partition: str, stage: StageRows, inputs: Mapping[str, str]
    ) -> Manifest | None:
        """Write a partition that is never written again. Return None if it exists already.

        If two processes try at once, one succeeds. On the local disk the finished folder is moved to its
        place if the place is free. On other file systems the manifest is created on the condition that none
        exists.
        """
        folder = _folder(table.name, partition)
        if self._place.local is None:
            if self._place.exists(f"{folder}/{MANIFEST}"):
                return None
            manifest = self._write_once(self._place, folder, table, partition, stage, inputs)
            return manifest if self._place.create(f"{folder}/{MANIFEST}", manifest_bytes(manifest)) else None
        with self.new_directory(table.name) as scratch:
            beside = Place(scratch.parent)
            manifest = self._write_once(beside, scratch.name, table, partition, stage, inputs)
            write_manifest(beside, scratch.name, manifest)
            return manifest if move_folder(scratch, self.root / folder) else None

    def _write_once(
        self,
        place: Place,
        folder: str,
        table: Table,
        partition: str,
        stage: StageRows,
        inputs: Mapping[str, str],
    ) -> Manifest:
        return write_generation(
            place, folder, table, partition, stage,
            profile=self.profile, fingerprint="", inputs=inputs, seconds=0.0,
        )  # fmt: skip

    def hold(self, asset: str, partition: str, who: str) -> AbstractContextManager[None]:
        """Lock a partition while the block lasts, so that no other process of this machine makes it.

        Args:
            who: The name of the holder in messages to other processes. Example: `run 4f1c2a`.

        Raises:
            PartitionHeld: If another process, or another block of this one, holds it. The message names the
                holder.
        """
        lock = self.local_path("locks", asset, quote(partition, safe="@") + ".lock")
        return hold_file(lock, f"{asset}[{partition}]", who)

    # Directories, each stored under the hash of its content

    @contextmanager
    def new_directory(self, kind: str) -> Iterator[Path]:
        """A scratch directory on the local disk, removed at the end unless :meth:`keep` has moved it."""
        parent = self.local_path("blobs", kind)
        make_folder(parent)
        for left in parent.glob(".new-*"):
            with suppress(FileNotFoundError):  # another process has kept or removed it
                if left.stat().st_mtime < time.time() - _SCRATCH_S:
                    shutil.rmtree(left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def keep(self, kind: str, scratch: Path) -> str:
        """Move a finished directory to its content address and return that: `blobs/release/<hash>`."""
        digest = directory_hash(scratch)
        address = f"blobs/{kind}/{digest}"
        if self._place.local is not None:
            move_folder(scratch, self._place.local / address)
        elif not self._place.exists(_complete(address)):
            self._place.upload(scratch, address)
            self._place.write(_complete(address), b"")
        return address

    def directories(self, kind: str) -> list[str]:
        """Addresses of the stored directories of a kind, sorted."""
        names = self._place.names(f"blobs/{kind}")
        if self._place.local is None:
            suffix = _complete("")
            names = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
        return [f"blobs/{kind}/{name}" for name in names]

    def local_directory(self, address: str) -> Path:
        """A local folder with the content of a stored directory, for reading.

        If the lake is on the local disk, this is the directory itself, whether or not it exists. Otherwise it
        is a copy below :meth:`local_path`, made at the first call.

        Raises:
            LakeError: If the lake is not on the local disk and has no such directory.
        """
        local = self.local_path(*address.split("/"))
        if self._place.local is not None or local.is_dir():
            return local
        if not self._place.exists(_complete(address)):
            raise LakeError(f"{self._place.where(address)} does not exist; restore it from a backup")
        make_folder(local.parent)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=local.parent) as scratch:
            copy = Path(scratch) / "copy"
            self._place.download(address, copy)
            move_folder(copy, local)
        return local

    def address_of(self, directory: Path) -> str:
        """The address of a folder that :meth:`local_directory` returned."""
        return directory.relative_to(self.local_path()).as_posix()

    # Reports, and files that need the local disk

    def write_report(self, name: str, data: bytes) -> str:
        """Write `reports/<name>`, and return its path or URL."""
        self._place.write(f"reports/{name}", data)
        return self.report_place(name)

    def has_report(self, name: str) -> bool:
        return self._place.exists(f"reports/{name}")

    def report_place(self, name: str) -> str:
        """The absolute path or URL of a report, whether or not it exists."""
        return self._place.where(f"reports/{name}")

    def local_path(self, *parts: str) -> Path:
        """A path on the local disk, for files that a library or a person needs there.

        Examples are the state of an unfinished training and the sign-off sheet. If the lake is on the local
        disk, the path is below the root. Otherwise it is below `$XDG_CACHE_HOME/safevid/<hash of the URL>`
        (default `~/.cache`), which other machines do not see.
        """
        if self._place.local is not None:
            return self._place.local.joinpath(*parts)
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return (caches / "safevid" / content_id(self.url)).joinpath(*parts)

    def cache_folder(self, *parts: str) -> Path:
        """The path of a folder on the local disk for files that can be made again. The caller creates it."""
        return self.local_path("cache", *parts)


def _folder(asset: str, partition: str) -> str:
    return f"tables/{asset}/{quote(partition, safe='@')}"


def _complete(address: str) -> str:
    """The name of the marker file that is written after all files of a directory, on remote file systems."""
    return f"{address}.complete"
