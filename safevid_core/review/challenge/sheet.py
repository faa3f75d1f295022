"""The review sheet: a CSV with one row for each item and empty columns for the reviewer's verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safevid_core.queries.candidates import MAX_QUERY_CHARACTERS
from safevid_core.review import sheets

Action = Literal["keep", "edit", "drop"]

SHOWN = ("item_id", "release", "category", "subcategory", "scene", "file", "style", "query", "failed_by")
FILLED = ("verdict", "edited_query", "reviewer", "date", "reason")


@dataclass(frozen=True)
class Entry:
    """A reviewer's verdict on one item.

    Attributes:
        row: Row number in the sheet. The header is row 1.
        query: The edited query. None unless `action` is `edit`.
        date: Date of the review, ISO 8601.
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
        entries: One for each reviewed item, in the order of the sheet.
        open: Number of rows without a verdict.
        problems: One line for each row that cannot be used.
    """

    entries: list[Entry] = field(default_factory=list)
    open: int = 0
    problems: list[str] = field(default_factory=list)


def sheet_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The sheet as CSV.

    Args:
        rows: Mappings with the keys of `SHOWN`.
    """
    return sheets.sheet_bytes([*SHOWN, *FILLED], rows)


def read_sheet(path: Path) -> Sheet:
    """The entries of a filled sheet, and the problems of the rows that cannot be used.

    Raises:
        ReviewError: If the file cannot be read, is not CSV, or lacks a column.
    """
    cells = sheets.read_cells(path, "item_id", FILLED)
    sheet = Sheet(problems=cells.problems)
    for number, texts in cells.rows:
        problem = _problem(texts)
        if problem:
            sheet.problems.append(sheets.problem_line(number, texts["item_id"], problem))
        elif not texts["verdict"]:
            sheet.open += 1
        else:
            sheet.entries.append(_entry(number, texts))
    return sheet


def _problem(texts: Mapping[str, str]) -> str:
    """Why a row cannot be used. Empty if it can or has no verdict."""
    verdict = texts["verdict"].lower()
    if not verdict:
        filled = [name for name in FILLED if texts[name]]
        return f"{filled[0]} is filled in and verdict is not; say keep, edit or drop" if filled else ""
    if verdict not in ("keep", "edit", "drop"):
        return f"verdict {texts['verdict'][:40]!r} is not keep, edit or drop"
    needed = ["reviewer", "date"] if verdict == "keep" else ["reviewer", "date", "reason"]
    missing = [name for name in needed if not texts[name]]
    if missing:
        return f"{verdict} without {' and '.join(missing)}; fill in who, when and why"
    if not sheets.is_date(texts["date"]):
        return f"date {texts['date'][:40]!r} is no date; write it as 2026-11-24"
    if verdict == "edit" and not texts["edited_query"]:
        return "edit without edited_query; write the new query, or say drop"
    if verdict != "edit" and texts["edited_query"]:
        return f"{verdict} with an edited_query; say edit, or empty it"
    return _bad_text(texts)


def _bad_text(texts: Mapping[str, str]) -> str:
    return (
        sheets.bad_text("edited_query", texts["edited_query"], MAX_QUERY_CHARACTERS)
        or sheets.bad_text("reviewer", texts["reviewer"])
        or sheets.bad_text("reason", texts["reason"])
    )


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
