"""Reads `pairs.jsonl`, in which earlier versions kept the pairs of a release as chat messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.tables import RELEASE


def read_lines(path: Path) -> pl.DataFrame:
    """The rows of a `pairs.jsonl`, with the columns of `safevid_350k_release`.

    Request keys, source videos and splits are null, because the file does not hold them.

    Raises:
        ValueError: If a line is not a pair of a release. The message names the line.
    """
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(_pair(json.loads(line)))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {number}: not a pair of an exported release "
                    f"({type(error).__name__}: {error}); fix the line or leave it out"
                ) from error
    return RELEASE.frame(rows)


def _pair(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in RELEASE.schema.names() if name in row}
    turns = {name: _text(row[name]) for name in ("prompt", "chosen", "rejected")}
    return {**kept, **turns, "pair_id": row["pair_id"]}


def _text(turns: Sequence[Mapping[str, Any]]) -> str:
    """The text of the only turn, which may also hold a video."""
    texts = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
    if len(turns) != 1 or len(texts) != 1 or not isinstance(texts[0], str):
        raise ValueError("not one turn with one text")
    return texts[0]
