"""How the files of a benchmark that others made are read.

Files come from strangers. Nothing in them is run, no archive is unpacked, no path may leave the benchmark's
folder. A file or column that is missing stops the reading early; a row that cannot be used is refused with
its reason, and the others go on.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.settings import BenchmarkFiles
from safevid_core.video.decoding import quoted

# No table of a published benchmark comes near this; a file that does is not one of them.
_MOST_BYTES = 64 << 20
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# Offset within a file -> how an archive's bytes begin there.
_MAGIC = (
    (0, b"PK\x03\x04"),
    (0, b"\x1f\x8b"),
    (0, b"BZh"),
    (0, b"\xfd7zXZ"),
    (0, b"7z\xbc\xaf"),
    (257, b"ustar"),
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_SHOWN = 80  # characters of a foreign text in a message


class FilesError(BenchmarkError):
    """Files that are not in the benchmark's layout; the message says what is missing."""


class RowError(BenchmarkError):
    """A row that cannot be used; the message is its reason, one line."""


@dataclass(frozen=True)
class Record:
    """One row of a table or one object of a JSON list; `number` counts from 1, `problem` says it is none."""

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    def text(self, key: str) -> str:
        """A text, as it stands there.

        Raises:
            RowError: If it is missing, blank, no text, or no Unicode.
        """
        if self.problem:
            raise RowError(self.problem)
        value = self.values.get(key)
        if not isinstance(value, str):
            raise RowError(
                f"`{key}` is missing" if value is None else f"`{key}` is {type(value).__name__}, not text"
            )
        if not value.strip():
            raise RowError(f"`{key}` is empty")
        if not _is_unicode(value):
            raise RowError(f"`{key}` holds characters that are not valid Unicode")
        return value

    def name(self, key: str) -> str:
        """A short text or a whole number, as one line. Raises RowError as `text`."""
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return one_line(self.text(key))

    def optional(self, key: str) -> str | None:
        """As `name`, or None where there is none that can be used."""
        try:
            return self.name(key)
        except RowError:
            return None

    def label(self, file: str, key: str) -> str:
        """The row's name: its file and id, or its place where it has no id."""
        own = None if self.problem else self.optional(key)
        return f"{file}:row {self.number}" if own is None else f"{file}:{own}"


def flag(files: BenchmarkFiles, name: str) -> bool:
    """A switch among the benchmark's options; off where it is not given."""
    value = files.options.get(name, False)
    if not isinstance(value, bool):
        raise FilesError(f"option {name!r} must be true or false; found {value!r}")
    return value


def folder_of(files: BenchmarkFiles) -> Path:
    """The folder that the settings name.

    Raises:
        FilesError: If it is missing, a file, or an archive.
    """
    _refuse_missing(files.path)
    if not files.path.is_dir():
        raise FilesError(f"{quoted(files.path)} is a file; give the folder that it lies in")
    return files.path


def table_file(files: BenchmarkFiles, *places: str) -> Path:
    """The file that the settings name, or the first of these places below the folder they name."""
    _refuse_missing(files.path)
    if files.path.is_file():
        return files.path
    return file_below(files.path, *places)


def file_below(folder: Path, *places: str) -> Path:
    """The first of these files that is there.

    Raises:
        FilesError: If none is; archives that may hold it are named.
    """
    for place in places:
        if (folder / place).is_file():
            return folder / place
    raise FilesError(f"{quoted(folder)} holds no {' and no '.join(places)}{archives_in(folder)}")


def archives_in(folder: Path) -> str:
    """Words on the archives of a folder, empty where it has none."""
    found = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(_ARCHIVES))
    return f"; it holds {', '.join(found[:3])}, which must be unpacked first" if found else ""


def media_below(folder: Path, place: str) -> Path:
    """A picture's or a video's path, as a row gives it.

    Raises:
        RowError: If it leaves the folder.
    """
    parts = PurePosixPath(place)
    if parts.is_absolute() or ".." in parts.parts or "\0" in place:
        raise RowError(f"its file {shown(place)} lies outside the benchmark's folder; fix the path")
    return folder.joinpath(*parts.parts)


def read_table(path: Path, required: Sequence[str], delimiter: str = ",") -> list[Record]:
    """The rows of a CSV or TSV file with a header, every value as it stands there.

    Raises:
        FilesError: If the file cannot be read, its quotes do not match, or a required column is missing.
    """
    # A quote that is never closed would swallow the rows after it; strict makes it an error.
    rows = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    lines: list[list[str]] = []
    try:
        lines += (line for line in rows if line)
    except csv.Error as error:
        raise FilesError(f"{quoted(path)}, line {rows.line_num}: {error}; fetch the file again") from None
    if not lines:
        raise FilesError(f"{quoted(path)} is empty; fetch it again")
    header = [one_line(name) for name in lines[0]]
    _refuse_missing_columns(path, required, header)
    repeated = sorted({name for name in header if header.count(name) > 1} & set(required))
    if repeated:
        raise FilesError(f"{quoted(path)} has column {repeated[0]!r} twice; fix its header")
    return [_record(number, header, line) for number, line in enumerate(lines[1:], start=1)]


