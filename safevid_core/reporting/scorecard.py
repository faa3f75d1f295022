"""The stage `scorecard`: figures as a table, and the report as an HTML, a JSON and a Markdown file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_SCORES, SCORECARD
from safevid_core.judging.judges.rubric import judge_identity
from safevid_core.judging.panel import judges_itself
from safevid_core.measurement.conclusions import explain_gain
from safevid_core.measurement.corrections import corrections
from safevid_core.measurement.measurement import (
    Category,
    CategoryChange,
    Comparison,
    Measurement,
    as_cells,
    measure_all,
    unmeasured,
)
from safevid_core.measurement.metrics import METRICS
from safevid_core.measurement.trust import judge_boxes, judging_records
from safevid_core.models.provenance import notices
from safevid_core.reporting.flow import LEFT_OUT, Flow, read_flow
from safevid_core.reporting.published import PUBLISHED, SOURCE, Published, beside_published
from safevid_core.reporting.report import TEMPLATES, render_markdown, render_page
from safevid_core.reporting.style_figures import style_figures, what_style_tells
from safevid_core.reporting.tables import about, outcome_rows
from safevid_core.settings import Settings
from safevid_core.stages.stage import Needs, Plan, Stage, Tools
from safevid_core.statistics.intervals import Estimate
from safevid_core.statistics.power import smallest_difference
from safevid_core.storage.lake import (
    Lake,
    directory_hash,
    settings_hash,
)
from safevid_core.systems.leaks import refuse_leaks_of_all

# Raised when the same verdicts would give another report.
_REPORT = "report/5"
REPORTS = ("scorecard.html", "scorecard.json", "scorecard.md")  # of the lake


# Settings that say where files lie. What the files hold is in the tables.
_PLACES: dict[str, Any] = {"files": True, "labels": True, "promotion": {"sign_off"}}


def plan_scorecard(tools: Tools, partition: str) -> Plan:
    """Plan to measure all systems and write `reports/scorecard.html`, `.json` and `.md`.

    Raises:
        MeasurementError: If no benchmark of the settings is committed and holds an item.
        ResponseError: If answers are of a checkpoint that was trained on what a benchmark asks about.
    """
    settings, lake = tools.settings, tools.lake
    refuse_leaks_of_all(settings, lake)
    partitions = _judged(settings, lake)
    scores = lake.scan(BENCHMARK_SCORES, partitions).select("response_id").collect()["response_id"].to_list()
    flow = read_flow(lake, tools.registry)

    def make(response_ids: Sequence[str]) -> StageRows:
        measured = write_report(settings, lake, flow)
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

    def on_fresh() -> None:
        if not all(map(lake.has_report, REPORTS)):
            write_report(settings, lake, flow)

    inputs = {
        "tables": flow.content_hash,
        "settings": settings_hash(
            settings.evaluation.model_dump(mode="json", exclude=_PLACES),
            settings.alignment.model_dump(mode="json", exclude={"base": {"path"}, "accelerate_config": True}),
            settings.seed,
        ),
        "report": content_id(_REPORT, directory_hash(TEMPLATES)),
    }
    return Plan(inputs, scores, make, on_fresh=on_fresh)


def stage_over(others: Sequence[Stage]) -> Stage:
    """The stage `scorecard`, which tells of the flow of rows through all other stages.

    Args:
        others: Every stage that is not made from the scorecard.
    """
    read = [stage.name for stage in others if stage.name not in LEFT_OUT]
    return Stage(
        SCORECARD,
        "evaluation",
        "Rates with intervals before and after, the controls, and the report as HTML and JSON.",
        plan_scorecard,
        reads=(*read,),
        optional=frozenset(read),
        writes=lambda settings: [settings.root / "reports" / name for name in REPORTS],
        needs=Needs(("python",)),
    )


def write_report(settings: Settings, lake: Lake, flow: Flow) -> list[Measurement]:
    """Measure every benchmark, and write all files, each whole."""
    measured = measure_all(settings, lake)
    card = scorecard_json(settings, lake, measured, flow)
    texts = (
        render_page(settings, lake, measured, flow, card),
        json.dumps(card, indent=1, ensure_ascii=False),
        render_markdown(settings, lake, measured, card),
    )
    for name, text in zip(REPORTS, texts, strict=True):
        lake.write_report(name, text.encode())
    return measured


def scorecard_json(
    settings: Settings, lake: Lake, measured: Sequence[Measurement], flow: Flow
) -> dict[str, Any]:
    """The scorecard as plain data; values are fractions, unknown figures null."""
    judge, main, styles = settings.evaluation.judge, measured[0], style_figures(lake)
    return {
        "profile": settings.profile,
        "notices": notices(settings),
        "git_revision": git_revision(),
        "elapsed_s": round(flow.seconds, 1),
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
        "corrected": [each.as_dict() for each in corrections(lake, measured)],
        "systems": [cell for each in measured for cell in as_cells(each, METRICS)],
        "details": [cell for each in measured for cell in as_cells(each) if cell["metric"] not in METRICS],
        "comparisons": [_comparison(each) for of in measured for each in of.comparisons],
        "categories": [
            {**_category(of.benchmark, each), "system": each.system, **asdict(each.estimate)}
            for of in measured
            for each in of.categories
        ],
        "category_changes": [
            {
                **_category(of.benchmark, each),
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
        "gain": explain_gain(settings, main),
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


def _category(benchmark: str, each: Category | CategoryChange) -> dict[str, Any]:
    return {"benchmark": benchmark, "column": each.column, "category": each.category, "metric": each.metric}


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


def git_revision(file: Path = Path(__file__)) -> str:
    """The commit of the checkout that tracks `file`, or `unknown`.

    An installed package is `unknown`, also if its environment lies inside the checkout of another project.

    Args:
        file: Defaults to this module.
    """
    try:
        for command in (["ls-files", "--error-unmatch", file.name], ["rev-parse", "HEAD"]):
            done = subprocess.run(
                ["git", *command], cwd=file.parent, capture_output=True, text=True, timeout=10, check=True
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
