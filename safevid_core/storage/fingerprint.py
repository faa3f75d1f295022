"""Computes the fingerprint of a partition, and the number of units that a committed partition leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import Table
from safevid_core.storage.manifest import LAYOUT, Manifest

if TYPE_CHECKING:
    from safevid_core.storage.lake import Lake

WHOLE = "all"  # the only partition of a table that is not partitioned


def to_be_asked_again(manifest: Manifest, *, retry_failed: bool = False) -> int:
    """The number of questions without a usable answer and of files that were not read.

    If it is above 0, the next run makes the partition again although its inputs have not changed.

    Args:
        retry_failed: Whether unusable answers count.
    """
    unusable = manifest.info.get("unusable", 0) if retry_failed else 0
    return int(manifest.info.get("unanswered", 0) + manifest.info.get("unread", 0) + unusable)


def stage_fingerprint(lake: Lake, table: Table, inputs: Mapping[str, str]) -> str:
    """The fingerprint of a partition made from these inputs. An equal committed fingerprint means fresh."""
    columns = [f"{name}: {kind}" for name, kind in table.schema.items()]
    made_from = sorted(f"{name}={value}" for name, value in inputs.items())
    return content_id(f"layout {LAYOUT}", table.version, *columns, lake.profile, *made_from)
