"""What the speed claims rest on. Each file runs alone and prints one JSON object as its last line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def print_result(
    name: str,
    unit: str,
    n: int,
    cases: Sequence[Mapping[str, Any]],
    ratio: float | None = None,
    **more: Any,
) -> None:
    """Print the last line of a benchmark.

    Args:
        unit: Unit of the figures.
        n: Size of the measurement.
        cases: What was measured: `case`, `ours`, `peers` and `ratio`.
        ratio: The ratio of the whole benchmark. None means the least ratio of the cases.
        more: Further entries.
    """
    least = min(case["ratio"] for case in cases) if ratio is None else ratio
    print(json.dumps({"name": name, "unit": unit, "n": n, **more, "cases": cases, "ratio": least}))