def read_records(path: Path, required: Sequence[str]) -> list[Record]:
    """The objects of a JSON list.

    Raises:
        FilesError: If the file cannot be read, is no list of objects, or none of them has a required key.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise FilesError(f"{quoted(path)} must hold a JSON list of rows; found {_kind(rows)}")
    return records_of(path, rows, required)


def records_below(
    files: BenchmarkFiles, names: Sequence[str], required: Sequence[str]
) -> Iterator[tuple[Path, str, Record]]:
    """The folder of a benchmark, the name of a table and a row of it, for each row of JSON lists.

    All tables are found before the first row, so that a missing one stops the reading early.

    Args:
        names: Of the tables, directly below the benchmark's folder.
        required: Keys that every object has.

    Raises:
        FilesError: If the folder or a table is missing or cannot be read.
    """
    folder = folder_of(files)
    for table in [file_below(folder, name) for name in names]:
        for record in read_records(table, required):
            yield folder, table.name, record


def records_of(path: Path, rows: Sequence[Any], required: Sequence[str]) -> list[Record]:
    """As :func:`read_records`, for objects that were read already."""
    _refuse_missing_columns(path, required, {key for row in rows if isinstance(row, dict) for key in row})
    return [
        Record(number, row) if isinstance(row, dict) else Record(number, problem=f"it is {_kind(row)}")
        for number, row in enumerate(rows, start=1)
    ]


@dataclass(frozen=True)
class RepeatedKeys:
    """A JSON object in which a key stands twice; a dict would keep the last without a word."""

    pairs: list[tuple[str, Any]]


def read_json(path: Path) -> Any:
    """A JSON file; an object with a repeated key comes as `RepeatedKeys`.

    Raises:
        FilesError: If it cannot be read or is no JSON.
    """

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RepeatedKeys:
        found = dict(pairs)
        return found if len(found) == len(pairs) else RepeatedKeys(pairs)

    try:
        return json.loads(read_text(path), object_pairs_hook=as_object)
    except RecursionError:
        raise FilesError(f"{quoted(path)} is nested too deeply; fetch it again") from None
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise FilesError(f"{quoted(path)} is no JSON ({reason}); fetch it again") from None


def read_text(path: Path) -> str:
    """The text of a file, without its byte order mark.

    Raises:
        FilesError: If it cannot be read, is an archive or a Git LFS pointer, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise FilesError(f"{quoted(path)} has {size:,} bytes; a table of this benchmark has far fewer")
        data = path.read_bytes()
    except OSError as error:
        raise FilesError(f"{quoted(path)} cannot be read: {error.strerror}") from None
    if _has_magic(data):
        raise FilesError(f"{quoted(path)} is an archive, and none is unpacked here; unpack it first")
    if data.startswith(_LFS_POINTER):
        raise FilesError(f"{quoted(path)} is a Git LFS pointer; fetch the file itself with `git lfs pull`")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FilesError(f"{quoted(path)} is no UTF-8 text (byte {error.start}); fetch it again") from None


def one_line(text: str) -> str:
    return " ".join(text.split())


def shown(text: str) -> str:
    """A foreign text fit for a message: quoted, escaped and short."""
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")


def _record(number: int, header: Sequence[str], line: Sequence[str]) -> Record:
    if len(line) != len(header):
        return Record(number, problem=f"it has {len(line)} values; the header has {len(header)}")
    return Record(number, dict(zip(header, line, strict=True)))


def _refuse_missing(path: Path) -> None:
    if not os.path.exists(path):
        raise FilesError(f"{quoted(path)} does not exist")
    if path.is_file() and (path.name.lower().endswith(_ARCHIVES) or _is_archive(path)):
        raise FilesError(
            f"{quoted(path)} is an archive, and none is unpacked here; unpack it and give the folder"
        )


def _refuse_missing_columns(path: Path, required: Sequence[str], found: Sequence[str] | set[str]) -> None:
    missing = [name for name in required if name not in found]
    if missing:
        has = ", ".join(shown(name) for name in sorted(found)[:12]) or "none"
        raise FilesError(f"{quoted(path)} has no {', '.join(map(repr, missing))}; its columns: {has}")


def _is_archive(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return _has_magic(file.read(512))
    except OSError as error:
        raise FilesError(f"{quoted(path)} cannot be read: {error.strerror}") from None


def _has_magic(data: bytes) -> bool:
    return any(data[offset : offset + len(magic)] == magic for offset, magic in _MAGIC)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    if isinstance(value, RepeatedKeys):
        return "an object in which a key stands twice"
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "a truth value"}
    return names.get(type(value), "a number")
