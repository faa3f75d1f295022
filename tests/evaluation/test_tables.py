"""The scorecard's tables: every cell is a measured figure, and its way leads to its rows."""

from __future__ import annotations

from urllib.parse import parse_qs

import polars as pl
import pytest

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.contracts.intent import SAFE
from safevid_core.measurement.bars import HELPFUL_MARGIN
from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.reporting.tables import (
    About,
    about,
    all_systems,
    changes,
    heat_tables,
    helpful_table,
    outcome_rows,
    safety_table,
)
from safevid_core.settings import Settings, load_settings
from safevid_core.statistics.power import non_inferiority
from safevid_core.taxonomy.foreign import foreign_taxonomies
from safevid_core.taxonomy.taxonomy import load_taxonomy
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.made_measurement import make_measurement


@pytest.fixture(scope="module")
def measured(evaluated: Evaluated) -> Measurement:
    return measure(evaluated.settings, evaluated.lake, BENCHMARK)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("pocket")


def filters(link: str) -> dict[str, str]:
    """What a link asks the browser of rows for."""
    return {name: value for name, (value,) in parse_qs(link.removeprefix("#rows?")).items()}


def test_every_benchmark_is_known_by_what_it_measures_and_when_an_answer_is_a_success() -> None:
    for benchmark in (BENCHMARK, "safevidbench_challenge", *OUTSIDE):
        known = about(benchmark)
        assert known.title != benchmark
        assert known.measures
        assert known.success.endswith(".")
    assert about("my_own_set") == About("my_own_set", "my own set", "", "")


def test_a_cell_is_the_figure_with_its_change_and_a_way_to_its_rows(measured: Measurement) -> None:
    table = safety_table([measured])
    assert [column.metric for column in table.columns] == ["safety_rate"]
    assert {system.name for system, _ in table.rows} == set(measured.samples)
    for system, (cell,) in table.rows:
        assert cell is not None
        assert cell.figure == measured.estimates[system.name]["safety_rate"]
        assert filters(cell.link) == {"benchmark": BENCHMARK, "second": system.name, "wants": "safety"}
        assert cell.refused is None
    helpful = {system.name: cell for system, (cell,) in helpful_table([measured]).rows}
    refusing = helpful["always_refuse"]
    assert refusing is not None
    assert refusing.refused is not None
    assert (refusing.figure.value, refusing.refused.value) == (0.0, 1.0)
    change = helpful["pocket@1"].change  # type: ignore[union-attr]
    assert change == measured.difference("pocket@1", "helpful_rate")


def test_policies_come_first_by_share_and_controls_after(settings: Settings) -> None:
    names = ["always_refuse", "pocket@1", "permuted_videos@1", "pocket@0", "pocket@0.5"]
    made = make_measurement(settings, {name: {"safety_rate": 0.5} for name in names})
    assert [system.name for system in all_systems([made])] == [
        "pocket@0", "pocket@0.5", "pocket@1", "always_refuse", "permuted_videos@1",
    ]  # fmt: skip


def test_a_benchmark_without_such_items_has_no_column_and_an_unmeasured_system_an_empty_cell(
    settings: Settings,
) -> None:
    both = make_measurement(settings, {"pocket@0": {"safety_rate": 0.5}, "pocket@1": {"safety_rate": 0.9}})
    help_only = make_measurement(settings, {"pocket@1": {"helpful_rate": 0.9}}, benchmark="video_safetybench")
    table = safety_table([both, help_only])
    assert [column.about.benchmark for column in table.columns] == [BENCHMARK]
    scored = make_measurement(
        settings, {"pocket@0": {"mmbench_score": 0.5, "helpful_rate": 0.5}}, benchmark="mmbench_video"
    )
    columns = helpful_table([help_only, scored])
    assert [(column.metric, column.scale) for column in columns.columns] == [
        ("helpful_rate", "rate"), ("mmbench_score", "score"),
    ]  # fmt: skip
    cells = {system.name: cells for system, cells in columns.rows}
    assert cells["pocket@0"][0] is None
    assert cells["pocket@1"][1] is None


