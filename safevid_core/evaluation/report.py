"""The scorecard as one HTML page that opens offline: own styles, inline charts, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from safevid_core.evaluation.flow import Flow
from safevid_core.evaluation.measurement import Measurement
from safevid_core.evaluation.metrics import VARIANT_RATES
from safevid_core.evaluation.samples import sample_rows
from safevid_core.evaluation.statistics import Estimate
from safevid_core.lake import Lake
from safevid_core.settings import Settings
from safevid_core.taxonomy.taxonomy import load_taxonomy

TEMPLATE = Path(__file__).with_name("scorecard.html.j2")

_HEADLINES = (
    ("safety_rate", "Safety rate", "rate", "Items that want a refusal or a correction, and got it."),
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
_COLUMNS = {"principle": "By principle", "subcategory": "By subcategory", "style": "By style of the query"}


def render_report(
    settings: Settings, lake: Lake, measured: Measurement, flow: Flow, card: Mapping[str, Any]
) -> str:
    """The page. All texts from tables are escaped; harmful ones are folded."""
    from jinja2 import Environment, StrictUndefined

    # The template's name ends in .j2, so autoescape is said outright rather than by extension.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"pct": percent, "points": points, "count": count, "usd": usd}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        card=card,
        measured=measured,
        show_rejected=settings.evaluation.show_rejected,
        headlines=_headlines(measured),
        phases=[(phase, list(stages)) for phase, stages in groupby(flow.stages, lambda stage: stage.phase)],
        flow=flow,
        modality=_modality(measured),
        heat=_heat(measured),
        bar_names=_bar_names(measured),
        bar_rows=_bar_rows(measured),
        before_bars=[b for b in measured.bars if measured.before and b.system == measured.before.name],
        samples=sample_rows(settings, lake, measured),
        gain=_gain(measured),
        unjudged=_unjudged(measured),
    )


def percent(value: float | None) -> str:
    """A fraction as a percentage: 0.5 -> "50.0%"; an en dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """A difference of fractions in points, always signed: 0.302 -> "+30.2"."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def usd(value: float) -> str:
    return f"${value:,.2f}"


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
            "sides": [
                {"when": when, "figure": measured.estimates[system.name][metric]}
                for when, system in (("before", measured.before), ("after", measured.after))
                if system is not None
            ],
        }
        for variant, metric in VARIANT_RATES.items()
    ]


def _heat(measured: Measurement) -> list[dict[str, Any]]:
    """Tables of categories: each row has a cell for safety and helpfulness, before and after."""
    names = {each.id: each.name for each in load_taxonomy().subcategories}
    systems = [system.name for system in (measured.before, measured.after) if system is not None]
    cells = {(c.system, c.column, c.category, c.metric): c.estimate for c in measured.categories}
    tables = []
    for column, title in _COLUMNS.items():
        categories = sorted({c.category for c in measured.categories if c.column == column})
        rows = [
            {
                "name": names.get(category, category.replace("_", " ")),
                "cells": [
                    [cells.get((system, column, category, metric)) for system in systems]
                    for metric in ("safety_rate", "helpful_rate")
                ],
            }
            for category in categories
        ]
        tables.append({"title": title, "rows": rows})
    return tables


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


def _gain(measured: Measurement) -> list[str]:
    """What may be concluded from the arms trained on spoiled pairs, in words computed from the figures."""
    if measured.after is None:
        return ["No aligned policy has been measured yet."]
    lines = []
    for system in measured.systems:
        if not system.is_control or system.is_function:
            continue
        for metric, words in (("safety_rate", "safety rate"), ("twin_gap", "twin gap")):
            difference = next(
                (
                    c.estimate
                    for c in measured.comparisons
                    if (c.system, c.against, c.metric) == (measured.after.name, system.name, metric)
                ),
                None,
            )
            if difference is not None and difference.known:
                lines.append(_sentence(measured.after.name, system.name, words, difference))
    return lines


def _sentence(ours: str, control: str, words: str, difference: Estimate) -> str:
    low, high = difference.ci_low or 0.0, difference.ci_high or 0.0
    size = f"{points(difference.value)} points, 95% interval {points(low)} to {points(high)}"
    if low > 0:
        needs = "that part of the gain needs the right pairs"
        return f"{ours} has a higher {words} than {control} ({size}): {needs}."
    if high < 0:
        return f"{ours} has a lower {words} than {control} ({size})."
    unproven = "that gain is not shown to need the video"
    return f"{ours} and {control} cannot be told apart by {words} ({size}): {unproven}."


def _unjudged(measured: Measurement) -> Sequence[dict[str, Any]]:
    """Systems with answers that have no verdict, and the rates that count those as failures."""
    rows = []
    for system in measured.systems:
        samples = measured.samples[system.name]
        gaps = [
            samples[f"{metric}_bound"].frame.height - samples[metric].frame.height
            for metric in ("safety_rate", "helpful_rate")
        ]
        if any(gaps):
            figures = measured.estimates[system.name]
            rows.append({"system": system.name, "answers": sum(gaps), "figures": figures})
    return rows
