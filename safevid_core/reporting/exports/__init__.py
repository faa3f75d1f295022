"""Runs in the formats of other evaluation tools, with every answer, verdict and figure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from safevid_core.reporting.exports.inspect_log import write_inspect_log
from safevid_core.reporting.exports.lmms_eval import write_lmms_eval
from safevid_core.reporting.exports.runs import EvaluationRun, read_runs
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake

Format = Literal["inspect", "lmms-eval"]
FORMATS: tuple[Format, ...] = ("inspect", "lmms-eval")


def export_runs(
    settings: Settings,
    lake: Lake,
    folder: Path,
    systems: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    format: Format = "inspect",
) -> list[Path]:
    """Write runs below a folder; returns the paths written. The texts are whole, harmful ones too.

    Args:
        systems: Defaults to every system of the settings that has verdicts.
        benchmarks: Defaults to every benchmark on which the lake holds verdicts.
        format: One inspect_ai log a system and benchmark, or lmms-eval's folders. Defaults to `inspect`.

    Raises:
        ReportError: If a named system or benchmark has no verdicts, or nothing has.
    """
    runs = read_runs(settings, lake, systems, benchmarks)
    if format == "inspect":
        return [write_inspect_log(run, folder) for run in runs]
    ordered = sorted(runs, key=_system)
    return [path for _, some in groupby(ordered, _system) for path in write_lmms_eval(list(some), folder)]


def _system(run: EvaluationRun) -> str:
    return run.system.name


__all__ = ["FORMATS", "EvaluationRun", "Format", "export_runs", "read_runs"]
