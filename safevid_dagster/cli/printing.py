"""Prints tables and JSON on stdout: with colours and boxes on a terminal, and as plain lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_COLOURS = {
    "ok": "green", "fresh": "green", "warn": "yellow", "incomplete": "yellow", "stale": "yellow",
    "missing": "cyan", "blocked": "cyan", "fail": "red", "failed": "red",
}  # fmt: skip


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def print_json(document: Any) -> None:
    """Print one JSON document. Values without a JSON type become text."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False, default=str))


def print_result(document: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print what a command did: the document with `--json`, else the lines."""
    if as_json:
        print_json(document)
    else:
        typer.echo("\n".join(lines))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows with their headings. Numbers are aligned to the right. None is an empty cell."""
    cells = [[_text(value) for value in row] for row in rows]
    if is_terminal():
        _print_rich(heads, cells)
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        padded = (_aligned(cell, width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def print_record(row: Mapping[str, Any]) -> None:
    """Print one row with one line for each column."""
    width = max(map(len, row), default=0)
    for name, value in row.items():
        typer.echo(f"{name.ljust(width)}  {_text(value)}")


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if _is_number(cell) else cell.ljust(width)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())


def _print_rich(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, head in enumerate(heads):
        numbers = all(_is_number(row[place]) for row in cells if row[place])
        justify: Any = "right" if numbers and cells else "left"
        table.add_column(head, justify=justify, overflow="fold", no_wrap=place == 0)
    for row in cells:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    Console().print(table)
