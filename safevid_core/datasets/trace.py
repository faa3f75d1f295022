"""What a clip, query, pair, model call, checkpoint or release came from, and what was made from it.

The links follow from the tables and from what the registry says that each stage reads
(:mod:`safevid_core.datasets.links`). Only columns that name something are read; texts are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.tables import Table
from safevid_core.corpus.trained import read_training_clips
from safevid_core.datasets.clip_files import ClipFile, files_of
from safevid_core.datasets.kept_releases import KeptRelease, kept_releases
from safevid_core.datasets.links import Links, call_keys, stored_table
from safevid_core.datasets.named import KEPT, Selected, find
from safevid_core.datasets.versions import versions_of
from safevid_core.models.call_records import CallRecord, call_records
from safevid_core.models.ledger import Ledger
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Stage
from safevid_core.storage.lake import Lake

_MOST_CLIPS = 2_000  # clips of which the files are listed
_MOST_CALLS = 1_000  # model calls that are looked up in the ledger; the rows name all


@dataclass(frozen=True)
class Step:
    """The rows of one stage in a trace.

    Attributes:
        stage: Name of the stage, or of a table that no stage makes (`benchmark_releases`).
        key: The table's key column.
        rows: The rows, with the columns that name something. Empty if `whole`.
        whole: Whether the table is figures over whole partitions, which share no column with its inputs.
        after: The stages of the trace that this one reads.
    """

    stage: str
    key: str
    rows: pl.DataFrame
    whole: bool
    after: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        return [] if self.whole else self.rows[self.key].cast(pl.String).to_list()

    def as_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "key": self.key,
            "whole": self.whole,
            "after": list(self.after),
            "count": len(self.ids),
            "rows": [] if self.whole else self.rows.to_dicts(),
        }


@dataclass(frozen=True)
class Trace:
    """The neighbourhood of one thing.

    Attributes:
        id: The id that was asked for.
        kind: What it is: `clip`, `pair`, `model call`, `release`.
        itself: The rows that it is.
        came_from: The stages before it, the first stage of the method first.
        made_from_it: The stages after it, in the order of the method.
        call_keys: Request keys of all model calls that these rows name, those of `itself` first.
        calls: The ledger's records of the first of them.
        releases: Folders of releases that hold its pairs, older releases too.
        files: Files about its clips.
    """

    id: str
    kind: str
    itself: list[Step]
    came_from: list[Step] = field(default_factory=list)
    made_from_it: list[Step] = field(default_factory=list)
    call_keys: list[str] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    releases: list[KeptRelease] = field(default_factory=list)
    files: list[ClipFile] = field(default_factory=list)

    def clips(self) -> pl.DataFrame:
        """The clips of the rows that it is: `clip_id, media_sha256, start_s, end_s`."""
        return clips_of([step.rows for step in self.itself])

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "itself": [step.as_dict() for step in self.itself],
            "came_from": [step.as_dict() for step in self.came_from],
            "made_from_it": [step.as_dict() for step in self.made_from_it],
            "call_keys": self.call_keys,
            "calls": [call._asdict() for call in self.calls],
            "releases": [each.as_dict() for each in self.releases],
            "files": [file.as_dict() for file in self.files],
        }


def trace(registry: Registry, lake: Lake, ledger: Ledger | None, word: str) -> Trace:
    """Trace what an id names.

    Args:
        ledger: None leaves out the model calls.
        word: A clip id or the name of a clip's file; the id of a source video, file, query, pair, item,
            response or release; a version of a release; a request key; a checkpoint's id or address.

    Raises:
        UnknownId: If nothing has that id.
    """
    links = Links(registry, lake)
    word = {each.version: each.release for each in versions_of(lake)}.get(word, word)
    kind, start = find(links, ledger, word)
    before, after = _Upstream(links, start), _Downstream(links, start)
    found = Trace(word, kind, _steps(links, start, set(), start), before.steps(), after.steps())
    steps = (*found.itself, *reversed(found.came_from), *found.made_from_it)
    named = call_keys(step.rows for step in steps)
    found.call_keys.extend(named or ([word] if kind == "model call" else []))
    if ledger is not None:
        found.calls.extend(call_records(ledger, found.call_keys[:_MOST_CALLS]))
    found.releases.extend(_releases_with(lake, [*found.itself, *found.made_from_it]))
    about = found.clips()
    if 0 < about.height <= _MOST_CLIPS:
        found.files.extend(files_of(lake, about))
    return found


def clips_of(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The clips that rows are or are about: `clip_id, media_sha256, start_s, end_s`, each once."""
    columns = {"clip_id": pl.String, "media_sha256": pl.String, "start_s": pl.Float64, "end_s": pl.Float64}
    parts = [pl.DataFrame(schema=columns)]
    for rows in frames:
        if "clip_id" in rows.columns:
            shown = [
                pl.col(name) if name in rows.columns else pl.lit(None, kind).alias(name)
                for name, kind in columns.items()
            ]
            parts.append(rows.select(shown).cast(columns))  # type: ignore[arg-type]
    found = pl.concat(parts).drop_nulls("clip_id").sort("media_sha256", nulls_last=True)
    return found.unique("clip_id", keep="first", maintain_order=True).sort("clip_id")


