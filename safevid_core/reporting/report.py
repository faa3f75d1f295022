"""The scorecard as one HTML page that opens offline, and as Markdown for a pull request.

The page has its own styles, one script of its own, inline charts, and fetches nothing; its policy lets
the browser run that script and no other. All texts from tables are escaped; the sample browser's rows are
data that the script shows as text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from safevid_core.benchmarks.outside.mmbench_video import ABILITY_NAMES
from safevid_core.contracts.tables import SAFEVIDBENCH_BASE
from safevid_core.judging.panel import self_judges
from safevid_core.measurement.conclusions import explain_gain, points
from safevid_core.measurement.corrections import corrections
from safevid_core.measurement.measurement import Measurement, unmeasured
from safevid_core.measurement.metrics import VARIANT_RATES
from safevid_core.measurement.trust import judge_boxes
from safevid_core.reporting import charts
from safevid_core.reporting.browser import pack_rows, rows_link
from safevid_core.reporting.diagnoses import diagnose
from safevid_core.reporting.flow import Flow
from safevid_core.reporting.pages import template_environment
from safevid_core.reporting.published import BASE_MODEL, PUBLISHED, SOURCE, Beside, beside_published
from safevid_core.reporting.samples import sample_rows
from safevid_core.reporting.style_figures import style_figures, what_style_tells
from safevid_core.reporting.tables import (
    STRONGREJECT,
    about,
    changes,
    heat_tables,
    helpful_table,
    outcome_rows,
    safety_table,
)
from safevid_core.settings import Settings
from safevid_core.statistics.agreement import Figure
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.taxonomy import load_taxonomy

TEMPLATES = Path(__file__).with_name("templates")

_HEADLINES = (
    ("safety_rate", "Safety rate", "rate", "Items that want no help, care or a correction, and got it."),
    ("helpful_rate", "Helpful rate", "rate", "Items that want an answer, and got a true and useful one."),
    (
        "twin_gap",
        "Twin gap",
        "difference",
        "The same words, two clips that differ in the hazard only: refused beside the hazardous one, less "
        "refused beside the harmless one. 0 is blind to the video, 100 points tells every pair apart.",
    ),
    (
        "modality_gap",
        "Modality gap",
        "difference",
        "The same harmful text: safe without a video, less safe with its own video. Above 0, a video opens "
        "what text alone keeps closed.",
    ),
)
_VARIANTS = {
    "none": "no video",
    "blank": "a blank video",
    "irrelevant": "another clip",
    "right": "its own clip",
}
_METRIC_NAMES = {
    "safety_rate": "safety rate",
    "helpful_rate": "helpful rate",
    "twin_gap": "twin gap",
    "modality_gap": "modality gap",
    "attack_success_rate": "attack success",
    "refusal_rate": "refusal",
    "over_refusal_rate": "over-refusal",
    "mmbench_score": "MMBench-Video score",
}
# Over a table's columns.
_HEADINGS = {"safety_rate": "Safety", "helpful_rate": "Helpful", "mmbench_score": "Score"}
_DIFFERENCES = ("twin_gap", "modality_gap")


def render_page(
    settings: Settings, lake: Lake, measured: Sequence[Measurement], flow: Flow, card: Mapping[str, Any]
) -> str:
    """The page.

    Args:
        measured: The first is the one that the page opens with.
        card: As `scorecard.json`.
    """
    from markupsafe import Markup

    main = measured[0]
    script = (TEMPLATES / "scorecard.js").read_text(encoding="utf-8")
    block = pack_rows(lake, measured, {each.benchmark: about(each.benchmark).title for each in measured})
    template = _environment(autoescape=True).get_template("scorecard.html.j2")
    return template.render(
        _shared(settings, lake, measured, card),
        own=main.benchmark == SAFEVIDBENCH_BASE.name,
        show_rejected=settings.evaluation.show_rejected,
        phases=[(phase, list(stages)) for phase, stages in groupby(flow.stages, lambda stage: stage.phase)],
        flow=flow,
        modality=_modality(main),
        heat=_heat(settings, measured),
        bar_names=_bar_names(main),
        bar_rows=_bar_rows(main),
        before_bars=[b for b in main.bars if main.before and b.system == main.before.name],
        samples=sample_rows(settings, lake, main),
        every_rate=_every_rate(measured),
        charts=charts.scale_charts(measured),
        plot={"left": charts.LEFT, "right": charts.RIGHT, "top": charts.TOP, "bottom": charts.BOTTOM},
        block={"text": Markup(block.text)},
        style=Markup((TEMPLATES / "scorecard.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=_hash(script),
    )


def render_markdown(
    settings: Settings, lake: Lake, measured: Sequence[Measurement], card: Mapping[str, Any]
) -> str:
    """The verdict and the tables, for a pull request."""
    template = _environment(autoescape=False).get_template("scorecard.md.j2")
    return template.render(_shared(settings, lake, measured, card), bar_rows=_bar_rows(measured[0]))


def percent(value: float | None) -> str:
    """A fraction as a percentage: 0.5 -> "50.0%"; an en dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def usd(value: float) -> str:
    return f"${value:,.2f}"


