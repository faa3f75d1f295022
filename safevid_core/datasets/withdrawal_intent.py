"""The intent of a withdrawal: everything that will be removed, sealed and marked, found before anything is.

It is written down first, so that a withdrawal that was killed is finished from it: what it names can no
longer be found once half of it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from safevid_core.contracts.ids import content_id
from safevid_core.storage.lake import Lake
from safevid_core.storage.place import Place

_FOLDER = "withdrawals"


@dataclass(frozen=True)
class Part:
    """Rows of one partition.

    Attributes:
        ids: Keys of the rows.
        inputs: Input ids about the clip that gave no row.
    """

    asset: str
    partition: str
    ids: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Folder:
    """A kept directory with the ids of its rows about the clips: pairs of a release, or a checkpoint."""

    address: str
    ids: list[str]


@dataclass(frozen=True)
class WithdrawalIntent:
    """A withdrawal.

    Attributes:
        id: Content id of what is withdrawn.
        asked: What people named.
        scope: `clip`, or `source` for all clips of a source video, also those that come later.
        date: ISO time of the request.
        clips: `clip_id, source_id, media_sha256, start_s, end_s, whole_file` of each clip.
        rows: Rows to be removed.
        blank: Partitions of figures whose texts name removed rows.
        words: Ids of the clips and of the removed rows.
        releases: Partitions of releases to be sealed.
        folders: Release folders to be sealed.
        checkpoints: Checkpoints that were trained on the clips.
        resting: Partitions that were made with such a checkpoint.
        calls: Request keys of the model calls whose texts are removed.
        cost_usd: What these calls cost.
        shared_calls: How many calls keep their texts, because rows about other clips rest on them too.
        files: Files of SafeVid to be removed: what and path.
        users_files: Files of the user about the clips; they are named and not touched.
        notes: What could not be found out.
        purge: Whether releases are replaced by successors, and the old ones destroyed.
    """

    id: str
    asked: str
    scope: str
    reason: str
    date: str
    clips: list[dict[str, Any]]
    rows: list[Part] = field(default_factory=list)
    blank: list[Part] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    releases: list[Part] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    checkpoints: list[Folder] = field(default_factory=list)
    resting: list[Part] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    cost_usd: float = 0.0
    shared_calls: int = 0
    files: list[tuple[str, str]] = field(default_factory=list)
    users_files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    purge: bool = False

    @property
    def day(self) -> str:
        return self.date[:10]

    @property
    def outcome_reason(self) -> str:
        """The reason that outcomes and refusals give."""
        return f"withdrawn on {self.day}: {self.reason}"

    def clip_ids(self) -> list[str]:
        return [clip["clip_id"] for clip in self.clips if clip["clip_id"]]


def intent_id(scope: str, asked: str, clips: Iterable[str]) -> str:
    """The id of a withdrawal: the same whenever the same is withdrawn."""
    return content_id("withdrawal", scope, asked, *sorted(clips))


def write_intent(lake: Lake, intent: WithdrawalIntent) -> None:
    Place(lake.url).write(_name(intent.id, "intent"), json.dumps(asdict(intent), indent=1).encode())


def read_intents(lake: Lake) -> list[WithdrawalIntent]:
    """All withdrawals of a lake, the oldest first."""
    place = Place(lake.url)
    found = [read_intent(lake, name) for name in place.names(_FOLDER)]
    return sorted((each for each in found if each is not None), key=lambda each: (each.date, each.id))


def read_intent(lake: Lake, name: str) -> WithdrawalIntent | None:
    """A withdrawal by its id; None if there is none."""
    try:
        fields = json.loads(Place(lake.url).read(_name(name, "intent")))
    except FileNotFoundError:
        return None
    for key in ("rows", "blank", "releases", "resting"):
        fields[key] = [Part(**each) for each in fields[key]]
    for key in ("folders", "checkpoints"):
        fields[key] = [Folder(**each) for each in fields[key]]
    fields["files"] = [(what, path) for what, path in fields["files"]]
    return WithdrawalIntent(**fields)


def mark_done(lake: Lake, intent: WithdrawalIntent, report: dict[str, Any]) -> None:
    """Write the report of a finished withdrawal, which says that it is finished."""
    Place(lake.url).write(_name(intent.id, "done"), json.dumps(report, indent=1).encode())


def read_report(lake: Lake, name: str) -> dict[str, Any] | None:
    """The report of a finished withdrawal; None if it is not finished."""
    try:
        return dict(json.loads(Place(lake.url).read(_name(name, "done"))))
    except FileNotFoundError:
        return None


def reopen(lake: Lake, name: str) -> None:
    """Take back that a withdrawal is finished, so that what was added to its intent is done."""
    place = Place(lake.url)
    if place.exists(_name(name, "done")):
        place.remove(_name(name, "done"))


def write_record(lake: Lake, intent: WithdrawalIntent, destroyed: list[dict[str, Any]]) -> None:
    """Write what a purge destroys, before it does."""
    Place(lake.url).write(_name(intent.id, "destroyed"), json.dumps(destroyed, indent=1).encode())


def read_record(lake: Lake, intent: WithdrawalIntent) -> list[dict[str, Any]]:
    try:
        return list(json.loads(Place(lake.url).read(_name(intent.id, "destroyed"))))
    except FileNotFoundError:
        return []


def _name(withdrawal: str, what: str) -> str:
    return f"{_FOLDER}/{withdrawal}/{what}.json"
