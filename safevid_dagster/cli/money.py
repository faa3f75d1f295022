"""`safevid estimate` and `safevid bill`: the expected cost of a run, and the cost so far."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from safevid_dagster.cli.failures import BadRequest
from safevid_dagster.cli.opening import PartitionNames, Scenes, Stages, open_planner, partitions_of
from safevid_dagster.cli.printing import AsJson, print_json, print_table


def estimate(
    stages: Stages = None, scene: Scenes = None, partition: PartitionNames = None, as_json: AsJson = False
) -> None:
    """Estimate the calls, tokens, cost and hours of a run before it starts."""
    from safevid_core.estimates import as_cells, budgets_needed, total
    from safevid_core.estimates import estimate as estimates_of
    from safevid_core.queries.pair_allocation import expected_problems, plans_to_be_made

    planner, partitions = open_planner(), partitions_of(scene, partition)
    rows = estimates_of(planner, stages or [], partitions)
    needed = list(budgets_needed(planner, stages or [], partitions))
    short, other = expected_problems(planner.tools), plans_to_be_made(planner.tools)
    if as_json:
        sum_ = asdict(total(rows))
        print_json(
            {
                "rows": [asdict(row) for row in rows],
                "total": sum_,
                "budget_needed": needed,
                "shortage": short,
                "other_plans": other,
            }
        )
        return
    if rows:
        print_table(*as_cells(rows))
    else:
        typer.echo("These stages ask no model: 0 calls, 0.00 USD.")
    for line in needed:
        typer.echo(f"Budget needed: {line}")
    for line in short:
        typer.echo(f"Target not met: {line}")
    if other:
        typer.echo(f"Target not priced: {other}")


class By(StrEnum):
    """The groups of a bill's lines."""

    asset = "asset"
    model = "model"
    day = "day"


def bill(
    by: Annotated[
        list[By] | None, typer.Option(help="Group by this. May be given several times. Default: all.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Only the calls of the run with this id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the cost of model calls, from the ledger."""
    from contextlib import closing

    import polars as pl

    from safevid_core.models.bill import FIGURES
    from safevid_core.models.bill import bill as bill_of
    from safevid_core.models.ledger import Ledger
    from safevid_core.settings import load_settings

    with closing(Ledger(load_settings().ledger_url)) as ledger:
        table = bill_of(ledger, run=run, by=[each.value for each in by or By])
    if run is not None and table.is_empty():
        raise BadRequest(
            f"the ledger holds no call of the run {run!r}; `safevid bill` shows the calls of all runs"
        )
    sum_ = table.select(pl.col(FIGURES).sum()).to_dicts()[0]
    if as_json:
        print_json({"rows": table.to_dicts(), "total": sum_})
        return
    groups = [name for name in table.columns if name not in FIGURES]
    lines = [*table.rows(), (*["in all"][: len(groups)], *[""] * (len(groups) - 1), *sum_.values())]
    print_table(
        table.columns,
        [
            [f"{v:.4f}" if n == "cost_usd" else v for n, v in zip(table.columns, line, strict=True)]
            for line in lines
        ],
    )
