"""What came out of a demo, in counts, rates and hashes of texts: for a comparison between versions.

`python -m tests.end_to_end.figures ROOT` prints the figures of a lake. The file
`reference_figures.json` holds those of the demo. A change that is meant to alter them replaces the file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from safevid_core.contracts.outcomes import OUTCOMES
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    OWN_STYLE_ANSWERS,
    PAIRS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    TAXONOMY_QUERIES,
    Table,
)
from safevid_core.storage.lake import Lake

REFERENCE = Path(__file__).with_name("reference_figures.json")
_ASKED = ("system", "item_id", "variant", "seed")
# Records beside the method's tables: the sides of source videos, and the versions of the release.
RECORDS = ("decided_sides", "release_versions")
# What must not change by a single row: texts, items, responses and verdicts.
TEXTS: dict[str, tuple[Table, tuple[str, ...]]] = {
    "descriptions": (DESCRIPTIONS, ("clip_id", "text")),
    "queries": (TAXONOMY_QUERIES, ("clip_id", "subcategory", "style", "query", "expectation")),
    "pairs": (PAIRS, ("clip_id", "prompt", "chosen", "rejected")),
    "own-style responses": (OWN_STYLE_ANSWERS, ("pair_id", "chosen")),
    "items": (SAFEVIDBENCH_BASE, ("item_id", "clip_id", "query")),
    "challenge items": (SAFEVIDBENCH_CHALLENGE, ("item_id", "clip_id", "query")),
    "responses": (BENCHMARK_RESPONSES, (*_ASKED, "text")),
    "verdicts": (BENCHMARK_SCORES, (*_ASKED, "expected", "success", "refused")),
}


def figures_of(root: Path) -> dict[str, Any]:
    """Counts by table and outcome, hashes of texts, and every rate of the scorecard."""
    lake = Lake(root, "pocket")
    card = json.loads((root / "reports" / "scorecard.json").read_text())
    return {
        "counts": {asset: _counts(lake, asset) for asset in lake.assets() if asset not in RECORDS},
        "texts": {name: _hash(lake, table, columns) for name, (table, columns) in TEXTS.items()},
        "rates": {
            f"{cell['system']}|{cell['benchmark']}|{cell['metric']}": cell["value"]
            for cell in card["systems"]
        },
    }


def _counts(lake: Lake, asset: str) -> dict[str, int]:
    manifests = [lake.manifest(asset, partition) for partition in lake.partitions(asset)]
    found = {"partitions": len(manifests), "rows": sum(each.rows for each in manifests if each)}
    return found | {name: sum(each.outcomes[name] for each in manifests if each) for name in OUTCOMES}


def _hash(lake: Lake, table: Table, columns: tuple[str, ...]) -> str:
    rows = sorted(lake.scan(table).select(columns).collect().iter_rows(), key=repr)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(figures_of(Path(sys.argv[1])), indent=1))
