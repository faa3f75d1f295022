"""Plots of the pair statistics, as SVG files that are the same bytes for the same statistics.

`composition_*.svg` show how many pairs there are by expectation, `length_difference.svg` the lengths, and
`measures_*.svg` the main shares with their intervals, one row a category.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from safevid_core.datasets.pair_statistics import ALL, GROUPINGS, PairStatistics

FOLDER = "plots"
# Distinct in print and for people who do not see red and green apart (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#666666")
# Panels of the shares: title and, by legend, measure.
_PANELS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("refusals (%)", {"chosen": "chosen_refuses", "rejected": "rejected_refuses"}),
    ("chosen told by style alone (%)", {"words": "told_by_words", "length": "told_by_length"}),
    ("detail not borne out (%)", {"colour": "chosen_other_colour", "number": "chosen_other_number"}),
)
_ROW, _HEAD = 0.2, 1.3  # inches
_WIDEST = 0.99  # share of the pairs whose difference in length is within the axis
_SETTINGS = {
    "svg.hashsalt": "safevid", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 8,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def write_plots(statistics: PairStatistics, folder: Path) -> list[str]:
    """Write the plots into `plots/` below a folder. Returns their paths from there; none without pairs."""
    if not len(statistics.differences):
        return []
    import matplotlib

    (folder / FOLDER).mkdir()
    paths = []
    with matplotlib.rc_context(_SETTINGS):
        for name, figure in _figures(statistics):
            paths.append(f"{FOLDER}/{name}.svg")
            figure.savefig(folder / paths[-1], format="svg", metadata={"Date": None, "Creator": None})
    return paths


def _figures(statistics: PairStatistics) -> Iterator[tuple[str, Any]]:
    for grouping in GROUPINGS:
        yield f"composition_by_{grouping}", _composition(statistics, grouping)
    yield "length_difference", _lengths(statistics)
    for grouping in GROUPINGS:
        yield f"measures_by_{grouping}", _measures(statistics, grouping)


def _composition(statistics: PairStatistics, grouping: str) -> Any:
    """Bars of pairs by category, largest first, each divided by expectation."""
    counts = statistics.composition.filter(pl.col("grouping") == grouping)
    totals = (
        counts.group_by("category")
        .agg(pl.col("pairs").sum())
        .sort("pairs", "category", descending=[True, False])
    )
    names = totals["category"].to_list()
    expectations = statistics.composition["expectation"].unique().sort().to_list()
    figure = _figure(7, len(names))
    axes = figure.add_subplot()
    starts = np.zeros(len(names))
    for place, expectation in enumerate(expectations):
        some = dict(
            counts.filter(pl.col("expectation") == expectation).select("category", "pairs").iter_rows()
        )
        widths = np.array([some.get(name, 0) for name in names])
        axes.barh(names, widths, left=starts, height=0.75, color=_colour(place), label=expectation)
        starts = starts + widths
    for place, total in enumerate(totals["pairs"]):
        axes.annotate(
            f"{total:,}", (total, place), (3, 0), textcoords="offset points", va="center", fontsize=6.5
        )
    axes.set_xlim(0, 1.1 * starts.max())
    _rows(axes, names)
    axes.set_xlabel("pairs")
    if grouping != "expectation":
        figure.legend(title="expectation", loc="outside upper center", ncols=6, frameon=False)
    figure.suptitle(f"Pairs by {grouping}", x=0.02, ha="left", fontsize=10)
    return figure


def _lengths(statistics: PairStatistics) -> Any:
    """A histogram of the difference in words over all pairs."""
    differences = statistics.differences
    reach = max(1, int(np.quantile(np.abs(differences), _WIDEST)))
    step = max(1, -(-2 * reach // 60))
    edges = np.arange(-reach - 0.5, reach + step + 0.5, step)
    figure = _figure(7, 10)
    axes = figure.add_subplot()
    axes.hist(np.clip(differences, edges[0], edges[-1] - 1e-9), bins=edges, color=_COLOURS[0])
    axes.axvline(0, color="black", linewidth=0.8)
    median = float(np.median(differences))
    axes.axvline(median, color=_COLOURS[4], linewidth=1.5, label=f"median {median:g}")
    axes.legend(frameon=False)
    axes.set_xlabel(
        "words of the chosen minus words of the rejected response (the outer bars hold what lies beyond)"
    )
    axes.set_ylabel("pairs")
    figure.suptitle("Difference in length", x=0.02, ha="left", fontsize=10)
    return figure


def _measures(statistics: PairStatistics, grouping: str) -> Any:
    """A row for each category: the difference in length, and the shares with their 95% intervals."""
    names = statistics.of(grouping, "pairs").sort("category")["category"].to_list()
    figure = _figure(10, len(names))
    first, *panels = figure.subplots(1, 1 + len(_PANELS), sharey=True)
    medians, low, high = (
        _values(statistics, grouping, names, f"length_difference{part}", "value")
        for part in ("", "_q25", "_q75")
    )
    first.errorbar(
        medians, range(len(names)), xerr=[medians - low, high - medians], fmt="o", color=_COLOURS[7],
        markersize=3, linewidth=0.9,
    )  # fmt: skip
    first.axvline(0, color="black", linewidth=0.7)
    first.set_title("chosen minus rejected, words", fontsize=8)
    first.set_xlabel("median and quartiles", fontsize=7)
    for axes, (title, measures) in zip(panels, _PANELS, strict=True):
        for place, (label, measure) in enumerate(measures.items()):
            value, low, high = (
                100 * _values(statistics, grouping, names, measure, column)
                for column in ("value", "ci_low", "ci_high")
            )
            rows = np.arange(len(names)) + 0.16 * (2 * place - len(measures) + 1)
            axes.errorbar(
                value, rows, xerr=np.abs([value - low, high - value]), fmt="o", color=_colour(place),
                markersize=3, linewidth=0.9, label=label,
            )  # fmt: skip
            for overall in statistics.of(ALL, measure)["value"]:
                axes.axvline(100 * overall, color=_colour(place), linewidth=0.7, linestyle=":")
        axes.set_xlim(-3, 103)
        axes.set_title(title, fontsize=8)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=2.4, ncols=2, frameon=False,
                    fontsize=7)  # fmt: skip
    for axes in (first, *panels):
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
    _rows(first, names)
    figure.suptitle(
        f"Pairs by {grouping}; shares with 95% intervals; dotted: all pairs", x=0.02, ha="left", fontsize=10
    )
    return figure


def _values(
    statistics: PairStatistics, grouping: str, names: list[str], measure: str, column: str
) -> NDArray[np.float64]:
    """A column of a measure by category; NaN, which is not drawn, where it was not measured."""
    found = dict(statistics.of(grouping, measure).select("category", column).iter_rows())
    return np.array([found.get(name, np.nan) for name in names], dtype=np.float64)


def _figure(width: float, rows: int) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, _HEAD + _ROW * max(rows, 3)), layout="constrained")


def _rows(axes: Any, names: list[str]) -> None:
    """Categories from the top down, with their names."""
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]
