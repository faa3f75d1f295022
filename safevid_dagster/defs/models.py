"""The assets `model_estimate` and `model_bill`: what questions to models will cost and have cost.

Both only read, so they can be materialised at any time.
"""

from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from safevid_core.contracts.markdown import markdown_table
from safevid_core.estimates import (
    as_cells,
    budgets_needed,
    estimate,
    total,
)
from safevid_core.models.bill import FIGURES, bill
from safevid_core.stages.registry import RegistryError
from safevid_dagster.defs.resources import SafeVid

_MOST_LINES = 100


class EstimateConfig(dg.Config):
    """The run whose cost is estimated."""

    assets: list[str] = Field([], description="Assets of the run. Empty means all assets that ask a model.")
    partitions: list[str] = Field(
        [], description="Partitions of the run: scenes, or <system>|<benchmark>. Empty means all partitions."
    )


@dg.asset(group_name="models", kinds={"python"})
def model_estimate(config: EstimateConfig, safevid: SafeVid) -> dg.MaterializeResult:
    """Calls, tokens, money and hours of a run before it starts, and whether it needs a budget first.

    Open the launchpad to choose the assets and partitions of the run.
    """
    planner, partitions = safevid.planner(), config.partitions or None
    try:
        rows = estimate(planner, config.assets, partitions)
    except RegistryError as error:
        raise dg.Failure(str(error)) from None
    needed = list(budgets_needed(planner, config.assets, partitions))
    sum_ = total(rows)
    figures = {"calls": sum_.calls, "cost_usd": sum_.cost_usd, "hours": sum_.hours}
    return dg.MaterializeResult(
        metadata={
            "estimate": dg.MetadataValue.md(markdown_table(*as_cells(rows))),
            **{name: "unknown" if value is None else value for name, value in figures.items()},
            "budget_needed": dg.MetadataValue.md("\n".join(f"- {line}" for line in needed) or "no"),
        }
    )


class By(Enum):
    asset = "asset"
    model = "model"
    day = "day"


class BillConfig(dg.Config):
    """The run of the bill, and the groups of its lines."""

    run: str | None = Field(None, description="Id of a run. None means all runs.")
    by: list[By] = Field(
        [], description="One line for each asset, model or day (UTC). Empty groups by all three."
    )


@dg.asset(group_name="models", kinds={"python"})
def model_bill(config: BillConfig, safevid: SafeVid) -> dg.MaterializeResult:
    """The cost of model calls by asset, model and day, from the ledger.

    Open the launchpad to choose one run.
    """
    table = bill(safevid.gateway.ledger, run=config.run, by=[each.value for each in config.by or By])
    dearest = table.sort("cost_usd", "calls", descending=True)
    lines = [[_cell(value) for value in row] for row in dearest.head(_MOST_LINES).iter_rows()]
    metadata: dict[str, Any] = {name: table[name].sum() for name in FIGURES}
    if table.height > _MOST_LINES:
        metadata["lines_left_out"] = table.height - _MOST_LINES
    return dg.MaterializeResult(
        metadata={**metadata, "bill": dg.MetadataValue.md(markdown_table(table.columns, lines))}
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
