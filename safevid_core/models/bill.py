"""What model calls cost, per asset, model and day: read from the ledger alone.

``python -m safevid_core.models.bill`` prints it for the ledger of the settings in force.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import polars as pl
from sqlalchemy import BigInteger, case, cast, func, select

from safevid_core.models.ledger import CALLS, Ledger, LedgerError
from safevid_core.models.providers import PROVIDER_REFUSAL
from safevid_core.settings import SettingsError, load_settings

BY = ("asset", "model", "day")
FIGURES = ("calls", "usable", "provider_refusals", "tokens_in", "tokens_out", "cost_usd")
_DAY_S = 86_400


def bill(ledger: Ledger, *, run: str | None = None, by: Sequence[str] = BY) -> pl.DataFrame:
    """Calls, tokens and USD: every paid call once, those that serve as no answer included.

    Args:
        run: Only what this run paid. Defaults to all runs.
        by: Which of `asset`, `model` and `day` (UTC) to tell apart. Defaults to all three.

    Returns:
        One row a group, sorted: the columns of `by`, then those of `FIGURES`.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the bill of the ledger in force; 0 if it could be read."""
    parser = argparse.ArgumentParser(
        prog="python -m safevid_core.models.bill", description="What model calls cost, from the ledger."
    )
    parser.add_argument("--run", help="only this run, by its id (Dagster's run id)")
    parser.add_argument(
        "--by", nargs="*", choices=BY, default=BY, help="what to tell apart (default: all three)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    chosen = parser.parse_args(arguments)
    try:
        table = bill(Ledger(load_settings().ledger_url), run=chosen.run, by=chosen.by)
    except (LedgerError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.json:
        print(table.write_ndjson(), end="")
        return 0
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True,
        fmt_str_lengths=60, tbl_width_chars=160, float_precision=4,
    ):  # fmt: skip
        print(table)
        if table.height > 1:
            print("in all:")
            print(table.select(pl.col(FIGURES).sum()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
