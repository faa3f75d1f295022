"""Makes the metadata of an asset in Dagster's UI: counts, a short preview and a small plot.

The preview shows the first words of texts only.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import dagster as dg

from safevid_core.contracts.markdown import markdown_table
from safevid_core.contracts.outcomes import OUTCOMES
from safevid_core.contracts.tables import Table
from safevid_core.corpus.names import ClipNames
from safevid_core.execution.local import StageReport
from safevid_core.storage.lake import Lake

PREVIEW_ROWS = 20
FIRST_WORDS = 60  # characters; the event log is permanent, so it holds no more of any text
# Columns of the preview, in this order. Rejected responses are in the lake and the scorecard only.
SHOWN = (
    "scene", "split", "principle", "subcategory", "style", "expectation", "describer", "system", "variant",
    "metric", "measure", "value", "ci_low", "ci_high", "policy", "seed", "outcome", "success", "text",
    "query", "chosen", "reason",
)  # fmt: skip
FOLDED = ("text", "query", "chosen", "reason")


def report_metadata(lake: Lake, table: Table, report: StageReport) -> dict[str, Any]:
    """Metadata of one partition."""
    manifest = report.manifest
    return {
        "dagster/row_count": manifest.rows,
        **{outcome: manifest.outcomes[outcome] for outcome in OUTCOMES},
        "recomputed": report.computed,
        "seconds": round(report.seconds, 2),
        "profile": manifest.profile,
        "content_hash": manifest.content_hash,
        **_scalars(manifest.info),
        **_warnings(manifest.info),
        "preview": dg.MetadataValue.md(preview(lake, table, manifest.partition)),
        **_curve(manifest.info),
    }


def overview(reports: Mapping[str, StageReport]) -> dict[str, Any]:
    """Metadata of a run over several partitions: the rows of each, as a plot. Empty for one partition."""
    rows = {key: report.manifest.rows for key, report in reports.items()}
    return {"rows_by_partition": dg.MetadataValue.md(plot_bars(rows))} if len(rows) > 1 else {}


def preview(lake: Lake, table: Table, partition: str) -> str:
    """The first rows as a Markdown table: ids, names of files, categories, outcome and first words."""
    rows = lake.scan(table, [partition]).head(PREVIEW_ROWS).collect()
    shown = rows.to_dicts()
    columns = [table.key, *(name for name in SHOWN if name in rows.columns and name != table.key)]
    if "clip_id" in rows.columns:
        names = ClipNames(lake, rows["clip_id"].drop_nulls())
        columns.insert(1, "file")
        shown = [{**row, "file": names(row["clip_id"], row.get("media_sha256"))} for row in shown]
    return markdown_table(columns, ((_cell(name, row[name]) for name in columns) for row in shown))


def plot_bars(values: Mapping[str, float]) -> str:
    """A horizontal bar chart as an embedded PNG of less than 100 KB."""
    figure, axes = _figure(height=0.6 + 0.17 * len(values))
    axes.barh(list(values)[::-1], list(values.values())[::-1], color="#3b6ea5")
    axes.set_xlabel("rows")
    return _embed(figure)


def plot_curves(curves: Mapping[str, list[float]]) -> str:
    """One panel for each curve over the steps of a training, three in a row, as an embedded PNG."""
    from matplotlib.figure import Figure

    rows = -(-len(curves) // 3)
    figure = Figure(figsize=(8, 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flat
    for axes in panels:
        axes.set_visible(False)
    for axes, (name, values) in zip(figure.axes, curves.items(), strict=False):
        axes.set_visible(True)
        axes.plot([100 * (place + 1) / len(values) for place in range(len(values))], values, linewidth=1)
        axes.set_title(name, fontsize=8)
        axes.set_xlabel("% of the steps", fontsize=6)
        axes.tick_params(labelsize=6)
    return _embed(figure)


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=7)
    return figure, axes


def _embed(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return f"![plot](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"


def _scalars(info: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if isinstance(value, str | int | float | bool)}


def _warnings(info: Mapping[str, Any]) -> dict[str, Any]:
    lines = info.get("warnings")
    return {"warnings": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))} if lines else {}


def _curve(info: Mapping[str, Any]) -> dict[str, Any]:
    curves = info.get("curves")
    return {"training": dg.MetadataValue.md(plot_curves(curves))} if curves else {}


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str("" if value is None else value).split()).replace("|", "¦")
    return text[:FIRST_WORDS] + "…" if name in FOLDED and len(text) > FIRST_WORDS else text
