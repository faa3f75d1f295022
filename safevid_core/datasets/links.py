"""Which rows of a stage were made from which rows of the stages that it reads, by the tables' columns.

No list of stages is kept: the columns that two tables share say how their rows belong together, so a stage
that is added to the registry is linked as soon as it names what it reads. :func:`link_columns` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import polars as pl

from safevid_core.contracts.tables import Table
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Stage
from safevid_core.storage.lake import Lake

# Columns that name what a row belongs to although they are no table's key.
_NAMES = ("release", "policy", "data_scale", "seed")
# Columns that name what is beside the tables (source videos, media, kept directories), or the row of a twin.
_BESIDE = ("source_id", "media_sha256", "start_s", "end_s", "checkpoint", "file_name", "mirrored_from")
_CALL = "request_key"


class Links:
    """The links between the tables of a lake, and the linked rows.

    Args:
        registry: All stages.
        lake: The lake whose rows are linked.
    """

    def __init__(self, registry: Registry, lake: Lake) -> None:
        self.registry = registry
        self.lake = lake
        self._schemas: dict[str, list[str]] = {}

    @cached_property
    def keys(self) -> frozenset[str]:
        """The columns that are the key of a table."""
        return frozenset(stage.table.key for stage in self.registry)

    def link(self, stage: Stage, read: Stage) -> list[str]:
        """The columns that link the rows of a stage with those of one that it reads; empty if none do."""
        return link_columns(stage.table, read.table, self.keys)

    def columns(self, table: Table) -> list[str]:
        """The stored columns of a table that name something: keys, model calls, releases, media."""
        if table.name not in self._schemas:
            self._schemas[table.name] = self.lake.scan(table).collect_schema().names()
        wanted = {table.key, table.parent, *self.keys, *_NAMES, *_BESIDE}
        stored = self._schemas[table.name]
        return [
            name
            for name, kind in table.schema.items()
            if name in stored and not kind.is_nested() and (name in wanted or name.endswith(_CALL))
        ]

    def rows(self, table: Table, which: pl.Expr | None = None) -> pl.DataFrame:
        """Rows of all partitions of a table, with its :meth:`columns` only.

        Args:
            which: Condition on these columns. None means all rows.
        """
        columns = self.columns(table)
        if table.key not in columns:
            return pl.DataFrame()
        scan = self.lake.scan(table).select(columns)
        return (scan if which is None else scan.filter(which)).collect()

    def linked(self, table: Table, on: Sequence[str], to: pl.DataFrame) -> pl.DataFrame:
        """Rows of a table that agree with a row of `to` in the columns `on`."""
        columns = self.columns(table)
        if table.key not in columns or not set(on) <= set(columns) & set(to.columns):
            return pl.DataFrame()
        wanted = to.lazy().select(on).drop_nulls().unique()
        return self.lake.scan(table).select(columns).join(wanted, on=list(on), how="semi").collect()


def link_columns(table: Table, read: Table, keys: Iterable[str]) -> list[str]:
    """The columns by which rows of `table` and of a table that it is made from belong together.

    The first of these that both tables have:

    1. The key of the table that is read. Example: `query_id`, between pairs and queries.
    2. All keys of any table that both have, and the parent of the table that is read. Example: `clip_id`,
       between reconciled descriptions and those of one describer.
    3. Names that no table has as its key. Example: `release`, between checkpoints and the release.

    Empty if they share none of these: then the whole partition is made from whole partitions. Example:
    `scorecard`, whose rows are figures over all scores.
    """
    shared = [name for name, kind in read.schema.items() if table.schema.get(name) == kind]
    if read.key in shared:
        return [read.key]
    ids = {*keys, read.parent}
    return [name for name in shared if name in ids] or [name for name in shared if name in _NAMES]


def stored_table(lake: Lake, name: str) -> Table | None:
    """A table that no stage makes, by its stored columns; its first one is its key. None if it is empty."""
    for partition in lake.partitions(name):
        manifest = lake.manifest(name, partition)
        if manifest is not None:
            with lake.open_data(manifest, "rows") as file:
                schema = pl.read_parquet_schema(file)
            columns = {column: kind for column, kind in schema.items() if column != "profile"}
            return Table(name, next(iter(columns)), None, pl.Schema(columns))
    return None


def call_columns(rows: pl.DataFrame) -> list[str]:
    """The columns that hold request keys of the ledger."""
    return [name for name in rows.columns if name.endswith(_CALL)]


def call_keys(frames: Iterable[pl.DataFrame]) -> list[str]:
    """The request keys that rows name, each once, in order."""
    found: dict[str, None] = {}
    for rows in frames:
        for name in call_columns(rows):
            found.update(dict.fromkeys(rows[name].drop_nulls().to_list()))
    return list(found)
