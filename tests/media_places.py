"""Rows for tests that say where their media lies, and the media index that is to know it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safevid_core.storage.lake import Lake


def placed(lake: Lake, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows without `path`, which the lake's media index has under `media_sha256` from now on.

    A path without a file is recorded as well: its bytes are missing.
    """
    rows = [{**row} for row in rows]
    paths = [(row["media_sha256"], Path(path)) for row in rows if (path := row.pop("path", None))]
    lake.media.record((sha256, path, path.stat().st_size if path.is_file() else 1) for sha256, path in paths)
    return rows
