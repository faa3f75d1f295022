"""``python -m safevid_core.estimates``: what a run would ask, cost and take."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from safevid_core.estimates.figures import BudgetNeeded, as_text, estimate, require_budget
from safevid_core.estimates.selection import UnknownSelection
from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import Lake, LakeError
from safevid_core.models.ledger import LedgerError
from safevid_core.models.providers import GatewayError
from safevid_core.settings import SettingsError, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a run would ask, cost and take; 3 if it needs a budget first."""
    parser = argparse.ArgumentParser(
        prog="python -m safevid_core.estimates",
        description="Calls, tokens, money and hours of a run before it starts.",
    )
    parser.add_argument("assets", nargs="*", help="assets to estimate (default: all that ask a model)")
    parser.add_argument("--partitions", nargs="*", help="scenes, or <system>|<benchmark> (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        lake = Lake(settings.root, settings.profile)
        rows = estimate(settings, lake, assets=chosen.assets or None, partitions=chosen.partitions)
        print("\n".join(json.dumps(asdict(row)) for row in rows) if chosen.json else as_text(rows))
        for asset in dict.fromkeys(row.asset for row in rows):
            require_budget(settings, lake, asset, chosen.partitions)
    except BudgetNeeded as error:
        print(error, file=sys.stderr)
        return 3
    except (
        EvaluationError, GatewayError, LakeError, LedgerError, SettingsError, UnknownSelection,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
