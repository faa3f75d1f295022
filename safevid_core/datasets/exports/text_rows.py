"""JSON lines and JSON lists, written row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows


def write_splits(
    rows: ReleaseRows, folder: Path, object_of: Callable[[ExportRow], Mapping[str, Any]]
) -> None:
    """Write `<split>.jsonl` for each split."""
    for split in rows.splits:
        write_json_lines(folder / f"{split}.jsonl", map(object_of, rows.rows(split)))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One object a line, in UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_json_list(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One list with an object a line, in UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows):
            file.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")
