"""Two runs: what changed is read from their records, moves are paired, and one change alone explains one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, DPO_CHECKPOINT
from safevid_core.reporting.comparison import LakeRun, as_json, as_markdown, compare_runs
from safevid_core.reporting.comparison.differences import Record, changes_between
from safevid_core.reporting.comparison.runs import SystemComparison
from safevid_core.reporting.errors import ReportError
from safevid_core.storage.lake import Lake
from tests.command import is_one_line, safevid
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.small_lake import change_verdicts, put, put_release, settings_for

SYSTEM = "pocket@1"


@pytest.fixture
def other(evaluated: Evaluated, tmp_path: Path) -> Lake:
    """A second run, so far the same in all."""
    shutil.copytree(evaluated.lake.root, tmp_path / "other")
    return Lake(tmp_path / "other", "pocket")


def compared(evaluated: Evaluated, other: Lake) -> SystemComparison:
    """The other run against the first, by one system."""
    ours = LakeRun(settings_for(other.root), other)
    (benchmark,) = compare_runs(ours, LakeRun(evaluated.settings, evaluated.lake)).benchmarks
    assert benchmark.refused is None
    return next(each for each in benchmark.systems if each.system == SYSTEM)


def move(found: SystemComparison, metric: str) -> Any:
    return next(each for each in found.moves if each.metric == metric).change


def fail_all(row: dict[str, Any]) -> None:
    row["success"] = False


def other_judge(lake: Lake, **judge_entry: Any) -> dict[str, Any]:
    manifest = lake.manifest(BENCHMARK_SCORES.name, f"{SYSTEM}|{BENCHMARK}")
    assert manifest is not None
    return {"judges": {"rubric": {**manifest.info["judges"]["rubric"], **judge_entry}}}


def train_on(lake: Lake, **columns: Any) -> None:
    rows = lake.read(DPO_CHECKPOINT, SYSTEM).drop("profile").to_dicts()
    put(
        lake,
        DPO_CHECKPOINT,
        SYSTEM,
        [{**row, **columns, "checkpoint_id": f"new {row['seed']}"} for row in rows],
    )


def test_the_same_run_twice_differs_in_nothing(evaluated: Evaluated, other: Lake) -> None:
    ours = LakeRun(settings_for(other.root), other)
    found = compare_runs(ours, LakeRun(evaluated.settings, evaluated.lake))
    (benchmark,) = found.benchmarks
    assert {each.system for each in benchmark.systems} == set(evaluated.settings.systems)
    assert not any(each.is_different for each in benchmark.systems)
    assert found.only == []
    assert "Nothing that is recorded changed, and no figure moved: " in as_markdown(found)


def test_only_the_judge_changed_so_it_can_explain_the_move(evaluated: Evaluated, other: Lake) -> None:
    change_verdicts(other, SYSTEM, BENCHMARK, fail_all, **other_judge(other, model="scripted/strict"))
    found = compared(evaluated, other)
    assert [(change.what, change.against, change.ours) for change in found.changes] == [
        ("judge", "rubric scripted/judge 1", "rubric scripted/strict 1")
    ]
    assert found.explanation == "only the judge changed, which can explain what moved"
    safety = move(found, "safety_rate")
    assert safety.value < -0.5
    assert safety.ci_high < 0


@pytest.mark.parametrize(
    ("judge_entry", "what"),
    [
        ({"version": "99"}, "judge's parser"),
        ({"identity": "another prompt/2"}, "judge's prompt or sampling"),
        ({"model": "scripted/strict", "identity": "another/2"}, "judge"),
    ],
)
def test_a_judge_s_parts_are_distinguished(
    evaluated: Evaluated, other: Lake, judge_entry: dict[str, str], what: str
) -> None:
    change_verdicts(other, SYSTEM, BENCHMARK, lambda row: None, **other_judge(other, **judge_entry))
    found = compared(evaluated, other)
    assert [change.what for change in found.changes] == [what]
    assert found.explanation == f"{what} changed, and no figure moved"


def test_two_changes_explain_nothing(evaluated: Evaluated, other: Lake) -> None:
    train_on(other, release="another")
    change_verdicts(other, SYSTEM, BENCHMARK, fail_all, **other_judge(other, model="scripted/strict"))
    found = compared(evaluated, other)
    assert [change.what for change in found.changes] == ["data release", "judge"]
    assert (
        found.explanation
        == "data release and judge changed, so none of them can be said to explain what moved"
    )


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"release": "another"}, "data release"),
        ({"base": "another", "base_revision": "2"}, "model"),
        ({}, "weights of the system"),
    ],
)
def test_other_weights_are_laid_to_what_they_were_trained_on(
    evaluated: Evaluated, other: Lake, columns: dict[str, str], what: str
) -> None:
    train_on(other, **columns)
    assert [change.what for change in compared(evaluated, other).changes] == [what]


def test_how_answers_were_made_is_compared_but_not_where_the_adapter_lies(
    evaluated: Evaluated, other: Lake
) -> None:
    partition = f"{SYSTEM}|{BENCHMARK}"
    rows = other.read(BENCHMARK_RESPONSES, partition).drop("profile").to_dicts()

    def again(**settings: Any) -> list[str]:
        changed_rows = [
            {**row, "settings": json.dumps({**json.loads(row["settings"]), **settings})} for row in rows
        ]
        put(other, BENCHMARK_RESPONSES, partition, changed_rows)
        return [change.what for change in compared(evaluated, other).changes]

    answered = evaluated.lake.manifest(BENCHMARK_RESPONSES.name, partition)
    assert answered is not None
    unchanged = [] if not answered.inputs.get("image_as") else ["generation settings"]
    assert again(adapter="blobs/elsewhere") == unchanged
    assert again(frames=99) == ["generation settings"]
    assert again(system_prompt="Be careful.") == ["system prompt"]


def test_a_move_is_paired_over_the_items_with_a_verdict_in_both(evaluated: Evaluated, other: Lake) -> None:
    partition = f"{SYSTEM}|{BENCHMARK}"
    rows = other.read(BENCHMARK_SCORES, partition).drop("profile")
    safe = rows.filter((pl.col("variant") == "right") & (pl.col("expected") != "answer"))
    dropped = set(safe["item_id"].unique().sort().head(20))
    put(
        other,
        BENCHMARK_SCORES,
        partition,
        rows.filter(~pl.col("item_id").is_in(sorted(dropped))).to_dicts(),
        **other_judge(other),
    )
    safety = move(compared(evaluated, other), "safety_rate")
    assert safety.n == safe["item_id"].n_unique() - 20
    assert safety.value == 0


def test_different_releases_are_refused_and_named(evaluated: Evaluated, other: Lake) -> None:
    put_release(other, BENCHMARK, "another")
    found = compare_runs(
        LakeRun(settings_for(other.root), other), LakeRun(evaluated.settings, evaluated.lake)
    )
    (benchmark,) = found.benchmarks
    assert benchmark.systems == []
    assert "our run is of release another" in str(benchmark.refused)
    assert "figures of different releases do not compare" in as_markdown(found)
    assert as_json(found)["benchmarks"][0]["refused"] == benchmark.refused


def test_what_only_one_run_measured_is_said(evaluated: Evaluated, other: Lake) -> None:
    shutil.rmtree(other.folder(BENCHMARK_SCORES.name, f"gibberish|{BENCHMARK}"))
    found = compare_runs(
        LakeRun(settings_for(other.root), other), LakeRun(evaluated.settings, evaluated.lake)
    )
    assert found.only == [f"gibberish was measured on {BENCHMARK} in the other only"]
    shutil.rmtree(other.root / "tables" / BENCHMARK_SCORES.name)
    with pytest.raises(ReportError, match="measure both on one"):
        compare_runs(LakeRun(settings_for(other.root), other), LakeRun(evaluated.settings, evaluated.lake))


def test_the_json_and_the_markdown_tell_the_same(evaluated: Evaluated, other: Lake) -> None:
    change_verdicts(other, SYSTEM, BENCHMARK, fail_all, **other_judge(other, model="scripted/strict"))
    found = compare_runs(
        LakeRun(settings_for(other.root), other), LakeRun(evaluated.settings, evaluated.lake)
    )
    document = json.loads(json.dumps(as_json(found)))
    system = next(each for each in document["benchmarks"][0]["systems"] if each["system"] == SYSTEM)
    cell = next(each for each in system["metrics"] if each["metric"] == "safety_rate")
    assert cell["ours"] == 0
    assert cell["change"] == pytest.approx(-cell["against"], abs=0.02)
    assert cell["ci_low"] <= cell["change"] <= cell["ci_high"]
    text = as_markdown(found)
    assert f"| {SYSTEM} | safety rate | {100 * cell['against']:.1f}% | 0.0% |" in text
    assert f"- {SYSTEM}: only the judge changed, which can explain what moved." in text
    assert "| pocket@0 |" not in text


# --------------------------------------------------------------------------------------- command line


def test_the_command_prints_or_writes(evaluated: Evaluated, other: Lake, tmp_path: Path) -> None:
    roots = [other.root, evaluated.lake.root]
    printed = safevid("compare", *roots)
    assert printed.exit_code == 0
    assert printed.stdout.startswith("# Two runs\n")
    written = safevid("compare", *roots, "--to", tmp_path / "out")
    assert written.stdout.splitlines() == [
        str(tmp_path / "out" / name) for name in ("comparison.md", "comparison.json")
    ]
    assert (tmp_path / "out" / "comparison.md").read_text() == printed.stdout
    document = json.loads(safevid("compare", *roots, "--json").stdout)
    assert document == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document["benchmarks"]


def delete(root: Path) -> None:
    shutil.rmtree(root)


def spoil_a_manifest(root: Path) -> None:
    next((root / "tables" / BENCHMARK_SCORES.name).glob("*/manifest.json")).write_text("{")


@pytest.mark.parametrize(
    ("spoil", "says"), [(delete, "holds no lake"), (spoil_a_manifest, "is not a manifest")]
)
def test_an_error_is_one_line(
    evaluated: Evaluated, other: Lake, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(other.root)
    assert is_one_line(safevid("compare", evaluated.lake.root, other.root), 2, says)


# ------------------------------------------------------------------------------------------- records

words = st.sampled_from(["", "a", "b"])
judges = st.dictionaries(
    st.sampled_from(["rubric", "wildguard"]),
    st.fixed_dictionaries({"model": words, "revision": words, "version": words, "identity": words}),
)
records = st.builds(
    Record,
    data=st.tuples(words, words),
    model=words,
    training=st.dictionaries(st.sampled_from(["policy", "alignment"]), words),
    seeds=st.sampled_from([(0,), (0, 1, 2)]),
    prompt=words,
    generation=words,
    weights=words,
    judges=judges,
)


@given(records, records)
def test_changes_are_named_once_and_the_same_from_both_sides(ours: Record, against: Record) -> None:
    there = list(changes_between(ours, against))
    back = list(changes_between(against, ours))
    assert [(each.what, each.ours, each.against) for each in there] == [
        (each.what, each.against, each.ours) for each in back
    ]
    assert len({each.what for each in there}) == len(there)
    assert list(changes_between(ours, ours)) == []
    system = [each.what for each in there if not each.what.startswith("judge")]
    assert ("weights of the system" in system) == (system == ["weights of the system"])


@given(records)
def test_other_seeds_alone_are_other_seeds_alone(ours: Record) -> None:
    trained = replace(ours, training={**ours.training, "policy": "one"}, seeds=(0,))
    again = replace(trained, training={**trained.training, "policy": "two"}, seeds=(0, 1), weights="other")
    assert [each.what for each in changes_between(again, trained)] == ["training seeds"]