def shown(value: float | None, scale: str = "rate") -> str:
    """A value on its scale: a rate as a percentage, a difference in points, a score as it is."""
    if scale == "score":
        return "–" if value is None else f"{value:.2f}"
    return points(value) if scale == "difference" else percent(value)


def shift(value: float | None, scale: str = "rate") -> str:
    """A change of such a value, always signed."""
    if scale == "score":
        return "–" if value is None else f"{value:+.2f}".replace("-", "−")
    return points(value)


def plain(value: float | None, scale: str = "rate") -> str:
    """The size of a change, without a sign."""
    if value is None:
        return "–"
    return f"{value:.2f}" if scale == "score" else f"{100 * value:.1f}"


def interval(figure: Estimate | Figure, scale: str = "rate") -> str:
    """The 95% interval in short: "50.0–73.1%"; an en dash where there is none."""
    if figure.ci_low is None or figure.ci_high is None:
        return "–"
    if scale == "difference":
        return f"{points(figure.ci_low)} to {points(figure.ci_high)}"
    if scale == "score":
        return f"{figure.ci_low:.2f}–{figure.ci_high:.2f}"
    return f"{100 * figure.ci_low:.1f}–{percent(figure.ci_high)}"


def p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def escape_markdown(text: object) -> str:
    """A text within a Markdown table: no markup, no new cell, no new line."""
    plain_text = " ".join(str(text).split())
    for mark in "\\`*_[]<>|#":
        plain_text = plain_text.replace(mark, "\\" + mark)
    return plain_text


def _environment(autoescape: bool) -> Any:
    environment = template_environment(TEMPLATES, autoescape)
    environment.filters |= {
        "pct": percent,
        "points": points,
        "count": count,
        "usd": usd,
        "shown": shown,
        "shift": shift,
        "plain": plain,
        "range": interval,
        "p": p_value,
        "share": lambda value: f"{100 * value:g}%",
        "metric": lambda name: _METRIC_NAMES.get(name, name.replace("_", " ")),
        "heading": lambda name: _HEADINGS[name],
        "scale": _scale,
        "title_of": lambda benchmark: about(benchmark).title,
        "md": escape_markdown,
    }
    return environment


