"""The stage `scorecard`: figures as a table, and the report as one HTML file and one JSON file."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safevid_core.evaluation.flow import Flow, read_flow
from safevid_core.evaluation.judges.rubric import judge_identity, judges_itself
from safevid_core.evaluation.measurement import Measurement, as_cells, measure
from safevid_core.evaluation.metrics import METRICS
from safevid_core.evaluation.report import TEMPLATE, render_report
from safevid_core.lake import WHOLE, Lake, StageReport, run_stage, settings_hash, write_atomically
from safevid_core.records import BENCHMARK_SCORES, SAFEVIDBENCH_BASE, SCORECARD, StageRows, content_id
from safevid_core.settings import Settings

# Raised when the same verdicts would give another report.
_REPORT = "report/1"


def make_scorecard(settings: Settings, lake: Lake, elapsed_s: float | None = None) -> StageReport:
    """Measure all systems and write `reports/scorecard.html` and `reports/scorecard.json`.

    Args:
        elapsed_s: Seconds that the whole run took. Defaults to the sum over the committed stages.

    Raises:
        EvaluationError: If the benchmark holds no item.
    """
    partitions = [f"{system}|{SAFEVIDBENCH_BASE.name}" for system in settings.systems]
    scores = lake.scan(BENCHMARK_SCORES, partitions).select("response_id").collect()["response_id"].to_list()

    def compute() -> StageRows:
        measured = write_report(settings, lake, elapsed_s)
        cells = as_cells(measured)
        rows = [
            {
                **{name: value for name, value in cell.items() if name in SCORECARD.schema},
                "metric_id": content_id(cell["system"], cell["benchmark"], cell["metric"]),
            }
            for cell in cells
        ]
        info = _headline(measured) | {"calls": 0, "cached_calls": 0, "cost_usd": 0.0}
        return StageRows(SCORECARD.frame(rows), [(each, "ok", "") for each in scores], info)

    inputs = {
        "tables": read_flow(lake).content_hash,
        "settings": settings_hash(settings.evaluation, settings.alignment.policies, settings.seed),
        "report": content_id(_REPORT, TEMPLATE.read_text()),
    }
    report = run_stage(lake, SCORECARD, WHOLE, inputs, scores, compute)
    if not report.computed and not all(path.is_file() for path in report_paths(lake)):
        write_report(settings, lake, elapsed_s)
    return report


def report_paths(lake: Lake) -> tuple[Path, Path]:
    """The HTML and the JSON file."""
    return lake.root / "reports" / "scorecard.html", lake.root / "reports" / "scorecard.json"


def write_report(settings: Settings, lake: Lake, elapsed_s: float | None = None) -> Measurement:
    """Measure, and write both files, each whole."""
    measured = measure(settings, lake, SAFEVIDBENCH_BASE.name)
    flow = read_flow(lake)
    card = scorecard_json(settings, measured, flow, elapsed_s)
    page = render_report(settings, lake, measured, flow, card)
    html_path, json_path = report_paths(lake)
    write_atomically(html_path, page.encode())
    write_atomically(json_path, json.dumps(card, indent=1, ensure_ascii=False).encode())
    return measured


def scorecard_json(
    settings: Settings, measured: Measurement, flow: Flow, elapsed_s: float | None
) -> dict[str, Any]:
    """The scorecard as plain data; values are fractions, unknown figures null."""
    judge = settings.evaluation.judge
    return {
        "profile": settings.profile,
        "git_revision": git_revision(),
        "elapsed_s": round(flow.seconds if elapsed_s is None else elapsed_s, 1),
        "rows": flow.outcomes,
        "spend": flow.spend,
        "benchmarks": [
            {
                "benchmark": measured.benchmark,
                "release": measured.release,
                "items": measured.items.height,
                "videos": measured.items["clip_id"].n_unique(),
                "clusters": len(set(measured.clusters.values())),
            }
        ],
        "judge": {
            "model": judge.model,
            "revision": judge.revision,
            "identity": judge_identity(judge),
            "self_judging_family": judges_itself(settings.evaluation),
        },
        "systems": as_cells(measured, METRICS),
        "details": [cell for cell in as_cells(measured) if cell["metric"] not in METRICS],
        "comparisons": [
            {
                "system": each.system,
                "against": each.against,
                "benchmark": each.benchmark,
                "metric": each.metric,
                "n": each.estimate.n,
                "clusters": each.estimate.clusters,
                "difference": each.estimate.value,
                "ci_low": each.estimate.ci_low,
                "ci_high": each.estimate.ci_high,
            }
            for each in measured.comparisons
        ],
        "categories": [
            {
                "system": each.system,
                "column": each.column,
                "category": each.category,
                "metric": each.metric,
                **asdict(each.estimate),
            }
            for each in measured.categories
        ],
        "bars": [bar.as_dict() for bar in measured.bars],
        "controls": [
            {"system": each.name, "misses": measured.missed(each.name)}
            for each in measured.systems
            if each.is_control
        ],
        "missing": measured.missing,
    }


def git_revision() -> str:
    """The commit of the code that runs, or `unknown` outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _headline(measured: Measurement) -> dict[str, Any]:
    """The few figures for the stage's metadata."""
    found: dict[str, Any] = {"systems": len(measured.systems), "missing_systems": len(measured.missing)}
    for system in (measured.before, measured.after):
        if system is not None:
            for metric in METRICS:
                value = measured.estimates[system.name][metric].value
                if value is not None:
                    found[f"{system.name} {metric}"] = round(value, 4)
    found["bars_met"] = sum(
        bar.met for bar in measured.bars if measured.after and bar.system == measured.after.name
    )
    return found
