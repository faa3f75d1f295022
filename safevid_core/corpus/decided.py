"""The permanent record of the side of each source video: train or benchmark.

Each run that decides sides appends one numbered partition to `decided_sides`. A partition is written once. If
another run has written the next number first, the run reads its decisions and decides the remaining clips
again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.rows import MediaSpan, rows_of
from safevid_core.contracts.tables import (
    BENCHMARK_RELEASES,
    CLIP_MANIFEST,
    CORPUS_SPLIT,
    DECIDED_SIDES,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    VIDEO_CORPUS,
    Table,
)
from safevid_core.corpus.trained import pairs_ever_made
from safevid_core.storage.lake import WHOLE, Lake, LakeError

Key = tuple[str, str]
# Kind of key -> its column. A side applies to every clip that shares one of these values.
KEYS = {"clip": "clip_id", "source": "source_id", "media": "media_sha256", "twins": "twin_group"}
_OF_CLIP = ("clip_id", "source_id", "media_sha256", "start_s", "end_s", "twin_group")


@dataclass(frozen=True, slots=True)
class TiedClip(MediaSpan):
    """A clip with the columns that tie it to other clips."""

    SCHEMA: ClassVar[pl.Schema] = DECIDED_SIDES.schema

    clip_id: str
    source_id: str | None
    twin_group: str | None

    @property
    def keys(self) -> list[Key]:
        """(kind, value) for each of `KEYS` that the clip has."""
        values = ((kind, getattr(self, column)) for kind, column in KEYS.items())
        return [(kind, value) for kind, value in values if value is not None]


@dataclass(frozen=True, slots=True)
class DecidedSide:
    """A decision: the side of a clip, of its source video, of its file and of its twin group.

    Attributes:
        benchmark_fraction: None if the side comes from an earlier decision or table and not from the hash.
    """

    clip: TiedClip
    group_id: str
    split: str
    why: str
    benchmark_fraction: float | None = None

    def row(self, decided_at: str) -> dict[str, Any]:
        """The row of `decided_sides`."""
        return {
            **{name: getattr(self.clip, name) for name in _OF_CLIP},
            "decision_id": decision_id(self.clip),
            "group_id": self.group_id,
            "split": self.split,
            "why": self.why,
            "benchmark_fraction": self.benchmark_fraction,
            "decided_at": decided_at,
        }


@dataclass(frozen=True, slots=True)
class RecordedSide(TiedClip):
    """A decision of the record.

    Attributes:
        number: Number of the partition that holds it.
    """

    decision_id: str
    group_id: str
    split: str
    number: int


@dataclass(frozen=True)
class Record:
    """All decisions, oldest first.

    Attributes:
        rows: Columns of `decided_sides`, and `number`: the number of the partition.
        identity: Hash of the decisions.
        last: Number of the last partition. 0 if there is none.
    """

    rows: pl.DataFrame
    identity: str
    last: int


def read_record(lake: Lake) -> Record:
    """The present record. It is empty if no side was decided yet."""
    names = lake.partitions(DECIDED_SIDES.name)
    parts = [
        lake.read(DECIDED_SIDES, name)
        .select(DECIDED_SIDES.schema.names())
        .sort("decision_id")
        .with_columns(number=pl.lit(int(name), pl.Int64))
        for name in names
    ]
    empty = pl.DataFrame(schema={**DECIDED_SIDES.schema, "number": pl.Int64})
    manifests = (lake.manifest(DECIDED_SIDES.name, name) for name in names)
    identity = content_id(*(manifest.content_hash for manifest in manifests if manifest is not None))
    return Record(
        pl.concat([empty, *parts], how="vertical_relaxed"), identity, int(names[-1]) if names else 0
    )


def append(lake: Lake, record: Record, decisions: Iterable[DecidedSide]) -> bool:
    """Append decisions to the record.

    Returns:
        False, with nothing written, if another run has appended decisions since `record` was read.

    Raises:
        LakeError: If the place of the next partition is taken by a folder that is not a partition.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    frame = DECIDED_SIDES.frame(each.row(now) for each in decisions).unique(
        "decision_id", keep="first", maintain_order=True
    )
    clips = frame["clip_id"].unique().sort().to_list()
    stage = StageRows(frame, [(clip, "ok", "") for clip in clips])
    name = f"{record.last + 1:06d}"
    if lake.commit_once(DECIDED_SIDES, name, stage, {}) is not None:
        return True
    if lake.manifest(DECIDED_SIDES.name, name) is None:
        folder = lake.place_of(DECIDED_SIDES.name, name)
        raise LakeError(f"{folder} has no manifest; move it away, and materialise corpus_split again")
    return False