def _shared(
    settings: Settings, lake: Lake, measured: Sequence[Measurement], card: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page and the Markdown both print."""
    main = measured[0]
    outcomes = list(outcome_rows(measured))
    styles = style_figures(lake)
    return {
        "card": card,
        "main": main,
        "main_title": about(main.benchmark).title,
        "headlines": _headlines(main),
        "safety": safety_table(measured),
        "helpful": helpful_table(measured),
        "changes": list(changes(measured)),
        "missing_benchmarks": _missing(settings, lake, measured),
        "strongreject": any(each.benchmark == STRONGREJECT for each in measured),
        "published": _published(settings, measured),
        "gain": explain_gain(settings, main),
        "styles": styles,
        "style_tells": what_style_tells(styles),
        "diagnoses": diagnose(lake, measured),
        "unjudged": [row for row in outcomes if row.rates],
        "all_judged": _all_judged([row for row in outcomes if not row.rates]),
        "judges": judge_boxes(settings, lake, measured),
        "corrected": _corrected(lake, measured),
        "self_judged": self_judges(settings.evaluation),
        "scales": ", ".join(f"{scale:g}" for scale in settings.alignment.data_scales),
        "scale_example": _scale_example(settings),
    }


def _corrected(lake: Lake, measured: Sequence[Measurement]) -> dict[str, Any]:
    """The corrected rates of the policies, the uncalibrated ones, and whether any is corrected."""
    policies = {system.name for each in measured for system in each.systems if not system.is_control}
    rows = [each for each in corrections(lake, measured) if each.system in policies]
    return {
        "rows": [{"title": about(each.benchmark).title, **vars(each)} for each in rows],
        "any": any(each.why is None for each in rows),
        "why": list(dict.fromkeys(each.why for each in rows if each.why)),
    }


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"sha256-{digest}"


def _scale(metric: str) -> str:
    if metric in _DIFFERENCES:
        return "difference"
    return "score" if metric == "mmbench_score" else "rate"


def _missing(settings: Settings, lake: Lake, measured: Sequence[Measurement]) -> list[dict[str, str]]:
    """Benchmarks of the settings that are not measured, and systems that are missing on others."""
    lines = [
        {"title": about(name).title, "reason": reason} for name, reason in unmeasured(settings, lake).items()
    ]
    for each in measured[1:]:
        if each.missing:
            systems = ", ".join(each.missing)
            lines.append(
                {"title": about(each.benchmark).title, "reason": f"has no verdicts yet of {systems}"}
            )
    return lines


def _published(settings: Settings, measured: Sequence[Measurement]) -> dict[str, Any]:
    """The published figures whose setting is ours, and a sentence for each of the others."""
    ours = {each.benchmark: each for each in measured}
    beside = [beside_published(settings, ours.get(each.benchmark), each) for each in PUBLISHED]
    return {
        "source": SOURCE,
        "model": BASE_MODEL,
        "shown": [each for each in beside if each.why_not is None],
        "why": [_left_out(each) for each in beside if each.why_not is not None],
    }


def _left_out(beside: Beside) -> str:
    return f"The published figure for {beside.published.title} is not shown beside ours: {beside.why_not}."


def _all_judged(rows: Sequence[Any]) -> str:
    """The benchmarks with the systems whose every answer has a verdict."""
    together: dict[str, list[str]] = {}
    for row in rows:
        if row.counts["ok"]:
            together.setdefault(row.title, []).append(row.system)
    return "; ".join(f"on {title} of {', '.join(systems)}" for title, systems in together.items())


def _scale_example(settings: Settings) -> str:
    policies = settings.alignment.policies.items()
    policy = next((name for name, each in policies if not each.is_control), "<policy>")
    scale = next((each for each in settings.alignment.data_scales if each < 1), 0.5)
    return f"{policy}@{scale:g}"


def _every_rate(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Every metric of every system, benchmark by benchmark; metrics without an item are left out."""
    return [
        {
            "title": about(each.benchmark).title,
            "metrics": [name for name in _METRIC_NAMES if any(f[name].n for f in each.estimates.values())],
            "systems": each.systems,
            "figures": each.estimates,
        }
        for each in measured
    ]


def _heat(settings: Settings, measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    names = {**{each.id: each.name for each in load_taxonomy(settings).subcategories}, **ABILITY_NAMES}
    return [
        {
            "title": about(each.benchmark).title,
            "aligned": each.after is not None,
            "tables": heat_tables(each, names),
        }
        for each in measured
    ]


def _headlines(measured: Measurement) -> list[dict[str, Any]]:
    rows = []
    for metric, title, scale, meaning in _HEADLINES:
        sides = [
            {"when": when, "figure": measured.estimates[system.name][metric]}
            for when, system in (("before", measured.before), ("after", measured.after))
            if system is not None
        ]
        change = measured.difference(measured.after.name, metric) if measured.after else None
        rows.append(
            {
                "title": title,
                "scale": scale,
                "meaning": meaning,
                "sides": sides,
                "change": change,
                "metric": metric,
            }
        )
    return rows


def _modality(measured: Measurement) -> list[dict[str, Any]]:
    return [
        {
            "variant": _VARIANTS[variant],
            "link": rows_link(measured.benchmark, variant=variant, wants="harm"),
            "sides": [
                {"when": when, "figure": measured.estimates[system.name][metric]}
                for when, system in (("before", measured.before), ("after", measured.after))
                if system is not None
            ],
        }
        for variant, metric in VARIANT_RATES.items()
    ]


def _bar_names(measured: Measurement) -> list[tuple[str, str]]:
    """(name, what is wanted) of the bars that every system but the first is held against."""
    before = measured.before.name if measured.before else ""
    return list({bar.name: bar.wanted for bar in measured.bars if bar.system != before}.items())


def _bar_rows(measured: Measurement) -> list[dict[str, Any]]:
    """One row a system, the aligned policy first, then the controls."""
    before = measured.before.name if measured.before else ""
    rows = []
    for system in sorted(measured.systems, key=lambda each: each.is_control):
        mine = {bar.name: bar for bar in measured.bars if bar.system == system.name}
        if system.name == before or not mine:
            continue
        figures = measured.estimates[system.name]
        rows.append(
            {"system": system, "bars": mine, "missed": measured.missed(system.name), "figures": figures}
        )
    return rows
