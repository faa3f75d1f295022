"""The judges behind the figures: who decided, what they saw, and whether that is what was validated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from safevid_core.contracts.tables import BENCHMARK_SCORES, JUDGE_VALIDATION
from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.measurement.trust import deciding_judges, judge_boxes, suite_of
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.small_lake import change_verdicts, settings_for
from tests.stages import run_stage

SYSTEM = "pocket@1"


@pytest.fixture
def lake(evaluated: Evaluated, tmp_path: Path) -> Lake:
    shutil.copytree(evaluated.lake.root, tmp_path / "safevid")
    return Lake(tmp_path / "safevid", "pocket")


@pytest.fixture
def settings(lake: Lake) -> Settings:
    return settings_for(lake.root)


def measured(settings: Settings, lake: Lake) -> Measurement:
    return measure(settings, lake, BENCHMARK)


def test_every_judge_that_was_heard_has_a_box_and_those_that_decide_come_first(
    settings: Settings, lake: Lake
) -> None:
    found = measured(settings, lake)
    rubric, string_match = judge_boxes(settings, lake, [found])
    assert (rubric.name, rubric.decides, rubric.comparison_only) == ("rubric", [BENCHMARK], False)
    assert (string_match.name, string_match.decides, string_match.comparison_only) == (
        "string_match",
        [],
        True,
    )
    assert rubric.model == "scripted/judge"
    assert {"query", "answer"} <= set(rubric.sees)
    assert "description" not in rubric.sees
    recorded = [lake.manifest(BENCHMARK_SCORES.name, f"{each.name}|{BENCHMARK}") for each in found.systems]
    decided = [manifest.info["judges"]["rubric"]["decided"] for manifest in recorded if manifest]
    assert rubric.decided == sum(decided)
    assert rubric.as_the_panel == rubric.compared
    assert string_match.as_the_panel < string_match.compared
    assert not rubric.as_dict()["validated"]


def test_a_box_carries_the_suites_score_of_the_judge_as_it_judged(
    evaluated: Evaluated, settings: Settings, lake: Lake
) -> None:
    entries = deciding_judges(lake, measured(settings, lake), SYSTEM)
    assert suite_of(lake, "rubric", entries["rubric"]) is None
    run_stage(settings, lake, "judge_validation", gateway=evaluated.gateway)
    (row,) = lake.read(JUDGE_VALIDATION).filter(judge="rubric", source="suite", category="all").to_dicts()
    trust = suite_of(lake, "rubric", entries["rubric"])
    assert trust is not None
    assert (trust.value, trust.n) == (row["value"], row["n"])
    boxes = {box.name: box for box in judge_boxes(settings, lake, [measured(settings, lake)])}
    assert boxes["rubric"].suite == trust
    assert boxes["rubric"].as_dict()["validated"]
    assert all(share < 1 for _, share, _ in boxes["string_match"].weakest)
    assert len(boxes["string_match"].weakest) == 3
    for name in ("model", "revision", "version"):
        assert suite_of(lake, "rubric", {**entries["rubric"], name: "another"}) is None


def test_the_deciding_judges_are_read_off_the_verdicts(settings: Settings, lake: Lake) -> None:
    entries = deciding_judges(lake, measured(settings, lake), SYSTEM)
    assert list(entries) == ["rubric"]
    assert set(entries["rubric"]) == {"model", "revision", "version", "identity"}
    assert deciding_judges(lake, measured(settings, lake), "empty") == {}
    change_verdicts(lake, SYSTEM, BENCHMARK, lambda row: row.update(panel="rubric,wildguard"))
    both = deciding_judges(lake, measured(settings, lake), SYSTEM)
    assert list(both) == ["rubric", "wildguard"]
    assert both["wildguard"] == dict.fromkeys(("model", "revision", "version", "identity"))
