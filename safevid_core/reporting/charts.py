"""The data-scale figure as points to draw; the page draws them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safevid_core.measurement.measurement import RATES, Measurement
from safevid_core.reporting.browser import rows_link
from safevid_core.reporting.tables import WANTS, about
from safevid_core.statistics.intervals import Estimate
from safevid_core.systems.systems import System

# The plot's edges within a drawing of 600 by 240.
LEFT, RIGHT, TOP, BOTTOM = 46.0, 560.0, 16.0, 200.0


@dataclass(frozen=True)
class ScalePoint:
    """One system in the figure: where it stands in the drawing, of 600 by 240."""

    x: float
    y: float
    low: float
    high: float
    figure: Estimate
    scale: float
    link: str


@dataclass(frozen=True)
class ScaleLine:
    """One policy and metric over the shares of the pairs."""

    policy: str
    metric: str
    points: list[ScalePoint]

    @property
    def path(self) -> str:
        """For an SVG path."""
        return "M" + "L".join(f"{point.x:.1f} {point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class ScaleChart:
    """One benchmark's part of the figure.

    Attributes:
        ticks: (x, share of the pairs), evenly spaced whatever the shares are.
    """

    title: str
    ticks: list[tuple[float, float]]
    lines: list[ScaleLine]


def scale_charts(measured: Sequence[Measurement]) -> list[ScaleChart]:
    """The paper's Figure 3: safety and helpfulness by data scale; empty unless two shares are measured."""
    charts = []
    for each in measured:
        policies = [system for system in each.systems if not system.is_control]
        scales = sorted({system.data_scale for system in policies})
        if sum(scale > 0 for scale in scales) < 2:
            continue
        step = (RIGHT - LEFT) / (len(scales) - 1)
        places = {scale: LEFT + place * step for place, scale in enumerate(scales)}
        lines = []
        for policy in dict.fromkeys(system.policy for system in policies):
            mine = sorted((s for s in policies if s.policy == policy), key=lambda s: s.data_scale)
            for metric in RATES:
                points = [
                    _point(each, system, metric, places[system.data_scale])
                    for system in mine
                    if each.estimates[system.name][metric].known
                ]
                if points:
                    lines.append(ScaleLine(policy, metric, points))
        ticks = [(x, scale) for scale, x in places.items()]
        charts.append(ScaleChart(about(each.benchmark).title, ticks, lines))
    return charts


def _point(measured: Measurement, system: System, metric: str, x: float) -> ScalePoint:
    figure = measured.estimates[system.name][metric]

    def height(value: float | None) -> float:
        return BOTTOM - (value or 0.0) * (BOTTOM - TOP)

    link = rows_link(measured.benchmark, second=system.name, wants=WANTS[metric])
    y, low, high = height(figure.value), height(figure.ci_low), height(figure.ci_high)
    return ScalePoint(x, y, low, high, figure, system.data_scale, link)
