"""Estimates the calls, cost and time of a run before it starts, from its plans and the ledger's history."""

from safevid_core.estimates.budget import BUDGET, BudgetNeeded, budgets_needed, require_budget
from safevid_core.estimates.figures import CallEstimate, as_cells, as_text, estimate, total

__all__ = [
    "BUDGET",
    "BudgetNeeded",
    "CallEstimate",
    "as_cells",
    "as_text",
    "budgets_needed",
    "estimate",
    "require_budget",
    "total",
]
