"""What rests on a withdrawn clip is marked until it is made again from what does not."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, DPO_CHECKPOINT
from safevid_core.corpus.trained import write_training_clips
from safevid_core.datasets.marks import Marks, read_marks
from safevid_core.datasets.withdraw import withdraw
from tests.command import safevid
from tests.datasets.test_withdraw import tools_of
from tests.datasets.traced_lake import Traced, build, put

WHY = "the person asked for it"
SCORES = "pocket@1|safevidbench_base"


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return build(tmp_path / "lake", tmp_path / "mine")


def marks_of(traced: Traced) -> Marks:
    tools = tools_of(traced.lake.root)
    return read_marks(tools.registry, tools.lake, tools.settings)


def marked(traced: Traced) -> set[str]:
    return {f"{stage}[{partition}]" for stage, partition in marks_of(traced).seals}


def put_again(traced: Traced, table: object) -> None:
    rows = traced.lake.read(table, SCORES).drop("profile").to_dicts()  # type: ignore[arg-type]
    put(traced.lake, table, SCORES, rows)  # type: ignore[arg-type]


def test_without_a_withdrawal_nothing_is_marked(traced: Traced) -> None:
    assert not marks_of(traced)


def test_checkpoints_scores_and_the_scorecard_are_marked(traced: Traced) -> None:
    withdraw(tools_of(traced.lake.root), traced.clips["c1"], WHY)
    assert marked(traced) == {
        "safevid_350k_release[all]",
        "dpo_checkpoint[pocket@1]",
        f"benchmark_responses[{SCORES}]",
        f"benchmark_scores[{SCORES}]",
        "scorecard[all]",
    }
    mark = marks_of(traced).of("benchmark_scores", SCORES)
    assert mark.startswith(f"rests on 1 withdrawn clip ({traced.clips['c1']}): withdrawn on ")
    assert mark.endswith(WHY)


def test_a_mark_is_inherited_until_a_clean_checkpoint_is_asked(traced: Traced) -> None:
    withdraw(tools_of(traced.lake.root), traced.clips["c1"], WHY)
    put_again(traced, BENCHMARK_SCORES)
    assert f"benchmark_scores[{SCORES}]" in marked(traced), "new verdicts on responses of a marked checkpoint"
    put_again(traced, BENCHMARK_RESPONSES)
    assert f"benchmark_scores[{SCORES}]" in marked(traced), "new responses of a marked checkpoint"

    (row,) = traced.lake.read(DPO_CHECKPOINT, "pocket@1").drop("profile").to_dicts()
    with traced.lake.new_directory("checkpoints") as scratch:
        (scratch / "adapter.json").write_text("trained again")
        none = pl.DataFrame(schema=dict.fromkeys(("clip_id", "media_sha256", "twin_group"), pl.String))
        spans = {"start_s": pl.lit(0.0), "end_s": pl.lit(2.0)}
        write_training_clips(traced.lake, scratch, none.with_columns(**spans))
        clean = traced.lake.keep("checkpoints", scratch)
    put(traced.lake, DPO_CHECKPOINT, "pocket@1", [{**row, "checkpoint": clean}])
    assert "dpo_checkpoint[pocket@1]" not in marked(traced)
    put_again(traced, BENCHMARK_RESPONSES)
    put_again(traced, BENCHMARK_SCORES)
    assert not {each for each in marked(traced) if each.startswith("benchmark")}


def test_two_withdrawals_are_told_together(traced: Traced) -> None:
    for name, why in (("c1", WHY), ("c2", "the licence ended")):
        withdraw(tools_of(traced.lake.root), traced.clips[name], why)
    mark = marks_of(traced).of("dpo_checkpoint", "pocket@1")
    assert mark.startswith("rests on 2 withdrawn clips (")
    assert WHY in mark
    assert "the licence ended" in mark
    assert marks_of(traced).of("dpo_checkpoint", "own_style@1").startswith("rests on 1 withdrawn clip (")


def test_status_names_what_rests_on_the_clip(traced: Traced) -> None:
    root = traced.lake.root
    assert "withdrawn" not in safevid("status", root=root).stdout
    withdraw(tools_of(root), traced.clips["c1"], WHY)
    told = safevid("status", root=root).stdout
    header = next(line for line in told.splitlines() if line.startswith("stage "))
    assert header.split()[-3:] == ["withdrawn", "rows", "USD"]
    mark = marks_of(traced).of("dpo_checkpoint", "pocket@1")
    assert f"{mark}: 1 of safevid_350k_release, 1 of dpo_checkpoint, 1 of benchmark_responses" in told
    lines = safevid("status", "benchmark_scores", "--partitions", root=root).stdout.splitlines()
    assert any(SCORES in line and "withdrawn clip" in line for line in lines)
    found = json.loads(safevid("status", "--partitions", "--json", root=root).stdout)
    stages = {each["stage"]: each["withdrawn"] for each in found["stages"]}
    assert (stages["dpo_checkpoint"], stages["descriptions"]) == (1, 0)
    marks = {each["partition"]: each["withdrawn"] for each in found["partitions"] if each["withdrawn"]}
    assert marks[SCORES] == mark