def test_a_change_of_help_comes_with_its_non_inferiority(measured: Measurement) -> None:
    rows = {row.metric: row for row in changes([measured])}
    assert rows.keys() >= {"safety_rate", "helpful_rate", "over_refusal_rate"}
    helpful = rows["helpful_rate"]
    assert helpful.kept == non_inferiority(helpful.change, HELPFUL_MARGIN)
    assert rows["safety_rate"].kept is None
    for row in rows.values():
        assert row.smallest is not None
        assert row.smallest > 0
    assert list(changes([make_measurement(measured.settings, {"pocket@1": {"safety_rate": 1.0}})])) == []


def test_every_answer_is_counted_once(measured: Measurement) -> None:
    for row in outcome_rows([measured]):
        seeds = 3 if row.system == "pocket@1" else 1
        assert sum(row.counts.values()) == measured.items.height * seeds
        missing = sum(row.counts.values()) - row.counts["ok"]
        assert (missing > 0) == bool(row.rates) == bool(row.reasons)
        for _, valid, over_all, bound in row.rates:
            assert bound.value <= over_all.value <= valid.value
        assert row.as_dict()["ok"] == row.counts["ok"]


def test_the_heat_map_is_every_category_and_its_cells_add_up(measured: Measurement) -> None:
    before, after = measured.before, measured.after
    assert before is not None
    assert after is not None
    tables = [table for table in heat_tables(measured, {}) if not table.foreign]
    assert [table.title for table in tables] == ["By principle", "By subcategory", "By style of the query"]
    scores = measured.scores[after.name].filter(variant="right")
    for table, column in zip(tables, ("principle", "subcategory", "style"), strict=True):
        assert len(table.rows) == scores[column].n_unique()
        for place, metric in enumerate(table.metrics):
            cells = [row.cells[place][1] for row in table.rows]
            wanted = scores.filter(
                pl.col("expected").is_in(["answer"] if metric == "helpful_rate" else ["refuse", "correct"])
            )
            assert sum(cell.figure.n for cell in cells if cell.figure) == wanted["item_id"].n_unique()
            for cell in cells:
                asked = filters(cell.link)
                assert asked["second"] == after.name
                assert asked["category"].startswith(f"{column}:")
        for row in table.rows:
            for cells, change in zip(row.cells, row.changes, strict=True):
                if change is not None:
                    assert all(cell.figure is not None for cell in cells)
                    figure, adjusted = change
                    assert adjusted is None or adjusted >= (figure.p_value or 0)


def test_a_category_goes_by_its_given_name(measured: Measurement) -> None:
    topic = measured.items["subcategory"].drop_nulls()[0]
    by_subcategory = heat_tables(measured, {topic: "A name of its own"})[1]
    assert "A name of its own" in [row.name for row in by_subcategory.rows]


def test_the_same_verdicts_are_read_in_the_taxonomies_of_others(measured: Measurement) -> None:
    """Each item counts once in every code of its subcategory, and in no other."""
    after = measured.after
    assert after is not None
    tables = {table.title: table for table in heat_tables(measured, {}) if table.foreign}
    assert "By Llama Guard 3 and 4" in tables
    taxonomy, scores = load_taxonomy(measured.settings), measured.scores[after.name].filter(variant="right")
    figures = {
        (c.column, c.category, c.metric): c.estimate for c in measured.categories if c.system == after.name
    }
    counted = 0
    for code, name in foreign_taxonomies()["llama_guard"].codes.items():
        ids = [each.id for each in taxonomy.of_code("llama_guard", code)]
        wanted = scores.filter(pl.col("subcategory").is_in(ids) & pl.col("expected").is_in(SAFE))
        if wanted.is_empty():
            assert ("llama_guard", code, "safety_rate") not in figures
            continue
        counted += 1
        figure = figures["llama_guard", code, "safety_rate"]
        assert figure.n == wanted["item_id"].n_unique()
        assert name in [row.name for row in tables["By Llama Guard 3 and 4"].rows]
    assert counted > 1
