"""The rows of all tables that are about some clips, and the model calls that only such rows rest on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import BENCHMARK_RELEASES, DECIDED_SIDES, RELEASE, WITHDRAWN, Table
from safevid_core.datasets.links import Links, call_columns, call_keys, stored_table
from safevid_core.datasets.withdrawal_intent import Part
from safevid_core.models.ledger import Ledger
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import Lake
from safevid_core.storage.removal import holds_words

# Tables of ids alone: who is on which side, and what was withdrawn. They stay.
_IDS_ALONE = (DECIDED_SIDES.name, WITHDRAWN.name)
# Releases are sealed, and destroyed by a purge alone.
RELEASES = (RELEASE.name, BENCHMARK_RELEASES.name)
# Columns that name the row of another clip from which a text was taken over, with the key that they hold.
_TAKEN_FROM = {"mirrored_from": "plan_id"}


@dataclass
class Found:
    """Rows about some clips.

    Attributes:
        ids: Key column -> values, of the clips and of all rows about them.
        rows: Rows to be removed, by partition.
        releases: Rows of releases, by partition.
        blank: Partitions of figures whose texts name such rows.
        calls: Request keys that the rows name.
    """

    ids: dict[str, set[str]]
    rows: list[Part] = field(default_factory=list)
    releases: list[Part] = field(default_factory=list)
    blank: list[Part] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)

    def words(self) -> list[str]:
        keys = [values for name, values in self.ids.items() if name != "media_sha256"]
        return sorted(set().union(*keys)) if keys else []


def find_rows(links: Links, clips: Collection[str], media: Collection[str]) -> Found:
    """All rows about some clips: rows that name a clip, and rows that name such a row by its key.

    Args:
        clips: Clip ids.
        media: Hashes of files that no other clip is in. A response to one of them is about it too.
    """
    found = Found({"clip_id": set(clips), "media_sha256": set(media)})
    tables = list(_tables(links))
    for table in tables:
        _look_in(links, table, found)
    for table in tables:
        if table.parent is None and table.name not in (*_IDS_ALONE, *RELEASES):
            taken = {part.partition for part in found.rows if part.asset == table.name}
            for partition in sorted(set(links.lake.partitions(table.name)) - taken):
                if holds_words(links.lake, table, partition, found.words()):
                    found.blank.append(Part(table.name, partition))
    return found


def as_stored(lake: Lake, table: Table) -> Table:
    """A table with the columns that it is stored with, which an earlier version may have written."""
    stored = stored_table(lake, table.name)
    return table if stored is None else replace(table, schema=stored.schema)


def _tables(links: Links) -> Iterator[Table]:
    """Every table of the lake as it is stored: those of the stages in their order, then all others."""
    for stage in links.registry:
        if links.lake.partitions(stage.name):
            yield as_stored(links.lake, stage.table)
    for name in links.lake.assets():
        stored = None if name in links.registry else stored_table(links.lake, name)
        if stored is not None:
            yield BENCHMARK_RELEASES if name == BENCHMARK_RELEASES.name else stored


def _look_in(links: Links, table: Table, found: Found) -> None:
    if table.name in _IDS_ALONE:
        return
    for _ in range(2):  # a plan that is mirrored from one of the same table is found at the second look
        which = _about(table, found.ids, links.keys)
        if which is None:
            return
        rows = links.rows(table, which)
        if rows.is_empty() or set(rows[table.key]) <= found.ids.get(table.key, set()):
            break
        found.ids.setdefault(table.key, set()).update(rows[table.key])
    named = set(found.words())
    is_release = table.name in RELEASES
    for partition in _partitions_with(links, table, found, named):
        part = _part(links.lake, table, partition, found, links.keys, [] if is_release else named)
        if part.ids or part.inputs:
            (found.releases if is_release else found.rows).append(part)
    if rows.height and not is_release:
        found.calls |= set(call_keys([rows]))


def _about(table: Table, ids: dict[str, set[str]], keys: Collection[str]) -> pl.Expr | None:
    """The condition that a row is about the clips; None if the table has no column that could tell."""
    some = [
        pl.col(name).is_in(list(values))
        for name, values in ids.items()
        if values and table.schema.get(name) == pl.String and (name in keys or name == "media_sha256")
    ]
    some += [
        pl.col(name).is_in(list(ids[key]))
        for name, key in _TAKEN_FROM.items()
        if name in table.schema and ids.get(key)
    ]
    return pl.any_horizontal(some).fill_null(False) if some else None


def _partitions_with(links: Links, table: Table, found: Found, named: set[str]) -> list[str]:
    """The partitions that may hold such rows or inputs; all of them if the table holds any."""
    lake = links.lake
    which = _about(table, found.ids, links.keys)
    if which is not None and not links.rows(table, which).is_empty():
        return lake.partitions(table.name)
    if table.parent is None or table.name in RELEASES:
        return []
    inputs = lake.outcomes(table.name)["input_id"]
    return lake.partitions(table.name) if inputs.is_in(list(named)).any() else []


def _part(
    lake: Lake, table: Table, partition: str, found: Found, keys: Collection[str], named: Collection[str]
) -> Part:
    ids, inputs = pl.Series(dtype=pl.String), pl.Series(dtype=pl.String)
    which = _about(table, found.ids, keys)
    if which is not None:
        rows = lake.scan(table, [partition]).filter(which).select(table.key).collect()
        ids = rows[table.key].cast(pl.String)
    if table.parent is not None and named:
        outcomes = lake.outcomes(table.name, partition)["input_id"]
        inputs = outcomes.filter(outcomes.is_in(list(named)))
    return Part(table.name, partition, ids.to_list(), inputs.to_list())


# ------------------------------------------------------------------------------------------------- calls


def shared_keys(links: Links, found: Found, keys: Collection[str]) -> set[str]:
    """Those of the request keys that rows about other clips name too."""
    shared: set[str] = set()
    wanted = list(keys)
    for table in _tables(links):
        columns = [name for name in links.columns(table) if name.endswith("request_key")]
        if not columns:
            continue
        rows = links.rows(table, pl.any_horizontal(pl.col(name).is_in(wanted) for name in columns))
        rows = (
            rows.filter(~pl.col(table.key).is_in(list(found.ids.get(table.key, ())))) if rows.height else rows
        )
        if rows.height:
            shared.update(call_keys([rows.select(table.key, *call_columns(rows))]))
    return shared & set(keys)


def asked_about(tools: Tools, found: Found) -> tuple[set[str], list[str]]:
    """The request keys of all questions about the clips, by the plans of the stages that ask.

    A row names the calls that it was made from. Others, such as candidates that were not chosen and verdicts
    of single judges, are found here: a partition is planned as it is and without the rows about the clips,
    and the questions of the first plan that the second one lacks are theirs.

    Returns:
        The keys, and a note for each partition that cannot be planned.
    """
    without = replace(tools, lake=_Without(tools.lake, found.ids))
    keys: set[str] = set()
    notes: list[str] = []
    with closing(Ledger(tools.settings.ledger_url)) as ledger:
        for part in found.rows:
            if part.asset not in tools.registry or not tools.registry[part.asset].asks:
                continue
            stage = tools.registry[part.asset]
            try:
                before = _questions(stage.plan(tools, part.partition), ledger)
                keys |= before - _questions(stage.plan(without, part.partition), ledger)
            except Exception as error:  # a stage of anybody; what it cannot plan must not keep a clip here
                line = (str(error).splitlines() or [type(error).__name__])[0]
                notes.append(
                    f"{part.asset}[{part.partition}] cannot be planned ({line}); texts of its calls that no "
                    "row names stay in the ledger"
                )
    return keys, notes


def _questions(plan: Plan, ledger: Ledger) -> set[str]:
    keys: set[str] = set()
    for questions in plan.questions:
        if questions.keys is None:
            continue
        known = set(questions.keys())
        keys |= known
        if questions.follow is not None:
            answered = {key for key, call in ledger.answers(known).items() if call.outcome == "ok"}
            keys.update(questions.follow(answered)[0])
    return keys


class _Without(Lake):
    """A lake as it would be without some rows, for planning alone."""

    def __init__(self, lake: Lake, ids: dict[str, set[str]]) -> None:
        self.__dict__.update(lake.__dict__)
        self._gone = {
            name: sorted(values) for name, values in ids.items() if values and name != "media_sha256"
        }

    def scan(self, table: Table, partitions: Sequence[str] | None = None) -> pl.LazyFrame:
        rows = super().scan(table, partitions)
        for name, values in self._gone.items():
            if table.schema.get(name) == pl.String:
                rows = rows.filter(~pl.col(name).is_in(values).fill_null(False))
        return rows

    def commit(self, *arguments: Any, **more: Any) -> Any:
        raise SafeVidError("nothing is made while a withdrawal is planned")
