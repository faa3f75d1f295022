"""The picture of docs/architecture.md: every stage, and which stages it is made from.

Run with ``python -m docs.stage_picture``. It is drawn from the registry of the default settings.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from safevid_core.pipeline import build_registry
from safevid_core.settings import load_settings
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Stage

OUT = Path(__file__).resolve().parent / "pictures" / "stages.svg"
COLOURS = {
    "corpus": "#dbe7f5", "descriptions": "#e2f1e4", "queries": "#fdf0d5", "preferences": "#fbe3d6",
    "alignment": "#f3d9e6", "benchmarks": "#e9e9e9", "evaluation": "#e6e0f3", "audits": "#f7f7d9",
}  # fmt: skip
WIDTH, HEIGHT = 2.9, 0.55
ALL_IN_ONE = "scorecard"  # it reads every stage before it


def shown_reads(registry: Registry) -> dict[str, list[str]]:
    """Stage -> those of its reads from which no other of its reads is made; none for the scorecard."""
    found = {stage.name: registry.nearest(stage) for stage in registry}
    found[ALL_IN_ONE] = ["benchmark_scores"]
    # Only a rendered edition of a benchmark comes from `pocket_clips`.
    found |= {stage.name: [] for stage in registry if stage.group == "benchmarks"}
    return found


def places(registry: Registry, reads: dict[str, list[str]]) -> dict[str, tuple[float, float]]:
    """Stage -> its box: a row for each step from the sources, in a row by the order of the method.

    Benchmarks that others made stand just above what reads them.
    """
    row: dict[str, int] = {}
    for stage in registry:
        row[stage.name] = 1 + max((row[read] for read in reads[stage.name]), default=-1)
    for stage in registry:
        if stage.group == "benchmarks":
            readers = [row[other.name] for other in registry if stage.name in reads[other.name]]
            row[stage.name] = min(readers, default=row["benchmark_responses"]) - 1
    rows: dict[int, list[Stage]] = defaultdict(list)
    for stage in registry:
        rows[row[stage.name]].append(stage)
    widest = max(map(len, rows.values()))
    return {
        stage.name: (3.3 * (place + (widest - len(stages)) / 2), -1.15 * step)
        for step, stages in rows.items()
        for place, stage in enumerate(stages)
    }


def draw(registry: Registry) -> Figure:
    """The stages as boxes, coloured by group; an arrow leads from each stage to those made from it."""
    reads = shown_reads(registry)
    at = places(registry, reads)
    across, down = (max(abs(place[axis]) for place in at.values()) for axis in (0, 1))
    figure = Figure(figsize=(0.5 * (across + WIDTH), 0.5 * (down + 2)))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-0.3, across + WIDTH + 0.3)
    axes.set_ylim(-down - 0.3, 1.6)
    for stage in registry:
        x, y = at[stage.name]
        for read in reads[stage.name]:
            axes.annotate(
                "",
                (x + WIDTH / 2, y + HEIGHT),
                (at[read][0] + WIDTH / 2, at[read][1]),
                arrowprops={"arrowstyle": "->", "color": "#999999", "lw": 0.6, "shrinkA": 2, "shrinkB": 2},
                zorder=0,
            )
        shape = "round,pad=0.04"
        colour = COLOURS[stage.group]
        axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, shape, facecolor=colour, edgecolor="#666666"))
        axes.text(x + WIDTH / 2, y + 0.36, stage.name, ha="center", va="center", fontsize=6)
        by = " x ".join(stage.partitions.axes) or "one table"
        axes.text(x + WIDTH / 2, y + 0.13, by, ha="center", va="center", fontsize=4.8, color="#555555")
    for number, (group, colour) in enumerate(COLOURS.items()):
        frame = {"facecolor": colour, "edgecolor": "#666666"}
        axes.text(2.6 * number, 1.2, group, fontsize=7, bbox=frame)
    return figure


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "safevid"  # the same stages give the same bytes
    matplotlib.rcParams["svg.fonttype"] = "none"
    draw(build_registry(load_settings("pocket"))).savefig(OUT, metadata={"Date": None})


if __name__ == "__main__":
    main()
