"""The review sheet: a CSV with one row an item, and empty columns for what the reviewer says of it.

A spreadsheet runs a cell that looks like a formula, and queries are text that others wrote: such cells get
an apostrophe in front, which is taken off again when the sheet is read. A filled sheet is foreign text;
what is wrong with a row is told in one line, and the other rows go on.
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
from typing import Any, Literal

from safevid_core.evaluation.systems import EvaluationError
from safevid_core.queries.strength import MAX_QUERY_CHARACTERS

Action = Literal["keep", "edit", "drop"]

SHOWN = ("item_id", "release", "category", "subcategory", "scene", "style", "query", "failed_by")
FILLED = ("verdict", "edited_query", "reviewer", "date", "reason")
_NEEDED = ("item_id", *FILLED)

# What a spreadsheet takes for the start of a formula, full-width signs included.
_FORMULA = r"[=+\-@\t\r\n＝＋－＠]"
_MOST_BYTES = 64_000_000
_MOST_CHARACTERS = 2_000  # of a name or a reason


@dataclass(frozen=True)
class Entry:
    """What a reviewer says of one item.

    Attributes:
        row: Of the spreadsheet; the header is row 1.
        query: The edited query; None unless `action` is edit.
        date: Of the review, ISO 8601.
    """

    row: int
    item_id: str
    action: Action
    query: str | None
    reviewer: str
    date: str
    reason: str


@dataclass
class Sheet:
    """A filled sheet.

    Attributes:
        entries: One an item that was reviewed, in the sheet's order.
        open: Rows without a verdict.
        problems: One line for each row that cannot be used.
    """

    entries: list[Entry] = field(default_factory=list)
    open: int = 0
    problems: list[str] = field(default_factory=list)


def sheet_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The sheet as CSV text.

    Args:
        rows: Mappings with the keys of `SHOWN`.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([*SHOWN, *FILLED])
    for row in rows:
        writer.writerow([*(guarded(str(row[name] or "")) for name in SHOWN), *([""] * len(FILLED))])
    return buffer.getvalue()


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet runs; :func:`unguarded` gives it back."""
    return f"'{text}" if re.match(f"'*{_FORMULA}", text) else text


def unguarded(cell: str) -> str:
    return cell[1:] if re.match(f"''*{_FORMULA}", cell) else cell


def read_sheet(path: Path) -> Sheet:
    """The entries of a filled sheet, and what is wrong with the other rows.

    Raises:
        EvaluationError: If the file cannot be read, is no CSV, or lacks a column.
    """
    header, *rows = _cells(path)
    _check_header(path, header)
    place = {name: header.index(name) for name in _NEEDED}
    sheet = Sheet()
    numbered = [(number, cells) for number, cells in enumerate(rows, start=2) if any(map(str.strip, cells))]
    ids = Counter(cells[place["item_id"]].strip() for _, cells in numbered if len(cells) == len(header))
    for number, cells in numbered:
        if len(cells) != len(header):
            sheet.problems.append(f"row {number}: {len(cells)} cells, where the header has {len(header)}")
            continue
        texts = {name: unguarded(cells[at]).strip() for name, at in place.items()}
        problem = _problem(texts, ids)
        if problem:
            sheet.problems.append(f"row {number} ({texts['item_id'][:40]!r}): {problem}")
        elif not texts["verdict"]:
            sheet.open += 1
        else:
            sheet.entries.append(_entry(number, texts))
    return sheet


def _cells(path: Path) -> list[list[str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"review sheet {path} cannot be read: {error.strerror or error}") from None
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, more than {_MOST_BYTES:,}")
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds bytes that are no text")
        first = text.partition("\n")[0]
        # Spreadsheets of some countries write semicolons, and some write tabs.
        delimiter = max(",;\t", key=first.count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (ValueError, csv.Error) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise EvaluationError(
            f"review sheet {path} is no CSV: {reason}; save the exported sheet as CSV in UTF-8"
        ) from None
    if not rows:
        raise EvaluationError(f"review sheet {path} is empty; give the exported sheet, filled in")
    return [[name.strip().lower() for name in rows[0]], *rows[1:]]


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise EvaluationError(
            f"review sheet {path} has no column {', '.join(missing)}; keep the columns of the exported sheet"
        )
    twice = [name for name in _NEEDED if header.count(name) > 1]
    if twice:
        raise EvaluationError(f"review sheet {path} has column {twice[0]} twice; keep one of them")


def _problem(texts: Mapping[str, str], ids: Mapping[str, int]) -> str:
    """Why a row cannot be used; empty if it can."""
    verdict = texts["verdict"].lower()
    if ids[texts["item_id"]] > 1:
        return f"{ids[texts['item_id']]} rows have this item_id; keep one"
    if not verdict:
        filled = [name for name in FILLED if texts[name]]
        return f"{filled[0]} is filled in and verdict is not; say keep, edit or drop" if filled else ""
    if verdict not in ("keep", "edit", "drop"):
        return f"verdict {texts['verdict'][:40]!r} is not keep, edit or drop"
    needed = ["reviewer", "date"] if verdict == "keep" else ["reviewer", "date", "reason"]
    missing = [name for name in needed if not texts[name]]
    if missing:
        return f"{verdict} without {' and '.join(missing)}; fill in who, when and why"
    if not _is_date(texts["date"]):
        return f"date {texts['date'][:40]!r} is no date; write it as 2026-11-24"
    if verdict == "edit" and not texts["edited_query"]:
        return "edit without edited_query; write the new query, or say drop"
    if verdict != "edit" and texts["edited_query"]:
        return f"{verdict} with an edited_query; say edit, or empty it"
    return _bad_text(texts)


def _bad_text(texts: Mapping[str, str]) -> str:
    for name in ("edited_query", "reviewer", "reason"):
        most = MAX_QUERY_CHARACTERS if name == "edited_query" else _MOST_CHARACTERS
        if len(texts[name]) > most:
            return f"{name} has {len(texts[name]):,} characters; the most is {most:,}"
        if not all(sign.isprintable() or sign in "\n\t\r" for sign in texts[name]):
            return f"{name} holds a control character; write it anew"
    return ""


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _entry(number: int, texts: Mapping[str, str]) -> Entry:
    action: Action = "keep"
    if texts["verdict"].lower() == "edit":
        action = "edit"
    elif texts["verdict"].lower() == "drop":
        action = "drop"
    return Entry(
        row=number,
        item_id=texts["item_id"],
        action=action,
        query=texts["edited_query"] or None,
        reviewer=texts["reviewer"],
        date=texts["date"],
        reason=texts["reason"],
    )
