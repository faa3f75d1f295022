"""The bill: cost of model calls by asset, model and day, read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from sqlalchemy import BigInteger, case, cast, func, select

from safevid_core.models.ledger import CALLS, Ledger
from safevid_core.models.providers import PROVIDER_REFUSAL

BY = ("asset", "model", "day")
FIGURES = ("calls", "usable", "provider_refusals", "tokens_in", "tokens_out", "cost_usd")
_DAY_S = 86_400


def bill(ledger: Ledger, *, run: str | None = None, by: Sequence[str] = BY) -> pl.DataFrame:
    """Return calls, tokens and USD. Each paid call counts once, also one without a usable answer.

    Args:
        ledger: The ledger.
        run: Only calls of this run. None means all runs.
        by: Columns to group by, of `asset`, `model` and `day` (UTC). Defaults to all three.

    Returns:
        One row for each group, sorted: the columns of `by`, then those of `FIGURES`.

    Raises:
        LedgerError: If the ledger cannot be read.
    """
    day = cast(CALLS.c.created_at, BigInteger) // _DAY_S
    statement = select(
        CALLS.c.asset,
        CALLS.c.model,
        day,
        func.count(),
        func.sum(case((CALLS.c.outcome == "ok", 1), else_=0)),
        func.sum(case((CALLS.c.reason == PROVIDER_REFUSAL, 1), else_=0)),
        func.sum(CALLS.c.tokens_in),
        func.sum(CALLS.c.tokens_out),
        func.sum(CALLS.c.cost_usd),
    ).group_by(CALLS.c.asset, CALLS.c.model, day)
    if run is not None:
        statement = statement.where(CALLS.c.run == run)
    with ledger.reading() as connection:
        rows = [
            (asset, model, int(day), *map(int, counts), float(usd))
            for asset, model, day, *counts, usd in connection.execute(statement)
        ]
    columns = {"asset": pl.String, "model": pl.String, "day": pl.Int32}
    figures = {name: pl.Float64 if name == "cost_usd" else pl.Int64 for name in FIGURES}
    every = pl.DataFrame(rows, schema={**columns, **figures}, orient="row")
    every = every.with_columns(pl.col("day").cast(pl.Date))
    keep = [name for name in BY if name in by]
    if not keep:
        return every.select(pl.col(FIGURES).sum())
    return every.group_by(keep).agg(pl.col(FIGURES).sum()).sort(keep)
