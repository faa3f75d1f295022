"""How a partition stands, and when the mark of a fresh one answers in place of its plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.stages import planner as planner_module
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.planner import Planner, State
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import WHOLE, Lake, stage_fingerprint
from tests.stages.toy import counting, make, planner, rows_of, stage, table


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", "pocket")


class Given:
    """A root stage whose units, inputs and info a test changes."""

    def __init__(self) -> None:
        self.units, self.inputs, self.info = ["a", "b"], {"size": "1", "words": "x"}, {}
        self.stage = stage("words", plan=self._plan)

    def _plan(self, tools: Tools, partition: str) -> Plan:
        def make_rows(units: Any) -> StageRows:
            rows = rows_of("words", units)
            return StageRows(rows.rows, rows.outcomes, dict(self.info))

        return Plan(dict(self.inputs), list(self.units), make_rows)


@pytest.fixture
def given() -> Given:
    return Given()


def test_a_partition_is_missing_then_fresh(lake: Lake, given: Given) -> None:
    before = planner(lake, given.stage).state(given.stage, "all")
    assert (before.condition, before.to_make, before.manifest) == ("missing", True, None)
    make(planner(lake, given.stage), "words")
    after = planner(lake, given.stage).state(given.stage, "all")
    assert (after.condition, after.to_make, after.reason) == ("fresh", False, "")
    assert after.fingerprint == before.fingerprint


def test_a_stale_partition_names_the_inputs_that_changed(lake: Lake, given: Given) -> None:
    make(planner(lake, given.stage), "words")
    given.inputs = {"size": "2", "style": "new", "words": "x"}
    lake.write_mark("words", "all", "")
    state = planner(lake, given.stage).state(given.stage, "all")
    assert (state.condition, state.reason) == ("stale", "changed: size, style")
    assert make(planner(lake, given.stage), "words").recomputed == 1
    assert planner(lake, given.stage).state(given.stage, "all").condition == "fresh"


def test_a_partition_of_another_version_of_the_table_is_stale(lake: Lake, given: Given) -> None:
    make(planner(lake, given.stage), "words")
    later = replace(given.stage, table=replace(given.stage.table, version="2"))
    state = planner(lake, later).state(later, "all")
    assert (state.condition, state.reason) == ("stale", "made by an earlier version")


def test_a_kept_partition_stays_though_its_inputs_changed(lake: Lake) -> None:
    def plan(size: str) -> Callable[[Tools, str], Plan]:
        return lambda tools, partition: Plan(
            {"size": size}, ["a"], lambda units: rows_of("words", units), pinned=True
        )

    make(planner(lake, stage("words", plan=plan("1"))), "words")
    changed = stage("words", plan=plan("2"))
    lake.write_mark("words", "all", "")
    assert planner(lake, changed).state(changed, "all").condition == "fresh"


def test_a_partition_is_blocked_until_what_it_is_made_from_is_there(lake: Lake, given: Given) -> None:
    counts = counting("counts", "words", [])
    state = planner(lake, given.stage, counts).state(counts, "all")
    assert (state.condition, state.to_make) == ("blocked", False)
    assert state.reason == "words is not made yet"
    make(planner(lake, given.stage, counts), "words")
    assert planner(lake, given.stage, counts).state(counts, "all").condition == "missing"


def test_a_blocked_partition_names_the_partition_that_is_missing(lake: Lake) -> None:
    stages = stage("words", partitions=BY_SCENE), stage("counts", "words", partitions=BY_SCENE)
    make(planner(lake, *stages), "words", "sky")
    assert planner(lake, *stages).state(stages[1], "sky").condition == "missing"
    assert planner(lake, *stages).state(stages[1], "park").reason == "words[park] is not made yet"


def test_an_optional_read_blocks_nothing(lake: Lake) -> None:
    stages = stage("words"), stage("counts", "words", optional=frozenset({"words"}))
    assert planner(lake, *stages).state(stages[1], "all").condition == "missing"


@pytest.mark.parametrize(
    ("info", "retry", "left"),
    [({"unanswered": 2}, False, 2), ({"unusable": 1}, True, 1), ({"unusable": 1}, False, 0)],
)
def test_a_partition_with_open_units_is_incomplete(
    lake: Lake, given: Given, info: dict[str, int], retry: bool, left: int
) -> None:
    given.info = info
    make(planner(lake, given.stage), "words")
    tools = planner(lake, given.stage).tools
    state = Planner(tools, retry_failed=retry).state(given.stage, "all")
    assert state.condition == ("incomplete" if left else "fresh")
    assert state.to_make == bool(left)
    assert not left or state.reason == f"{left} units to be asked or read again"


# --------------------------------------------------------------------- plans that must wait for upstream


class Release:
    """Items of a release, responses to them, and scores that refuse responses to another release."""

    def __init__(self, lake: Lake, error: Exception) -> None:
        self.lake, self.release, self.error = lake, "1", error
        self.stages = (
            stage("items", plan=lambda tools, partition: self._plan("items", self.release)),
            stage("responses", "items", plan=lambda tools, partition: self._copy("responses")),
            stage("scores", "responses", "items", plan=lambda tools, partition: self._scores()),
        )
        self.make("items", "responses", "scores")

    def planner(self) -> Planner:
        for name in self.lake.assets():
            self.lake.write_mark(name, WHOLE, "")
        return planner(self.lake, *self.stages)

    def make(self, *names: str) -> None:
        for name in names:
            make(self.planner(), name)

    def state(self, name: str) -> State:
        found = self.planner()
        return found.standing(found.registry[name], WHOLE)

    def _plan(self, name: str, release: str) -> Plan:
        return Plan({"release": release}, [release], lambda units: rows_of(name, units))

    def _release(self, name: str) -> str:
        return str(self.lake.read(table(name))["unit"][0])

    def _copy(self, name: str) -> Plan:
        return self._plan(name, self._release("items"))

    def _scores(self) -> Plan:
        if self._release("items") != self._release("responses"):
            raise self.error
        return self._copy("scores")


@pytest.mark.parametrize("error", [SafeVidError("two releases"), pl.exceptions.ColumnNotFoundError("cut")])
def test_scores_that_wait_for_new_responses_are_stale_and_not_failed(lake: Lake, error: Exception) -> None:
    made = Release(lake, error)
    made.release = "2"
    assert (made.state("items").condition, made.state("scores").condition) == ("stale", "fresh")
    made.make("items")
    scores = made.state("scores")
    assert scores.condition == "stale"
    assert scores.reason == f"responses is to be made again first ({error})"
    assert scores.manifest is not None
    with pytest.raises(type(error)):
        made.planner().state(made.stages[2], WHOLE)
    made.make("responses")
    assert made.state("scores").reason == "changed: release"
    made.make("scores")
    assert made.state("scores").condition == "fresh"


def test_what_cannot_be_planned_though_everything_upstream_is_fresh_has_failed(lake: Lake) -> None:
    made = Release(lake, SafeVidError("two releases"))
    made.release = "2"
    made.make("items")
    by_hand = stage_fingerprint(lake, table("responses"), {"release": "2"})
    lake.commit(table("responses"), WHOLE, rows_of("responses", ["1"]), by_hand, {"release": "2"})
    with pytest.raises(SafeVidError, match="two releases"):
        made.state("scores")


# ------------------------------------------------------------------------------------------------ marks


class Marked:
    """Two scenes of words, and counts of them whose plans are noted; all of it made."""

    def __init__(self, lake: Lake, watched: Path) -> None:
        self.lake, self.planned, self.watched = lake, [], watched
        watched.mkdir()
        (watched / "prompt.txt").write_text("1")
        self.overrides: dict[str, Any] = {}
        self.words, self.size = stage("words", plan=self._plan, partitions=BY_SCENE), "1"
        self.counts = counting(
            "counts", "words", self.planned, partitions=BY_SCENE, watches=lambda settings: [watched]
        )
        for name in ("words", "counts"):
            make(self.planner(), name, "sky", "park")
        self.planned.clear()

    def _plan(self, tools: Tools, scene: str) -> Plan:
        return Plan({"size": self.size}, ["a", self.size], lambda units: rows_of("words", units))

    def planner(self) -> Planner:
        return planner(self.lake, self.words, self.counts, **self.overrides)

    def look(self) -> list[str]:
        """The partitions of which the plan was asked for to tell how they stand."""
        self.planned.clear()
        found = self.planner()
        for scene in ("sky", "park"):
            found.state(self.counts, scene)
        return list(self.planned)


@pytest.fixture
def marked(lake: Lake, tmp_path: Path) -> Marked:
    return Marked(lake, tmp_path / "watched")


def test_the_mark_of_a_made_partition_answers_in_place_of_its_plan(marked: Marked) -> None:
    assert marked.look() == []
    assert marked.planner().state(marked.counts, "sky").condition == "fresh"


def test_a_mark_is_void_when_its_upstream_partition_is_made_again(marked: Marked) -> None:
    marked.size = "2"
    marked.lake.write_mark("words", "sky", "")
    make(marked.planner(), "words", "sky")
    assert marked.look() == ["sky"], "the other scene's inputs are as they were"


def test_a_mark_is_void_when_a_setting_changes_and_is_made_anew(marked: Marked) -> None:
    marked.overrides = {"models": {"concurrency": 3}}
    assert marked.look() == ["sky", "park"]
    assert marked.look() == []


@pytest.mark.parametrize("change", ["content", "another", "gone"])
def test_a_mark_is_void_when_a_watched_file_changes(marked: Marked, change: str) -> None:
    file = marked.watched / "prompt.txt"
    if change == "content":
        file.write_text("12")
    elif change == "another":
        (marked.watched / "more.txt").write_text("")
    else:
        file.unlink()
    assert marked.look() == ["sky", "park"]


def test_a_mark_is_void_when_the_version_of_the_table_changes(marked: Marked) -> None:
    marked.counts = replace(marked.counts, table=replace(marked.counts.table, version="2"))
    assert marked.look() == ["sky", "park"]


def test_a_mark_is_void_when_the_code_changes(marked: Marked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner_module, "_code_text", lambda extensions: "other code")
    assert marked.look() == ["sky", "park"]


def test_the_code_of_a_mark_holds_the_files_that_code_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "safevid_core"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "taxonomy.yaml").write_text("a")
    monkeypatch.setattr(planner_module.safevid_core, "__file__", str(package / "__init__.py"))
    code_text = planner_module._code_text.__wrapped__
    before = code_text(())
    (package / "__init__.pyc").write_text("compiled")
    assert code_text(()) == before
    (package / "taxonomy.yaml").write_text("ab")
    assert code_text(()) != before


def test_an_input_that_is_committed_during_the_making_leaves_no_mark(marked: Marked) -> None:
    """A run plans from one generation; the mark must not name the next one."""
    marked.size = "2"
    marked.lake.write_mark("words", "sky", "")
    make(marked.planner(), "words", "sky")
    run = marked.planner()
    assert run.state(marked.counts, "sky").condition == "stale"
    marked.size = "3"
    marked.lake.write_mark("words", "sky", "")
    make(marked.planner(), "words", "sky")  # another process
    make(run, "counts", "sky")
    assert marked.planner().state(marked.counts, "sky").condition == "stale"


def test_a_plan_is_computed_once_until_it_is_forgotten(lake: Lake) -> None:
    planned: list[str] = []
    words, counts = stage("words"), counting("counts", "words", planned)
    make(planner(lake, words, counts), "words")
    run = planner(lake, words, counts)
    for _ in range(3):
        run.state(counts, "all")
    assert planned == ["all"]
    assert run.is_planned(counts, "all")
    run.forget(counts, "all")
    assert not run.is_planned(counts, "all")
    run.state(counts, "all")
    assert planned == ["all", "all"]
