"""Reads and writes the layout version of a lake: `layout.json` at its root.

Layout 1 has no such file. Its tables can be read. A stage makes its table again when it runs next, because
the fingerprint includes the layout. Tables that are never made again (`decided_sides`, `benchmark_releases`)
stay valid: they are checked with the hash of layout 1.
"""

from __future__ import annotations

import hashlib
import json

import polars as pl

from safevid_core.storage.manifest import LAYOUT, LakeError
from safevid_core.storage.place import Place

NAME = "layout.json"


def mark_layout(place: Place) -> int:
    """Write `layout.json` if the lake has none.

    Returns:
        The layout that the lake had: 1 for tables without `layout.json`, `LAYOUT` for a new lake.

    Raises:
        LakeError: If the lake was written by a later version of SafeVid.
    """
    try:
        found = int(json.loads(place.read(NAME))["layout"])
    except FileNotFoundError:
        found = 1 if place.names("tables") else LAYOUT
        place.write(NAME, json.dumps({"layout": LAYOUT}).encode())
        return found
    except (ValueError, KeyError, TypeError):
        raise LakeError(f'{place.where(NAME)} names no layout; write {{"layout": {LAYOUT}}} in it') from None
    if found > LAYOUT:
        raise LakeError(
            f"{place.where(NAME)}: the lake has layout {found} and this SafeVid knows {LAYOUT}; "
            "update SafeVid, or choose another folder with SAFEVID_ROOT"
        )
    return found


def earlier_frame_hash(frame: pl.DataFrame) -> str:
    """The content hash of layout 1: SHA-256 over the columns and one NDJSON text of all rows."""
    digest = hashlib.sha256(repr(list(frame.schema.items())).encode())
    digest.update(frame.write_ndjson().encode())
    return digest.hexdigest()[:32]
