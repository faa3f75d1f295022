"""The record of sides: which source video is train and which benchmark, written down once and for ever.

It grows by numbered partitions of `decided_sides`, each written once. A run that finds the next number taken
has been overtaken by another run, reads what that one decided, and decides the rest again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
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

# What a clip is known by: a side holds for every clip that shares one of these.
KEYS = {"clip": "clip_id", "source": "source_id", "media": "media_sha256", "twins": "twin_group"}
_OF_CLIP = ("clip_id", "source_id", "media_sha256", "start_s", "end_s", "twin_group")


@dataclass(frozen=True)
class Record:
    """All decisions, the first of them first.

    Attributes:
        rows: Columns of `decided_sides` and `number`, that of the partition.
        identity: A hash of what it holds.
        last: Number of the last partition; 0 where there is none.
    """

    rows: pl.DataFrame
    identity: str
    last: int


def read_record(lake: Lake) -> Record:
    """The record as it is; empty where nothing was decided yet."""
    names = lake.partitions(DECIDED_SIDES.name)
    parts = [
        lake.read(DECIDED_SIDES, name)
        .select(DECIDED_SIDES.schema.names())
        .sort("decision_id")
        .with_columns(number=pl.lit(int(name)))
        for name in names
    ]
    empty = pl.DataFrame(schema={**DECIDED_SIDES.schema, "number": pl.Int32})
    manifests = (lake.manifest(DECIDED_SIDES.name, name) for name in names)
    identity = content_id(*(manifest.content_hash for manifest in manifests if manifest is not None))
    return Record(
        pl.concat([empty, *parts], how="vertical_relaxed"), identity, int(names[-1]) if names else 0
    )


def append(lake: Lake, record: Record, rows: Iterable[dict[str, Any]]) -> bool:
    """Write decisions behind those of `record`; False where another run has written since it was read.

    Raises:
        LakeError: If something else than a partition lies where the next one goes.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    frame = DECIDED_SIDES.frame(
        {**row, "decision_id": decision_id(row), "decided_at": now} for row in rows
    ).unique("decision_id", keep="first", maintain_order=True)
    clips = frame["clip_id"].unique().sort().to_list()
    stage = StageRows(frame, [(clip, "ok", "") for clip in clips])
    name = f"{record.last + 1:06d}"
    if lake.commit_once(DECIDED_SIDES, name, stage, {}) is not None:
        return True
    if lake.manifest(DECIDED_SIDES.name, name) is None:
        folder = lake.place_of(DECIDED_SIDES.name, name)
        raise LakeError(f"{folder} has no manifest; move it away, and materialise corpus_split again")
    return False


def decision_id(row: dict[str, Any]) -> str:
    """The id of a decision: the clip as it was seen."""
    return content_id("side", *(row[name] for name in _OF_CLIP))


def adopted(lake: Lake) -> list[dict[str, Any]]:
    """The decisions that a lake without a record holds: in its split, its pairs and its benchmarks.

    The committed split comes first, then the corpus. Of clips that are in neither, those that a pair was made
    about are train, and those that a release asks about are benchmark.
    """
    columns = ("clip_id", "source_id", "group_id", "split")
    table = lake.scan(CORPUS_SPLIT).select(columns).collect().drop_nulls("split")
    seen = _clips_seen(lake)
    rows = [
        {**each, "why": "taken over from the table corpus_split"}
        for each in table.join(seen.drop("source_id"), on="clip_id", how="left").to_dicts()
    ]
    told = {row["clip_id"] for row in rows}
    corpus = lake.scan(VIDEO_CORPUS).select("clip_id", "split").collect()
    for side, why, clips in (
        *(
            (side, "taken over from the table video_corpus", corpus.filter(split=side)["clip_id"])
            for side in ("train", "benchmark")
        ),
        ("train", "a pair was made about it", pairs_ever_made(lake)["clip_id"]),
        ("benchmark", "a release asks about it", _items(lake)["clip_id"]),
    ):
        ids = sorted(set(clips.drop_nulls()) - told)
        told.update(ids)
        for each in (
            pl.DataFrame({"clip_id": ids}, {"clip_id": pl.String})
            .join(seen, on="clip_id", how="left")
            .iter_rows(named=True)
        ):
            group = content_id("group", "a source", each["source_id"] or f"of clip {each['clip_id']}", side)
            rows.append({**each, "group_id": group, "split": side, "why": why})
    return rows


def _clips_seen(lake: Lake) -> pl.DataFrame:
    """One row a clip, with what is known of it; what the corpus was made from before what is there now."""
    corpus = lake.scan(VIDEO_CORPUS).select(_OF_CLIP).collect()
    manifest = lake.scan(CLIP_MANIFEST).select(_OF_CLIP).collect()
    others = [frame.with_columns(source_id=pl.lit(None, pl.String)).select(_OF_CLIP)
              for frame in (pairs_ever_made(lake), _items(lake))]  # fmt: skip
    return pl.concat([corpus, manifest, *others]).unique("clip_id", keep="first", maintain_order=True)


def _items(lake: Lake) -> pl.DataFrame:
    """The clips of every release of the benchmarks made here."""
    columns = [name for name in _OF_CLIP if name != "source_id"]
    tables: list[tuple[Table, str | None]] = [
        (SAFEVIDBENCH_BASE, WHOLE), (SAFEVIDBENCH_CHALLENGE, WHOLE), (BENCHMARK_RELEASES, None)
    ]  # fmt: skip
    found = [
        lake.scan(table, None if partition is None else [partition]).select(columns).collect()
        for table, partition in tables
    ]
    return pl.concat(found).unique("clip_id", keep="first", maintain_order=True)
