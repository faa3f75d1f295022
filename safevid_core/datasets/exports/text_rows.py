"""JSON lines and JSON lists, written a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from safevid_core.datasets.exports.release_rows import ReleaseRows


def write_splits(rows: ReleaseRows, folder: Path, objects_of: Callable[[pl.DataFrame], pl.Series]) -> None:
    """Write `<split>.jsonl` for each split.

    Args:
        objects_of: Pairs, with the columns of :meth:`ReleaseRows.batches`, -> a JSON text for each.
    """
    for split in rows.splits:
        write_json_lines(folder / f"{split}.jsonl", map(objects_of, rows.batches(split)))


def json_objects(frame: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object on one line, with the columns as its keys."""
    return frame.select(pl.struct(pl.all()).struct.json_encode().alias("json"))["json"]


def write_json_lines(path: Path, batches: Iterable[pl.Series]) -> None:
    """One JSON text a line, in UTF-8."""
    with path.open("wb") as file:
        for batch in batches:
            if len(batch):
                file.write(batch.str.join("\n").item().encode() + b"\n")


def write_json_list(path: Path, batches: Iterable[pl.Series]) -> None:
    """One list with a JSON text a line, in UTF-8."""
    with path.open("wb") as file:
        file.write(b"[")
        before = b"\n"
        for batch in batches:
            if len(batch):
                file.write(before + batch.str.join(",\n").item().encode())
                before = b",\n"
        file.write(b"\n]\n")
