"""Writes and reads review sheets: CSV files that people fill in with a spreadsheet program.

A spreadsheet program runs a cell that looks like a formula, and the texts of a sheet come from models. So
such a cell is written with an apostrophe in front, and the apostrophe is removed when the sheet is read.
Example: `=1+1` is written as `'=1+1`. A row that cannot be used gives one line in `problems`, and the other
rows are read.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from safevid_core.review.errors import ReviewError

# Characters with which a formula can start, full-width ones included.
_FORMULA = r"[=+\-@\t\r\n＝＋－＠]"
_MOST_BYTES = 64_000_000
_MOST_CHARACTERS = 2_000  # of a name, a reason or a note


@dataclass
class Cells:
    """The rows of a sheet.

    Attributes:
        rows: (row number, column -> text) of the readable rows, in order. The header is row 1.
        problems: One line for each row that cannot be used.
    """

    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sheet_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A sheet as CSV in UTF-8 with a byte order mark. Some programs need the mark to read UTF-8.

    Args:
        rows: Column -> value. A column that a row lacks is left empty.
    """
    return sheet_text(columns, rows).encode("utf-8-sig")


def sheet_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A sheet as CSV text. The arguments are those of :func:`sheet_bytes`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(str(row.get(name) or "")) for name in columns])
    return buffer.getvalue()


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet program runs. :func:`unguarded` is the inverse."""
    return f"'{text}" if re.match(f"'*{_FORMULA}", text) else text


def unguarded(cell: str) -> str:
    return cell[1:] if re.match(f"''*{_FORMULA}", cell) else cell


def read_cells(path: Path, key: str, needed: Sequence[str], optional: Sequence[str] = ()) -> Cells:
    """The filled rows of a sheet.

    Args:
        key: Column that identifies a row. If several rows have the same key, each of them is a problem.
        needed: The other columns that are read.
        optional: Columns that are read if the sheet has them, and are empty texts otherwise.

    Raises:
        ReviewError: If the file cannot be read, is not CSV, or lacks a column.
    """
    header, *rows = _read_csv(path)
    columns = [key, *needed]
    _check_header(path, header, columns)
    place = {name: header.index(name) for name in (*columns, *(each for each in optional if each in header))}
    numbered = [(number, cells) for number, cells in enumerate(rows, start=2) if any(map(str.strip, cells))]
    keys = Counter(cells[place[key]].strip() for _, cells in numbered if len(cells) == len(header))
    found = Cells()
    for number, cells in numbered:
        if len(cells) != len(header):
            found.problems.append(f"row {number}: {len(cells)} cells, where the header has {len(header)}")
            continue
        texts = dict.fromkeys(optional, "") | {
            name: unguarded(cells[at]).strip() for name, at in place.items()
        }
        if keys[texts[key]] > 1:
            line = f"{keys[texts[key]]} rows have this {key}; keep one"
            found.problems.append(problem_line(number, texts[key], line))
        else:
            found.rows.append((number, texts))
    return found


def problem_line(number: int, key: str, problem: str) -> str:
    return f"row {number} ({key[:40]!r}): {problem}"


def row_of_problem(line: str) -> int:
    """The row number in a line of :func:`problem_line`."""
    return int(line.split()[1].rstrip(":"))


def is_date(text: str) -> bool:
    """Whether a text is an ISO 8601 date, as `2026-11-24`."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def bad_text(name: str, text: str, most: int = _MOST_CHARACTERS) -> str:
    """Why a text cannot be used. Empty if it can.

    Args:
        name: Column of the text.
        most: Largest number of characters.
    """
    if len(text) > most:
        return f"{name} has {len(text):,} characters; the most is {most:,}"
    if not all(sign.isprintable() or sign in "\n\t\r" for sign in text):
        return f"{name} holds a control character; write it anew"
    return ""


def _read_csv(path: Path) -> list[list[str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReviewError(f"review sheet {path} cannot be read: {error.strerror or error}") from None
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, more than {_MOST_BYTES:,}")
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds bytes that are no text")
        first = text.partition("\n")[0]
        # In some locales spreadsheet programs write semicolons or tabs.
        delimiter = max(",;\t", key=first.count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (ValueError, csv.Error) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ReviewError(
            f"review sheet {path} is no CSV: {reason}; save the exported sheet as CSV in UTF-8"
        ) from None
    if not rows:
        raise ReviewError(f"review sheet {path} is empty; give the exported sheet, filled in")
    return [[name.strip().lower() for name in rows[0]], *rows[1:]]


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise ReviewError(
            f"review sheet {path} has no column {', '.join(missing)}; keep the columns of the exported sheet"
        )
    twice = [name for name in needed if header.count(name) > 1]
    if twice:
        raise ReviewError(f"review sheet {path} has column {twice[0]} twice; keep one of them")
