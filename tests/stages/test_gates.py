"""A closed gate makes nothing; a check looks at what was committed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.stages.gates import CONSERVATION, SOME_DECIDED, checks_of, covers, require_gates
from safevid_core.stages.partitions import AXES, BY_SCENE
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Check, Finding, Gate, Stage, Tools
from safevid_core.storage.lake import Lake
from tests.stages.toy import make, planner, settings_for, stage


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", "pocket")


class Closed(SafeVidError, RuntimeError):
    """A gate that does not open."""


def gate(name: str, asked: list[str], *, opens: bool = True) -> Gate:
    def require(planner: Planner, stage: Stage, partitions: Sequence[str]) -> None:
        asked.append(f"{name}: {stage.name} {', '.join(partitions)}")
        if not opens:
            raise Closed(f"{name} is closed")

    return Gate(name, "Opens sometimes.", require)


def test_gates_are_asked_in_order_and_the_first_closed_one_stops_the_run(lake: Lake) -> None:
    asked: list[str] = []
    gates = gate("first", asked), gate("second", asked, opens=False), gate("third", asked)
    words = stage("words", gates=gates)
    with pytest.raises(Closed, match="second is closed"):
        make(planner(lake, words), "words")
    assert asked == ["first: words all", "second: words all"]
    assert lake.partitions("words") == []
    require_gates(planner(lake, words), stage("words", gates=gates[:1]), ["all"])


def test_every_stage_checks_that_rows_are_accounted_for_and_then_its_own(lake: Lake) -> None:
    def run(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
        return Finding(tuple(f"{each} is odd" for each in partitions), {"partitions": len(partitions)})

    odd = Check("odd", "Finds everything odd.", run)
    words = stage("words", checks=(odd,), partitions=BY_SCENE)
    assert checks_of(words) == (CONSERVATION, odd)
    report = make(planner(lake, words), "words", "sky", "park")
    assert report.findings["every_row_is_accounted_for"].passed
    assert report.findings["odd"].problems == ("sky is odd", "park is odd")
    assert report.lines() == ["sky is odd", "park is odd"]
    assert set(report.reports) == {"sky", "park"}, "what was made is committed all the same"


def test_rows_that_were_changed_since_are_reported_by_partition(lake: Lake) -> None:
    words = stage("words", partitions=BY_SCENE)
    make(planner(lake, words), "words", "sky", "park")
    manifest = lake.manifest("words", "sky")
    assert manifest is not None
    path = lake.folder("words", "sky") / manifest.files["rows"]
    pl.read_parquet(path).with_columns(words=pl.lit(7, pl.Int64)).write_parquet(path)
    tools = planner(lake, words).tools
    finding = CONSERVATION.run(tools, words, ["sky", "park", "street"])
    assert len(finding.problems) == 2
    assert "words[sky]: rows differ" in finding.problems[0]
    assert "words[street]: not committed" in finding.problems[1]
    assert not finding.passed


def test_a_union_names_the_scenes_that_are_not_made(lake: Lake) -> None:
    words, whole = stage("words", partitions=BY_SCENE), stage("union", "words", checks=(covers("words"),))
    scenes = AXES["scene"](settings_for(lake))
    make(planner(lake, words, whole), "words", *scenes[1:])
    report = make(planner(lake, words, whole), "union")
    found = report.findings["every_scene_is_there"]
    assert found.problems == (f"words[{scenes[0]}] is not made; make it, then union again",)
    make(planner(lake, words, whole), "words", scenes[0])
    assert make(planner(lake, words, whole), "union").findings["every_scene_is_there"].passed


def test_a_partition_in_which_nothing_is_decided_is_named(lake: Lake) -> None:
    words = stage("words", partitions=BY_SCENE)
    mute = [("a", "undecidable", "the judge is silent"), ("b", "undecidable", "the judge is silent")]
    half = [("a", "undecidable", "the judge is silent"), ("b", "filtered", "no")]
    for scene, outcomes in (("sky", mute), ("park", half), ("street", [])):
        lake.commit(words.table, scene, StageRows(words.table.frame([]), outcomes), "given", {})
    finding = SOME_DECIDED.run(planner(lake, words).tools, words, ["sky", "park", "street"])
    assert finding.problems == (
        "words[sky]: all 2 rows are undecidable; look at the reasons in its outcomes, and at the judge's "
        "model",
    )
    assert finding.figures == {"undecidable": 3}
