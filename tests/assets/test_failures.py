"""What a run of Dagster says of partitions that failed."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError
from safevid_core.execution.local import RunReport
from safevid_dagster.defs.resources import _failed


def test_many_reasons_are_cut_short() -> None:
    failures: dict[str, Exception] = {f"p{n}": SafeVidError(f"none of {n} inputs") for n in range(29)}
    line = _failed(RunReport(failures=failures), 30)
    assert line.startswith("29 of 30 partitions failed: p0: none of 0 inputs; p1: ")
    assert line.endswith("; and 26 more, which `safevid status --partitions` lists")
    assert len(line) < 250
    assert "more" not in _failed(RunReport(failures=dict(list(failures.items())[:3])), 30)
