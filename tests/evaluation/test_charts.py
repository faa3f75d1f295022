"""The data-scale figure: a point stands where its value says."""

from __future__ import annotations

import pytest

from safevid_core.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, scale_charts
from safevid_core.settings import Settings, load_settings
from tests.evaluation.made_measurement import make_measurement


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("pocket")


def test_a_line_a_policy_and_metric_over_the_shares_in_order(settings: Settings) -> None:
    rates = {"pocket@1": 0.9, "pocket@0": 0.3, "pocket@0.1": 0.5}
    made = make_measurement(
        settings,
        {name: {"safety_rate": rate, "helpful_rate": 0.8} for name, rate in rates.items()}
        | {"always_refuse": {"safety_rate": 1.0}, "permuted_videos@1": {"safety_rate": 0.4}},
    )
    (chart,) = scale_charts([made])
    assert chart.title == "SafeVidBench-Base"
    assert [scale for _, scale in chart.ticks] == [0.0, 0.1, 1.0]
    assert [x for x, _ in chart.ticks] == pytest.approx([LEFT, (LEFT + RIGHT) / 2, RIGHT])
    assert [(line.policy, line.metric) for line in chart.lines] == [
        ("pocket", "safety_rate"), ("pocket", "helpful_rate"),
    ]  # fmt: skip
    safety = chart.lines[0].points
    assert [point.scale for point in safety] == [0.0, 0.1, 1.0]
    assert [point.figure.value for point in safety] == pytest.approx([0.3, 0.5, 0.9])
    for point in safety:
        assert point.y == pytest.approx(BOTTOM - point.figure.value * (BOTTOM - TOP))
        assert TOP <= point.high <= point.y <= point.low <= BOTTOM
    assert chart.lines[0].path.count("L") == 2
    assert chart.lines[0].path.startswith(f"M{LEFT:.1f} ")


def test_a_policy_that_was_measured_at_some_shares_only_has_a_shorter_line(settings: Settings) -> None:
    made = make_measurement(
        settings,
        {
            "pocket@0": {"safety_rate": 0.3},
            "pocket@0.5": {"safety_rate": 0.6, "helpful_rate": 0.8},
            "pocket@1": {"safety_rate": 0.9, "helpful_rate": 0.8},
        },
    )
    (chart,) = scale_charts([made])
    assert [(line.metric, len(line.points)) for line in chart.lines] == [
        ("safety_rate", 3),
        ("helpful_rate", 2),
    ]


def test_one_share_is_no_figure(settings: Settings) -> None:
    made = make_measurement(settings, {"pocket@0": {"safety_rate": 0.3}, "pocket@1": {"safety_rate": 0.9}})
    assert scale_charts([made]) == []
    assert scale_charts([]) == []
