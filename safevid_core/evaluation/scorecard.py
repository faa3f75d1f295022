"""The stage `scorecard`: figures as a table, and the report as an HTML, a JSON and a Markdown file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safevid_core.evaluation.conclusions import what_the_gain_rests_on
from safevid_core.evaluation.flow import Flow, read_flow
from safevid_core.evaluation.judges.panel import judges_itself
from safevid_core.evaluation.judges.rubric import judge_identity
from safevid_core.evaluation.judging import judge_boxes, judging_records
from safevid_core.evaluation.leaks import refuse_leaks_of_all
from safevid_core.evaluation.measurement import Comparison, Measurement, as_cells, measure_all, unmeasured
from safevid_core.evaluation.metrics import METRICS
from safevid_core.evaluation.power import smallest_difference
from safevid_core.evaluation.preference_style import preference_style, what_style_tells
from safevid_core.evaluation.published import PUBLISHED, SOURCE, Published, beside_published
from safevid_core.evaluation.report import TEMPLATES, render_markdown, render_page
from safevid_core.evaluation.statistics import Estimate
from safevid_core.evaluation.tables import about, outcome_rows
from safevid_core.lake import (
    WHOLE,
    Lake,
    StageReport,
    directory_hash,
    run_stage,
    settings_hash,
    write_atomically,
)
from safevid_core.records import BENCHMARK_SCORES, SCORECARD, StageRows, content_id
from safevid_core.settings import Settings

# Raised when the same verdicts would give another report.
_REPORT = "report/4"


def make_scorecard(settings: Settings, lake: Lake, elapsed_s: float | None = None) -> StageReport:
    """Measure all systems and write `reports/scorecard.html`, `.json` and `.md`.

    Args:
        elapsed_s: Seconds that the whole run took. Defaults to the sum over the committed stages.

    Raises:
        EvaluationError: If no benchmark of the settings is committed and holds an item, or answers are of a
            checkpoint that was trained on what a benchmark asks about.
    """
    refuse_leaks_of_all(settings, lake)
    partitions = _judged(settings, lake)
    scores = lake.scan(BENCHMARK_SCORES, partitions).select("response_id").collect()["response_id"].to_list()

    def compute() -> StageRows:
        measured = write_report(settings, lake, elapsed_s)
        rows = [
            {
                **{name: value for name, value in cell.items() if name in SCORECARD.schema},
                "metric_id": content_id(cell["system"], cell["benchmark"], cell["metric"]),
            }
            for each in measured
            for cell in as_cells(each)
        ]
        info = _headline(measured) | {"calls": 0, "cached_calls": 0, "cost_usd": 0.0}
        return StageRows(SCORECARD.frame(rows), [(each, "ok", "") for each in scores], info)

    inputs = {
        "tables": read_flow(lake).content_hash,
        "settings": settings_hash(settings.evaluation, settings.alignment, settings.seed),
        "report": content_id(_REPORT, directory_hash(TEMPLATES)),
    }
    report = run_stage(lake, SCORECARD, WHOLE, inputs, scores, compute)
    if not report.computed and not all(path.is_file() for path in report_paths(lake)):
        write_report(settings, lake, elapsed_s)
    return report


def report_paths(lake: Lake) -> tuple[Path, Path, Path]:
    """The HTML, the JSON and the Markdown file."""
    folder = lake.root / "reports"
    return folder / "scorecard.html", folder / "scorecard.json", folder / "scorecard.md"


def write_report(settings: Settings, lake: Lake, elapsed_s: float | None = None) -> list[Measurement]:
    """Measure every benchmark, and write all files, each whole."""
    measured = measure_all(settings, lake)
    flow = read_flow(lake)
    card = scorecard_json(settings, lake, measured, flow, elapsed_s)
    texts = (
        render_page(settings, lake, measured, flow, card),
        json.dumps(card, indent=1, ensure_ascii=False),
        render_markdown(settings, lake, measured, card),
    )
    for path, text in zip(report_paths(lake), texts, strict=True):
        write_atomically(path, text.encode())
    return measured


def scorecard_json(
    settings: Settings, lake: Lake, measured: Sequence[Measurement], flow: Flow, elapsed_s: float | None
) -> dict[str, Any]:
    """The scorecard as plain data; values are fractions, unknown figures null."""
    judge, main, styles = settings.evaluation.judge, measured[0], preference_style(lake)
    return {
        "profile": settings.profile,
        "git_revision": git_revision(),
        "elapsed_s": round(flow.seconds if elapsed_s is None else elapsed_s, 1),
        "rows": flow.outcomes,
        "spend": flow.spend,
        "benchmarks": [_benchmark(lake, each) for each in measured],
        "judge": {
            "model": judge.model,
            "revision": judge.revision,
            "identity": judge_identity(judge),
            "self_judging_family": judges_itself(settings.evaluation),
        },
        "judges": [box.as_dict() for box in judge_boxes(settings, lake, measured)],
        "systems": [cell for each in measured for cell in as_cells(each, METRICS)],
        "details": [cell for each in measured for cell in as_cells(each) if cell["metric"] not in METRICS],
        "comparisons": [_comparison(each) for of in measured for each in of.comparisons],
        "categories": [
            {
                "benchmark": of.benchmark,
                "system": each.system,
                "column": each.column,
                "category": each.category,
                "metric": each.metric,
                **asdict(each.estimate),
            }
            for of in measured
            for each in of.categories
        ],
        "category_changes": [
            {
                "benchmark": of.benchmark,
                "column": each.column,
                "category": each.category,
                "metric": each.metric,
                "adjusted_p": each.adjusted_p,
                **_difference(each.estimate),
            }
            for of in measured
            for each in of.category_changes
        ],
        "bars": [bar.as_dict() for bar in main.bars],
        "controls": [
            {"system": each.name, "must_miss": each.must_miss, "misses": main.missed(each.name)}
            for each in main.systems
            if each.is_control
        ],
        "gain": what_the_gain_rests_on(settings, main),
        "preference_style": {
            "told": what_style_tells(styles),
            "figures": [style.as_dict() for style in styles],
        },
        "outcomes": [each.as_dict() for each in outcome_rows(measured)],
        "published": [_published(settings, measured, each) for each in PUBLISHED],
        "missing": main.missing,
        "missing_measurements": {each.benchmark: each.missing for each in measured if each.missing},
        "missing_benchmarks": unmeasured(settings, lake),
    }


def _judged(settings: Settings, lake: Lake) -> list[str]:
    """The partitions of verdicts that the scorecard is made from."""
    missing = unmeasured(settings, lake)
    names = [name for name in settings.evaluation.benchmarks if name not in missing]
    systems = (*settings.systems, *settings.systems_at_other_scales)
    return [f"{system}|{name}" for name in names for system in systems]


def _benchmark(lake: Lake, measured: Measurement) -> dict[str, Any]:
    known = about(measured.benchmark)
    made = lake.manifest(measured.benchmark)
    info = made.info if made else {}
    panels = (each.get("panel", ()) for each in judging_records(lake, measured))
    return {
        "benchmark": measured.benchmark,
        "title": known.title,
        "measures": known.measures,
        "success": known.success,
        "headline_judge": known.judge,
        "panel": list(dict.fromkeys(name for panel in panels for name in panel)),
        "revision": info.get("revision"),
        "warning": info.get("warning") or None,
        "release": measured.release,
        "items": measured.items.height,
        "videos": measured.items["clip_id"].drop_nulls().n_unique(),
        "clusters": len(set(measured.clusters.values())),
    }


def _comparison(each: Comparison) -> dict[str, Any]:
    return {
        "system": each.system,
        "against": each.against,
        "benchmark": each.benchmark,
        "metric": each.metric,
        **_difference(each.estimate),
        "smallest_difference": smallest_difference(each.estimate),
    }


def _difference(figure: Estimate) -> dict[str, Any]:
    return {
        "n": figure.n,
        "clusters": figure.clusters,
        "difference": figure.value,
        "ci_low": figure.ci_low,
        "ci_high": figure.ci_high,
        "p_value": figure.p_value,
    }


def _published(settings: Settings, measured: Sequence[Measurement], published: Published) -> dict[str, Any]:
    ours = next((each for each in measured if each.benchmark == published.benchmark), None)
    beside = beside_published(settings, ours, published)
    return {
        "source": SOURCE,
        "figure": published.title,
        "benchmark": published.benchmark,
        "before": published.before or None,
        "after": published.after or None,
        "change": published.change or None,
        "comparable": beside.why_not is None,
        "why_not": beside.why_not,
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


def _headline(measured: Sequence[Measurement]) -> dict[str, Any]:
    """The few figures for the stage's metadata."""
    main = measured[0]
    found: dict[str, Any] = {
        "systems": len(main.systems),
        "missing_systems": len(main.missing),
        "benchmarks": len(measured),
    }
    for system in (main.before, main.after):
        if system is not None:
            for metric in METRICS:
                value = main.estimates[system.name][metric].value
                if value is not None:
                    found[f"{system.name} {metric}"] = round(value, 4)
    found["bars_met"] = sum(bar.met for bar in main.bars if main.after and bar.system == main.after.name)
    return found
