"""What a partition made from some inputs would carry, and what is left open in a committed one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import Table
from safevid_core.storage.manifest import LAYOUT, Manifest

if TYPE_CHECKING:
    from safevid_core.storage.lake import Lake

WHOLE = "all"  # the partition of a table that has none


def to_be_asked_again(manifest: Manifest, *, retry_failed: bool = False) -> int:
    """Questions and files for which a partition is made again though nothing that it is made from changed."""
    unusable = manifest.info.get("unusable", 0) if retry_failed else 0
    return int(manifest.info.get("unanswered", 0) + manifest.info.get("unread", 0) + unusable)


def stage_fingerprint(lake: Lake, table: Table, inputs: Mapping[str, str]) -> str:
    """What a partition made from these inputs would carry; equal to the committed one: nothing to do."""
    columns = [f"{name}: {kind}" for name, kind in table.schema.items()]
    made_from = sorted(f"{name}={value}" for name, value in inputs.items())
    return content_id(f"layout {LAYOUT}", table.version, *columns, lake.profile, *made_from)
