"""The gate that stops a paid run beyond pilot size if no budget is set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from safevid_core.estimates.figures import AskedModel, CallEstimate, CallSize, priced, sizes_of
from safevid_core.models.providers import GatewayError
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Gate, Stage


class BudgetNeeded(GatewayError):
    """A paid run beyond pilot size has no budget. The message gives the size of the run."""


def require_budget(planner: Planner, stage: Stage, partitions: Sequence[str]) -> None:
    """Return if a run is free, of pilot size, or has a budget.

    Example: with `models.pilot_fraction` 0.1, up to 100 of 1,000 planned calls are a pilot.

    Raises:
        BudgetNeeded: Otherwise.
    """
    settings = planner.tools.settings
    models = settings.models
    if models.budget_usd is not None or stage.name in models.asset_budgets_usd:
        return
    # Most runs ask free models only. The whole plan is sized for the paid models alone.
    paid = {
        size.model
        for size, row in _priced(planner, stage, partitions, partitions)
        if row.calls and row.cost_usd != 0
    }
    if not paid:
        return
    every = stage.partitions.names(settings)
    for size, row in _priced(planner, stage, every, partitions):
        if size.model not in paid or row.calls <= models.pilot_fraction * row.planned:
            continue
        money = "at an unknown price" if row.cost_usd is None else f"about {row.cost_usd:.2f} USD"
        raise BudgetNeeded(
            f"{stage.name}: {row.calls} calls to {row.model}, {money}, are beyond a pilot "
            f"({models.pilot_fraction:.0%} of {row.planned}); set models.budget_usd or "
            f"models.asset_budgets_usd.{stage.name}, or ask for fewer partitions"
        )


def budgets_needed(
    planner: Planner, stages: Sequence[str] = (), partitions: Sequence[str] | None = None
) -> Iterator[str]:
    """One line for each stage of a run that cannot start without a budget.

    Raises:
        RegistryError: If there is no such stage or partition.
    """
    for stage, some in planner.registry.select(stages, planner.tools.settings, partitions):
        if BUDGET in stage.gates:
            try:
                require_budget(planner, stage, some)
            except BudgetNeeded as error:
                yield str(error)


def _priced(
    planner: Planner, stage: Stage, planned: Sequence[str], now: Sequence[str]
) -> list[tuple[CallSize, CallEstimate]]:
    sizes = [
        size
        for size in sizes_of(planner, stage, planned, now)
        if size.calls and AskedModel.of(size.model).text_model is not None
    ]
    rows = priced(planner.tools.settings, sizes) if sizes else []
    return list(zip(sizes, rows, strict=True))


BUDGET = Gate("budget", "A paid run beyond pilot size needs a budget.", require_budget)