# -------------------------------------------------------------------------------------------- following


class _Downstream:
    """All rows that were made from the rows of `start`."""

    def __init__(self, links: Links, start: Selected) -> None:
        self._links, self._start = links, start
        self.rows: Selected = dict(start)
        self.whole: set[str] = set()
        for stage in links.registry:
            self._follow(stage)
        self._beside = _of_no_stage(links, self.rows)

    def steps(self) -> list[Step]:
        made = {name: rows for name, rows in self.rows.items() if name not in self._start}
        return [*_steps(self._links, made, self.whole, self.rows), *self._beside]

    def _follow(self, stage: Stage) -> None:
        if stage.name in self._start:
            return
        parts, whole = [], False
        for name in stage.reads:
            rows = self.rows.get(name)
            on = self._links.link(stage, self._links.registry[name])
            if rows is not None and on:
                parts.append(self._links.linked(stage.table, on, rows))
            elif rows is not None or name in self.whole:
                whole = True
        if "checkpoint" in stage.table.schema and (parts or whole):
            rows = pl.concat(parts) if parts and not whole else self._links.rows(stage.table)
            parts, whole = [self._trained(rows)], False
        found = _united(stage.table.key, parts)
        if found.height:
            self.rows[stage.name] = found
        elif whole and self._links.lake.partitions(stage.name):
            self.whole.add(stage.name)

    def _trained(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows whose kept directory lists one of the clips as trained on, or has no such list."""
        if rows.is_empty():
            return rows
        clips = set(clips_of(self.rows.values())["clip_id"])
        listed = (_training_clips(self._links.lake, each) for each in rows["checkpoint"])
        return rows.filter(
            pl.Series([each is None or bool(each & clips) for each in listed], dtype=pl.Boolean)
        )


class _Upstream:
    """All rows from which the rows of `start` were made."""

    def __init__(self, links: Links, start: Selected) -> None:
        self._links, self._start = links, start
        self.rows: Selected = dict(start)
        self.whole: set[str] = set()
        for stage in reversed(list(links.registry)):
            if stage.name in self.rows:
                self._follow(stage)
            elif stage.name in self.whole:
                self.whole.update(name for name in stage.reads if name not in self.rows)

    def steps(self) -> list[Step]:
        found = {name: rows for name, rows in self.rows.items() if name not in self._start}
        whole = {name for name in self.whole - set(found) if self._links.lake.partitions(name)}
        return _steps(self._links, found, whole, {})

    def _follow(self, stage: Stage) -> None:
        rows = self.rows[stage.name]
        for name in stage.reads:
            read = self._links.registry[name]
            if name in self._start:
                continue
            on = self._links.link(stage, read)
            if not on:
                self.whole.add(name)
                continue
            found = self._links.linked(read.table, on, rows)
            if "checkpoint" in rows.columns and "clip_id" in found.columns:
                found = self._trained_on(rows["checkpoint"], found)
            if found.height:
                before = [self.rows[name]] if name in self.rows else []
                self.rows[name] = _united(read.table.key, [*before, found])

    def _trained_on(self, checkpoints: pl.Series, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows about clips that one of the kept directories lists as trained on."""
        listed = [_training_clips(self._links.lake, each) for each in checkpoints]
        if any(each is None for each in listed):
            return rows
        clips = {clip for each in listed for clip in each or ()}
        return rows.filter(pl.col("clip_id").is_in(list(clips)))


def _united(key: str, parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    some = [part for part in parts if part.height]
    return (
        pl.concat(some).unique(key, keep="first", maintain_order=True).sort(key) if some else pl.DataFrame()
    )


def _of_no_stage(links: Links, rows: Selected) -> list[Step]:
    """Rows of tables that no stage makes, such as `benchmark_releases`, that name selected rows."""
    ids: dict[str, set[Any]] = {}
    for name, some in rows.items():
        key = links.registry[name].table.key
        ids.setdefault(key, set()).update(some[key])
    steps = []
    for name in links.lake.assets():
        if name in links.registry:
            continue
        stored = stored_table(links.lake, name)
        on = [key for key in ids if stored is not None and key in stored.schema]
        if stored is None or not on:
            continue
        found = links.rows(stored, pl.any_horizontal(pl.col(key).is_in(list(ids[key])) for key in on))
        if found.height:
            steps.append(Step(name, stored.key, found, False))
    return steps


@lru_cache(maxsize=4_096)
def _listed_clips(folder: Path) -> frozenset[str] | None:
    clips = read_training_clips(folder)
    return None if clips is None else frozenset(clips["clip_id"].drop_nulls())


def _training_clips(lake: Lake, address: str | None) -> frozenset[str] | None:
    """The clips that a kept directory lists as trained on. None if it lists none."""
    if address is None or not address.startswith(KEPT):
        return None
    return _listed_clips(lake.local_directory(address))


def trained_on(links: Links, table: Table, partition: str, clips: Iterable[str]) -> list[tuple[str, str]]:
    """The checkpoints of a partition that were trained on one of the clips: id and address of each.

    A checkpoint whose folder does not list its training clips counts as trained on them.
    """
    rows = links.lake.scan(table, [partition]).select(table.key, "checkpoint").collect().drop_nulls()
    wanted, found = set(clips), []
    for name, address in rows.iter_rows():
        listed = _training_clips(links.lake, address)
        if listed is None or listed & wanted:
            found.append((name, address))
    return found


def _steps(links: Links, rows: Selected, whole: Iterable[str], around: Selected) -> list[Step]:
    """The selected stages in the order of the method."""
    wholes = set(whole)
    there = {*rows, *wholes, *around}
    steps = []
    for stage in links.registry:
        if stage.name not in rows and stage.name not in wholes:
            continue
        reads = [name for name in stage.reads if name in there]
        after = _nearest(links, [name for name in reads if name not in wholes] or reads)
        frame = rows.get(stage.name, pl.DataFrame())
        steps.append(Step(stage.name, stage.table.key, frame, stage.name not in rows, after))
    return steps


def _nearest(links: Links, names: Sequence[str]) -> tuple[str, ...]:
    """Some stages without those from which others of them are made."""
    behind = {each.name for name in names for each in links.registry.upstream([name])}
    return tuple(name for name in names if name not in behind)


def _releases_with(lake: Lake, steps: Iterable[Step]) -> list[KeptRelease]:
    """The release folders with a pair that is among the rows of some steps."""
    ids: dict[str, list[str]] = {}
    for step in steps:
        if step.key in ("pair_id", "query_id", "clip_id"):
            ids.setdefault(step.key, []).extend(step.ids)
    some = (each.with_any(ids) for each in kept_releases(lake)) if ids else ()
    return [each for each in some if each.pairs.height]
