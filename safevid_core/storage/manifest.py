"""The manifest of a committed partition, and the errors of a lake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from safevid_core.contracts.errors import SafeVidError

# The version of the files of a lake and of the hash of rows. Layout 1 hashes one NDJSON text, 2 Arrow
# batches.
LAYOUT = 2


class LakeError(SafeVidError, RuntimeError):
    """A lake cannot be used, or a stage does not account for its rows."""


class NothingMade(LakeError):
    """A stage made no row. The message says why. Examples: no clip can be used, a model gives no answer."""


class PartitionHeld(LakeError):
    """Another process is making the partition. The message says which process and since when."""


@dataclass(frozen=True)
class Manifest:
    """The record of one committed partition.

    Attributes:
        fingerprint: Hash of the inputs, the table's schema and the profile.
        content_hash: Hash of the rows without the table's volatile columns.
        outcomes: Outcome -> number of input ids.
        files: `rows` and `outcomes` -> name of the data file.
        inputs: Name -> hash of each input.
        info: Figures of the stage, for people.
        seconds: Time that the rows took.
        committed_at: Time of the commit in seconds since 1970.
        layout: The layout in which it was written. See `LAYOUT`.
        columns: Column name -> hash, for the columns that `content_hash` covers. Empty in layout 1.
        outcomes_hash: Hash of the outcomes. Empty in layout 1.
        earlier: Earlier generations of data files that a reader may still open. Each has its `files`, and
            `until`: the time in seconds since 1970 at which the next generation replaced it.
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