def decision_id(clip: TiedClip) -> str:
    """The id of a decision about a clip: a hash of the clip's columns at that time."""
    return content_id("side", *(getattr(clip, name) for name in _OF_CLIP))


def adopted(lake: Lake) -> list[DecidedSide]:
    """The decisions that follow from the tables of a lake without a record.

    The committed split counts first, then the corpus. A clip in neither is train if a pair was made about it,
    and benchmark if a release has an item about it.
    """
    split = lake.scan(CORPUS_SPLIT).select("clip_id", "source_id", "group_id", "split").collect()
    split = split.drop_nulls("split")
    seen = {clip.clip_id: clip for clip in rows_of(_clips_seen(lake), TiedClip)}
    decisions = []
    for clip_id, source_id, group_id, side in split.iter_rows():
        clip = seen.get(clip_id, TiedClip(None, None, None, clip_id, None, None))
        why = "taken over from the table corpus_split"
        decisions.append(DecidedSide(replace(clip, source_id=source_id), group_id, side, why))
    decided = set(split["clip_id"])
    corpus = lake.scan(VIDEO_CORPUS).select("clip_id", "split").collect()
    for side, why, others in (
        *(
            (side, "taken over from the table video_corpus", corpus.filter(split=side)["clip_id"])
            for side in ("train", "benchmark")
        ),
        ("train", "a pair was made about it", pairs_ever_made(lake)["clip_id"]),
        ("benchmark", "a release asks about it", _items(lake)["clip_id"]),
    ):
        ids = sorted(set(others.drop_nulls()) - decided)
        decided.update(ids)
        for clip_id in ids:
            clip = seen[clip_id]
            group = content_id("group", "a source", clip.source_id or f"of clip {clip_id}", side)
            decisions.append(DecidedSide(clip, group, side, why))
    return decisions


def _clips_seen(lake: Lake) -> pl.DataFrame:
    """One row for each clip, from the corpus, else from the manifest, else from pairs and benchmark items."""
    corpus = lake.scan(VIDEO_CORPUS).select(_OF_CLIP).collect()
    manifest = lake.scan(CLIP_MANIFEST).select(_OF_CLIP).collect()
    others = [frame.with_columns(source_id=pl.lit(None, pl.String)).select(_OF_CLIP)
              for frame in (pairs_ever_made(lake), _items(lake))]  # fmt: skip
    return pl.concat([corpus, manifest, *others]).unique("clip_id", keep="first", maintain_order=True)


def _items(lake: Lake) -> pl.DataFrame:
    """The clips of every release of SafeVidBench-Base and SafeVidBench-Challenge."""
    columns = [name for name in _OF_CLIP if name != "source_id"]
    tables: list[tuple[Table, str | None]] = [
        (SAFEVIDBENCH_BASE, WHOLE), (SAFEVIDBENCH_CHALLENGE, WHOLE), (BENCHMARK_RELEASES, None)
    ]  # fmt: skip
    found = [
        lake.scan(table, None if partition is None else [partition]).select(columns).collect()
        for table, partition in tables
    ]
    return pl.concat(found).unique("clip_id", keep="first", maintain_order=True)
