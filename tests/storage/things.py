"""A small table for the tests of the lake; imports nothing of pytest, so that a process starts fast."""

from __future__ import annotations

import polars as pl

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table

TABLE = Table(
    "things", "thing_id", "source", pl.Schema({"thing_id": pl.String, "source": pl.String, "n": pl.Int64})
)


def with_places(table: Table) -> Table:
    """An earlier version of a table: it has a column `path`, which no hash counts."""
    schema = pl.Schema({**table.schema, "path": pl.String})
    return Table(table.name, table.key, table.parent, schema, volatile=("path",))


def stage(*ids: str, dropped: str | None = None) -> StageRows:
    rows = TABLE.frame({"thing_id": f"t-{i}", "source": i, "n": k} for k, i in enumerate(ids))
    outcomes = [(i, "ok", "") for i in ids] + ([(dropped, "filtered", "too short")] if dropped else [])
    return StageRows(rows, outcomes)
