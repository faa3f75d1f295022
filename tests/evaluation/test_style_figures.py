"""What the scorecard says of style is what the audit measured, and it says so where nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.audits.audit_rows import figure_row
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import audit_table
from safevid_core.reporting.style_figures import style_figures, what_style_tells
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import WHOLE, Lake

AUDIT = audit_table("preference_style_audit")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, "pocket")


def put(lake: Lake, low: float) -> None:
    rows = [
        figure_row("chosen told by its words", "refuse", Estimate(0.9, 0.8, 0.95, 50, 9)),
        figure_row(
            "chosen told by its words", "all", Estimate(0.75, low, 0.95, 100, 9), "for chosen: please"
        ),
        figure_row("chosen told by its length", "all", Estimate(0.5, 0.4, 0.6, 100, 9)),
    ]
    lake.commit(AUDIT, WHOLE, StageRows(AUDIT.frame(rows), [("pair", "ok", "")], {}), "made", {})


def test_without_the_audit_nothing_is_claimed(lake: Lake) -> None:
    assert style_figures(lake) == []
    assert "not measured; materialise preference_style_audit" in what_style_tells([])


def test_figures_of_all_pairs_come_first_and_are_reported(lake: Lake) -> None:
    put(lake, low=0.6)
    styles = style_figures(lake)
    assert [style.category for style in styles] == ["all", "all", "refuse"]
    sentence = what_style_tells(styles)
    assert "told by its length in 50.0% and told by its words in 75.0% of the pairs" in sentence
    assert "could learn that much" in sentence


def test_an_interval_that_holds_a_half_is_no_more_than_chance(lake: Lake) -> None:
    put(lake, low=0.49)
    assert "No more than chance" in what_style_tells(style_figures(lake))
