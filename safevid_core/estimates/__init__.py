"""What a run will ask, cost and take, before it starts: from its plan and from the ledger's history.

``python -m safevid_core.estimates`` prints it for the settings in force. A paid run beyond pilot size asks
for a budget first: see :func:`require_budget`.
"""

from safevid_core.estimates.figures import (
    BudgetNeeded,
    Estimate,
    as_cells,
    as_text,
    estimate,
    require_budget,
    total,
)
from safevid_core.estimates.selection import UnknownSelection

__all__ = [
    "BudgetNeeded",
    "Estimate",
    "UnknownSelection",
    "as_cells",
    "as_text",
    "estimate",
    "require_budget",
    "total",
]
