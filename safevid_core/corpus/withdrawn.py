"""Withdrawn clips: the tombstones of a lake, and whether a clip is one of them.

A clip that comes back is known by its id, by its source video and span, or by its bytes: another clip of the
same file counts if the two spans overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from safevid_core.contracts.tables import WITHDRAWN
from safevid_core.storage.hashing import frame_hash
from safevid_core.storage.lake import Lake
from safevid_core.storage.seals import Seal, refuse

_SAID = ("withdrawn", "clip_id", "source_id", "media_sha256")


@dataclass(frozen=True)
class Withdrawn:
    """The tombstones of a lake.

    Attributes:
        rows: Rows of the table `withdrawn`.
    """

    rows: pl.DataFrame

    @property
    def identity(self) -> str:
        """A hash of the tombstones; empty without any."""
        named = self.rows.select(WITHDRAWN.schema.names()).drop(*WITHDRAWN.volatile).sort("tombstone_id")
        return frame_hash(named) if named.height else ""

    @cached_property
    def _by(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Column -> value -> tombstones."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in _SAID}
        for row in self.rows.iter_rows(named=True):
            for name in _SAID:
                if row[name] is not None:
                    found[name].setdefault(row[name], []).append(row)
        return found

    def why(self, clip: Mapping[str, Any]) -> str:
        """Why a clip is refused; empty if it is not withdrawn.

        Args:
            clip: `clip_id`, and where they are known `source_id`, `media_sha256`, `start_s` and `end_s`.
        """
        ids = [clip.get(name) for name in ("clip_id", "source_id", "media_sha256") if clip.get(name)]
        for name in ("clip_id", "withdrawn"):
            for value in ids if name == "withdrawn" else ids[:1]:
                for row in self._by[name].get(str(value), ()):
                    return reason_of(row)
        for row in self._by["source_id"].get(clip.get("source_id") or "", ()):
            if row["scope"] == "source":
                return reason_of(row)
        for row in self._by["media_sha256"].get(clip.get("media_sha256") or "", ()):
            if _overlap(row, clip):
                return reason_of(row)
        return ""

    def why_unread(self, source_id: str | None) -> str:
        """Why a line of a manifest without a span is refused before its file is read; empty if it is not."""
        for row in self._by["source_id"].get(source_id or "", ()):
            if row["whole_file"] or row["scope"] == "source":
                return reason_of(row)
        return reason_of(found[0]) if (found := self._by["withdrawn"].get(source_id or "")) else ""

    def whole_file(self, media_sha256: str) -> bool:
        """Whether a file as a whole is withdrawn, so that its place is not to be known."""
        return any(row["whole_file"] for row in self._by["media_sha256"].get(media_sha256, ()))

    def among(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of some rows that are about a withdrawn clip."""
        if self.rows.is_empty() or rows.is_empty() or "clip_id" not in rows.columns:
            return rows.clear()
        names = [
            name
            for name in ("clip_id", "source_id", "media_sha256", "start_s", "end_s")
            if name in rows.columns
        ]
        clips = rows.select(names).unique()
        bad = [clip["clip_id"] for clip in clips.iter_rows(named=True) if clip["clip_id"] and self.why(clip)]
        return rows.filter(pl.col("clip_id").is_in(bad))


def read_withdrawn(lake: Lake) -> Withdrawn:
    """The tombstones of a lake."""
    return Withdrawn(lake.read(WITHDRAWN))


def without_withdrawn(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that are about no withdrawn clip."""
    gone = read_withdrawn(lake).among(rows)
    return rows.filter(~pl.col("clip_id").is_in(gone["clip_id"].implode())) if gone.height else rows


def refuse_withdrawn(lake: Lake, rows: pl.DataFrame, what: str) -> None:
    """Refuse rows of which some are about withdrawn clips.

    Args:
        what: Names them in the message. Example: `release 4780eddc`.

    Raises:
        WithdrawnError: With their number, the clips and what to do.
    """
    withdrawn = read_withdrawn(lake)
    gone = withdrawn.among(rows)
    if gone.height:
        clips = gone["clip_id"].unique().sort().to_list()
        why = withdrawn.why(gone.row(0, named=True)).removeprefix("withdrawn on ")
        date, _, reason = why.partition(": ")
        key = next(
            (name for name in ("pair_id", "item_id", "response_id") if name in gone.columns), "clip_id"
        )
        refuse([Seal("", date, reason, clips, gone[key].to_list())], what)


def reason_of(row: Mapping[str, Any]) -> str:
    """The reason of a refused clip."""
    return f"withdrawn on {str(row['withdrawn_at'])[:10]}: {row['reason']}"


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two spans of one file share a moment; a span that is not known counts as the whole file."""
    spans = [(each.get("start_s") or 0.0, each.get("end_s")) for each in (one, other)]
    (start, end), (begin, stop) = spans
    return (stop is None or start < stop) and (end is None or begin < end)
