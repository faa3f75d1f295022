"""The local runner commits partition by partition, makes batches where it may, and goes on after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.execution.local import InputMissing, LocalRunner, WorkerDied, require_rows
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import Lake, LakeError, NothingMade
from tests.command import all_gone, takes_interrupts
from tests.execution.batches import SIZE, UNITS, run
from tests.stages.toy import make, planner, rows_of, stage, table

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", "pocket")


def planned(make: Any, **more: Any) -> Any:
    return lambda tools, partition: Plan({"given": "1"}, ["a"], make, **more)


# ------------------------------------------------------------------------------------------- partitions


@pytest.mark.parametrize("error", [LakeError("the disk is full"), ZeroDivisionError("by zero")])
def test_a_partition_that_fails_leaves_the_others_committed(lake: Lake, error: Exception) -> None:
    def plan(tools: Tools, scene: str) -> Plan:
        def make_rows(units: Sequence[str]) -> StageRows:
            if scene == "park":
                raise error
            return rows_of("words", units)

        return Plan({}, ["a"], make_rows)

    words, reported = stage("words", plan=plan, partitions=BY_SCENE), []
    run = planner(lake, words)
    with LocalRunner(run, on_error=lambda partition, raised: reported.append((partition, raised))) as runner:
        report = runner.run(words, ["sky", "park", "street"])
    assert lake.partitions("words") == ["sky", "street"]
    assert report.failures == {"park": error}
    assert report.recomputed == 2
    assert reported == ([] if isinstance(error, LakeError) else [("park", error)]), (
        "ours are one line, not traced"
    )
    line = "park: the disk is full" if isinstance(error, LakeError) else "park: ZeroDivisionError: by zero"
    assert report.lines() == [line]


def test_partitions_that_fail_for_one_reason_are_one_line(lake: Lake) -> None:
    def fail(units: Sequence[str]) -> StageRows:
        raise LakeError("no clip\ncan be used")

    words = stage("words", plan=planned(fail), partitions=BY_SCENE)
    with LocalRunner(planner(lake, words)) as runner:
        assert runner.run(words, ["sky", "park"]).lines() == ["sky, park: no clip can be used"]


def test_a_fresh_partition_is_made_by_no_run(lake: Lake) -> None:
    words = stage("words")
    assert make(planner(lake, words), "words").recomputed == 1
    again = make(planner(lake, words), "words")
    assert again.recomputed == 0
    assert again.reports["all"].manifest == lake.manifest("words")


def test_a_blocked_partition_says_what_to_make_first(lake: Lake) -> None:
    words, counts = stage("words"), stage("counts", "words")
    with pytest.raises(InputMissing, match="counts: words is not made yet; make it first"):
        make(planner(lake, words, counts), "counts")


def test_rows_that_do_not_add_up_are_not_committed(lake: Lake) -> None:
    words = stage("words", plan=planned(lambda units: rows_of("words", ["a", "b"])))
    with pytest.raises(LakeError, match="1 outcomes name no input, the first b"):
        make(planner(lake, words), "words")
    assert lake.manifest("words") is None


def test_the_partition_at_work_is_reported(lake: Lake) -> None:
    words, reported = stage("words", partitions=BY_SCENE), []
    with LocalRunner(planner(lake, words), on_partition=lambda *each: reported.append(each)) as runner:
        runner.run(words, ["sky", "park"])
    assert reported == [("sky", 1, 2), ("park", 2, 2)]


# ----------------------------------------------------------------------------- what a plan may ask for


def test_partitions_that_share_workers_are_made_by_them(lake: Lake) -> None:
    opened: list[list[str]] = []

    @contextmanager
    def shared_workers(tools: Tools, plans: Mapping[str, Plan]) -> Iterator[dict[str, Any]]:
        opened.append(sorted(plans))
        yield {name: lambda: rows_of("words", ["a", "b"]) for name in plans}
        opened.append([])

    words = stage("words", partitions=BY_SCENE, shared_workers=shared_workers)
    make(planner(lake, words), "words", "sky")
    make(planner(lake, words), "words", "sky", "park")
    assert opened == [["sky"], [], ["park"], []], "a fresh partition is not made again, workers are closed"


def test_a_partition_is_settled_when_made_and_when_found_fresh_without_a_mark(lake: Lake) -> None:
    settled: list[bool] = []

    def on_fresh() -> None:
        settled.append(lake.manifest("words") is not None)

    words = stage("words", plan=planned(lambda units: rows_of("words", units), on_fresh=on_fresh))
    make(planner(lake, words), "words")
    make(planner(lake, words), "words")
    assert settled == [True], "a mark says that everything is there"
    lake.write_mark("words", "all", "")
    make(planner(lake, words), "words")
    assert settled == [True, True]


def test_inputs_that_making_changes_are_those_after_it(lake: Lake) -> None:
    notes = lake.root.parent / "notes"
    notes.write_text("")

    def make_rows(units: Sequence[str]) -> StageRows:
        notes.write_text("decided")
        return rows_of("words", units)

    def plan(tools: Tools, partition: str) -> Plan:
        def inputs() -> dict[str, str]:
            return {"notes": notes.read_text()}

        return Plan(inputs(), ["a"], make_rows, inputs_after_make=inputs)

    words = stage("words", plan=plan)
    report = make(planner(lake, words), "words")
    assert report.reports["all"].manifest.inputs == {"notes": "decided"}
    lake.write_mark("words", "all", "")
    assert planner(lake, words).state(words, "all").condition == "fresh"


def test_finish_sees_the_rows_of_all_batches(lake: Lake) -> None:
    def finish(rows: StageRows) -> StageRows:
        return StageRows(rows.rows, rows.outcomes, {"rows": rows.rows.height})

    words = stage("words", plan=planned(lambda units: rows_of("words", units), finish=finish))
    assert make(planner(lake, words), "words").reports["all"].manifest.info == {"rows": 1}


@pytest.mark.parametrize(
    ("outcomes", "asks", "needs_rows", "line"),
    [
        (
            [("a", "failed", "no answer"), ("b", "failed", "no answer")],
            True,
            False,
            r"none of 2 .*no answer \(x2\)",
        ),
        ([("a", "failed", "mute"), ("b", "filtered", "weak")], True, False, ""),
        ([("a", "failed", "no video")], False, False, ""),
        ([("a", "filtered", "short")], False, True, r"none of 1 inputs of sky gave a row: short \(x1\)"),
        ([], True, False, ""),
        ([], False, True, "none of 0 inputs of sky gave a row: it has no inputs"),
    ],
)
def test_a_stage_that_made_nothing_where_it_should_have_is_refused(
    outcomes: Any, asks: bool, needs_rows: bool, line: str
) -> None:
    rows = StageRows(table("words").frame([]), outcomes, {"unanswered": 0} if asks else {})
    if not line:
        require_rows(stage("words"), "sky", rows, needs_rows=needs_rows)
        return
    with pytest.raises(NothingMade, match=line):
        require_rows(stage("words"), "sky", rows, needs_rows=needs_rows)


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"unanswered": 1}, r"check openai/mute with `safevid doctor`$"),
        (
            {"unanswered": 0, "unusable": 1},
            r"check openai/mute .*, then run with SAFEVID_MODELS__RETRY_FAILED=true",
        ),
    ],
)
def test_a_mute_model_is_named_with_what_to_do(info: dict[str, Any], says: str) -> None:
    rows = StageRows(table("words").frame([]), [("a", "failed", "empty answer")], info)
    with pytest.raises(NothingMade, match=says):
        require_rows(stage("words"), "sky", rows, needs_rows=False, models=("openai/mute",))


def test_a_dead_model_leaves_the_old_partition(lake: Lake) -> None:
    make(planner(lake, stage("words")), "words")
    dead = StageRows(table("words").frame([]), [("a", "failed", "connection refused")], {"unanswered": 1})
    words = stage("words", plan=lambda tools, partition: Plan({"given": "2"}, ["a"], lambda units: dead))
    lake.write_mark("words", "all", "")
    with pytest.raises(NothingMade, match=r"words: none of 1 inputs gave a row: connection refused"):
        make(planner(lake, words), "words")
    manifest = lake.manifest("words")
    assert manifest is not None
    assert manifest.rows == 2


# ---------------------------------------------------------------------------------------------- batches


def made(lake: Lake) -> list[str]:
    """The first unit of each batch that a process finished, as often as it did."""
    notes = lake.root.parent / "made"
    return sorted(notes.read_text().split()) if notes.exists() else []


FIRSTS = sorted(UNITS[::SIZE])


def test_batches_in_this_process_and_in_a_pool_give_the_same_rows(tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        lake = Lake(tmp_path / str(processes) / "lake", "pocket")
        report = run(lake, processes)
        assert report.failures == {}
        assert made(lake) == FIRSTS
        manifest = report.reports["all"].manifest
        assert manifest.info == {"letters": sum(map(len, UNITS))}, "numbers add up, other figures go"
        found.append((manifest.content_hash, manifest.fingerprint, lake.outcomes("words").rows()))
        assert not list((lake.root / "cache" / "parts").glob("*")), "batches go once they are committed"
    assert found[0] == found[1]


def test_ctrl_c_ends_a_pool_at_once_without_a_word_of_its_processes(lake: Lake) -> None:
    """A terminal sends it to all of them. Batches that were finished are kept."""
    folder = lake.root.parent
    (folder / "slow").write_text(UNITS[-1])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.execution.batches", str(lake.root), "2"],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=takes_interrupts,
    )  # fmt: skip
    parts = lake.root / "cache" / "parts"
    while not (folder / "waits").exists() or len(list(parts.rglob("*.json"))) < len(FIRSTS) - 1:
        assert process.poll() is None
        time.sleep(0.05)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert time.monotonic() - started < 60
    assert process.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1, f"the traceback of the program itself and no other: {said}"
    assert said.endswith("KeyboardInterrupt\n")
    assert all_gone(process.pid)
    (folder / "slow").unlink()
    assert len(made(lake)) == len(FIRSTS) - 1
    assert run(lake, 1).failures == {}
    assert sorted(made(lake)) == FIRSTS, "no batch is made twice"


def test_a_run_that_is_killed_goes_on_from_its_finished_batches(lake: Lake) -> None:
    deadly = lake.root.parent / "deadly"
    deadly.write_text(UNITS[2 * SIZE])
    killed = subprocess.run(
        [sys.executable, "-m", "tests.execution.batches", str(lake.root), "1"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert made(lake) == sorted(UNITS[: 2 * SIZE : SIZE])
    assert lake.manifest("words") is None
    deadly.unlink()
    assert run(lake, 1).recomputed == 1
    assert made(lake) == FIRSTS, "no batch was made twice"
    assert lake.read(table("words"))["unit"].to_list() == sorted(UNITS)


def test_a_killed_worker_is_reported_and_what_others_finished_is_kept(lake: Lake) -> None:
    deadly = lake.root.parent / "deadly"
    deadly.write_text(UNITS[-1])
    error = run(lake, 2).failures["all"]
    assert isinstance(error, WorkerDied)
    assert "run again, or lower execution.processes" in str(error)
    finished = made(lake)
    assert lake.manifest("words") is None
    deadly.unlink()
    assert run(lake, 2).failures == {}
    assert made(lake).count(UNITS[-1]) == 1
    # A batch whose rows were on their way from its worker may be made again. The first was stored before.
    assert set(finished) <= set(made(lake))
    assert made(lake).count(UNITS[0]) == 1


def test_batches_of_other_inputs_are_not_taken(lake: Lake) -> None:
    from safevid_core.execution.parts import Parts

    ours, others = (Parts(lake, "words", "all", fingerprint) for fingerprint in ("one", "two"))
    ours.write(["a", "b"], rows_of("words", ["a", "b"]))
    assert others.read(["a", "b"]) is None
    assert ours.read(["a"]) is None
    found = ours.read(["a", "b"])
    assert found is not None
    assert found.outcomes == [("a", "ok", ""), ("b", "ok", "")]
    others.remove()
    assert ours.read(["a", "b"]) is None
