"""What one committed partition is, and the errors of a lake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from safevid_core.contracts.errors import SafeVidError

# How tables lie in a lake and how their rows are hashed. 1: the rows as one NDJSON text; 2: Arrow batches.
LAYOUT = 2


class LakeError(SafeVidError, RuntimeError):
    """A lake that cannot be used, or a stage whose rows do not add up."""


class NothingMade(LakeError):
    """A stage that made nothing: no clip can be used, or a model answers nothing; the message says why."""


class PartitionHeld(LakeError):
    """A partition that another process is making; the message says which process and since when."""


@dataclass(frozen=True)
class Manifest:
    """What one committed partition is, what it was made from, and the seconds its rows took.

    Attributes:
        content_hash: Hash of the rows without the table's volatile columns.
        files: Names of the data files, `rows` and `outcomes`.
        layout: The layout that it was written in; see `LAYOUT`.
        columns: Column name -> hash, of the columns that `content_hash` covers. Empty in layout 1.
        outcomes_hash: Hash of the outcomes. Empty in layout 1.
        earlier: Generations of data files that a reader may still hold: each the `files`, and `until`, when
            the next generation took its place, in seconds since 1970.
    """

    asset: str
    partition: str
    profile: str
    fingerprint: str
    content_hash: str
    rows: int
    outcomes: dict[str, int]
    files: dict[str, str]
    inputs: dict[str, str]
    info: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    committed_at: float = 0.0
    layout: int = 1
    columns: dict[str, str] = field(default_factory=dict)
    outcomes_hash: str = ""
    earlier: list[dict[str, Any]] = field(default_factory=list)
