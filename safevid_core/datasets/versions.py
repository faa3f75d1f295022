"""The versions of the releases of a lake: `1.0.0`, `1.1.0`, `2.0.0`.

The first release is 1.0.0. A release with other rows is the next minor version, and one with other columns
the next major version. The same rows have the same version again. Each version is a partition of the table
`release_versions` that is written once, so two releases that are made at once get two versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import RELEASE, RELEASE_VERSIONS
from safevid_core.storage.lake import Lake, LakeError, settings_hash

_FIRST = (1, 0, 0)
_NOT_ROWS = ("release", "profile")
Number = tuple[int, int, int]


@dataclass(frozen=True)
class Version:
    """A version of the release.

    Attributes:
        version: Such as `1.1.0`.
        release: Id of the release.
        parent: The version before it. None for the first.
        rows_schema: Hash of the columns.
        why: `first`, `rows`, `schema`, or the id of a withdrawal whose purge made it.
        released_at: ISO time of the day it was first made.
    """

    version: str
    release: str
    parent: str | None
    rows_schema: str
    pairs: int
    why: str
    released_at: str


def versions_of(lake: Lake) -> list[Version]:
    """All versions, the lowest first."""
    names = RELEASE_VERSIONS.schema.names()
    rows = lake.read(RELEASE_VERSIONS).select(names)
    return sorted((Version(**row) for row in rows.to_dicts()), key=lambda each: _number(each.version))


def claim_version(lake: Lake, rows: pl.DataFrame, release: str, why: str = "") -> Version:
    """The version of some rows, which is written down if the lake has none for them.

    Args:
        rows: The rows of the release.
        release: Their id.
        why: The id of a withdrawal; empty for a release by its stage.

    Raises:
        LakeError: If the place of the next version is taken by a folder that is not a partition.
    """
    schema = schema_of(rows)
    while True:
        known = versions_of(lake)
        for each in known:
            if (each.release, each.rows_schema) == (release, schema):
                return each
        version = _next(known[-1] if known else None, schema, release, rows.height, why)
        stage = StageRows(RELEASE_VERSIONS.frame([vars(version)]), [(version.version, "ok", "")])
        if lake.commit_once(RELEASE_VERSIONS, version.version, stage, {}) is not None:
            return version
        if lake.manifest(RELEASE_VERSIONS.name, version.version) is None:
            folder = lake.place_of(RELEASE_VERSIONS.name, version.version)
            raise LakeError(f"{folder} has no manifest; move it away, and make {RELEASE.name} again")


def schema_of(rows: pl.DataFrame) -> str:
    """A hash of the names and types of the columns, and of what they mean."""
    columns = {name: str(kind) for name, kind in rows.schema.items() if name not in _NOT_ROWS}
    return settings_hash(columns, RELEASE.version)


def _next(latest: Version | None, schema: str, release: str, pairs: int, why: str) -> Version:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if latest is None:
        return Version(_text(_FIRST), release, None, schema, pairs, why or "first", now)
    major, minor, _ = _number(latest.version)
    other = latest.rows_schema != schema
    number = (major + 1, 0, 0) if other else (major, minor + 1, 0)
    return Version(
        _text(number),
        release,
        latest.version,
        schema,
        pairs,
        why or ("schema" if other else "rows"),
        now,
    )


def _number(version: str) -> Number:
    major, minor, patch = (int(part) for part in version.split("."))
    return major, minor, patch


def _text(number: Number) -> str:
    return ".".join(map(str, number))
