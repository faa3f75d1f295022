"""A checkpoint is never measured on what it was trained on, and never trained on what is measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.alignment.training_pairs import read_training_pairs
from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.safevidbench_base import NO_LEAKS, benchmark_leaks, refuse_leaks
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    CORPUS_SPLIT,
    DECIDED_SIDES,
    DPO_CHECKPOINT,
    OWN_STYLE_ANSWERS,
    PAIRS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    RELEASE,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    SCENE_ASSIGNMENTS,
    benchmark_table,
)
from safevid_core.corpus.leakage import leaks
from safevid_core.corpus.trained import CLIP_SCHEMA, FILE_NAME, write_training_clips
from safevid_core.measurement.measurement import measure
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings
from safevid_core.stages.stage import Finding
from safevid_core.storage.lake import Lake
from safevid_core.systems.errors import ResponseError
from tests.evaluation.small_lake import put, settings_for
from tests.stages import planner_of, run_stage

BASE, SYSTEM = SAFEVIDBENCH_BASE.name, "pocket@1"
ASKED = {"clip_id": "asked", "media_sha256": "m-asked", "start_s": 0.0, "end_s": 2.0, "twin_group": "t"}
# What ties a clip that was trained on to the one that is asked about: as the tables tell it.
TIES: dict[str, dict[str, Any]] = {
    "itself": {"clip_id": "asked"},
    "the file": {"media_sha256": "m-asked"},
    "the twin group": {"twin_group": "t"},
    "the source video": {"source_id": "s-asked"},
    "the group": {"group_id": "g-asked"},
    "a near-duplicate": {"near_copies": ["asked"]},
}
RELEASED = [SAFEVIDBENCH_BASE, SAFEVIDBENCH_CHALLENGE]


def clip(name: str, **columns: Any) -> dict[str, Any]:
    return {
        "clip_id": name, "source_id": f"s-{name}", "media_sha256": f"m-{name}", "start_s": 0.0, "end_s": 2.0,
        "twin_group": None, "group_id": f"g-{name}", "split": "train", **columns,
    }  # fmt: skip


def put_known(lake: Lake, *clips: dict[str, Any]) -> None:
    """What the lake knows of clips beside their pairs and items."""
    known = {each["clip_id"]: each for each in [*clips, clip(**ASKED_NAMED, split="benchmark")]}
    for table in (CORPUS_SPLIT, SCENE_ASSIGNMENTS):
        rows = [{k: v for k, v in each.items() if k in table.schema} for each in known.values()]
        put(lake, table, "all", rows)


ASKED_NAMED = {"name": "asked"} | {k: v for k, v in ASKED.items() if k != "clip_id"}


def put_items(lake: Lake, table: Any = SAFEVIDBENCH_BASE, count: int = 3, **columns: Any) -> None:
    rows = [
        {**ASKED, "item_id": f"i{n}", "plan_id": f"p{n}", "source_row": f"r{n}", "benchmark": table.name,
         "release": "R1", "media": "video", "query": "What?", "expectation": "answer", "scene": "park",
         "description": "x", "explicit": False, **columns}
        for n in range(count)
    ]  # fmt: skip
    put(lake, table, "all", rows)


def put_checkpoint(lake: Lake, trained: Sequence[dict[str, Any]] | None, system: str = SYSTEM) -> str:
    """A checkpoint, with the clips that it was trained on beside its adapter."""
    with lake.new_directory("checkpoints") as folder:
        (folder / "adapter.json").write_text(json.dumps({"system": system}))
        if trained is not None:
            rows = [{name: each.get(name) for name in CLIP_SCHEMA} for each in trained]
            write_training_clips(lake, folder, pl.DataFrame(rows, schema=CLIP_SCHEMA))
        kept = lake.keep("checkpoints", folder)
    row = {"checkpoint_id": f"c {system}", "policy": system.partition("@")[0], "data_scale": 1.0, "seed": 0}
    put(lake, DPO_CHECKPOINT, system, [row | {"checkpoint": kept}])
    return kept


def put_answers(lake: Lake, adapter: str | None, system: str = SYSTEM, benchmark: str = BASE) -> None:
    common = {
        "item_id": "i0",
        "benchmark": benchmark,
        "system": system,
        "response_id": "x",
        "variant": "right",
    }
    answer = common | {"request_id": "q", "settings": json.dumps({"adapter": adapter}), "seed": 0}
    put(lake, BENCHMARK_RESPONSES, f"{system}|{benchmark}", [answer])
    put(lake, BENCHMARK_SCORES, f"{system}|{benchmark}", [common | {"seed": 0, "success": True}])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, "pocket")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path, benchmarks=[BASE])


def stages(settings: Settings, lake: Lake) -> dict[str, Callable[[], Any]]:
    gateway = Gateway(settings)
    return {
        "responses": lambda: run_stage(settings, lake, "benchmark_responses", f"{SYSTEM}|{BASE}", gateway),
        "scores": lambda: run_stage(settings, lake, "benchmark_scores", f"{SYSTEM}|{BASE}", gateway),
        "measure": lambda: measure(settings, lake, BASE),
        "scorecard": lambda: run_stage(settings, lake, "scorecard"),
        "promotion": lambda: run_stage(settings, lake, "promotion_decision"),
    }


@pytest.mark.parametrize("tie", TIES)
def test_every_stage_refuses_a_checkpoint_that_knows_the_items(
    lake: Lake, settings: Settings, tie: str
) -> None:
    trained = clip("trained", **TIES[tie]) if tie != "itself" else clip(**ASKED_NAMED)
    put_known(lake, trained)
    put_items(lake)
    adapter = put_checkpoint(lake, [clip("other"), trained])
    put(lake, CORPUS_SPLIT, "all", [])  # what was written down with the adapter is enough
    put_known(lake, *([trained] if tie == "a near-duplicate" else []))
    put_answers(lake, adapter)
    for name, stage in stages(settings, lake).items():
        with pytest.raises(ResponseError, match="3 items of release R1 ask about what pocket@1") as caught:
            stage()
        line = str(caught.value)
        assert f"1 of its clips, first {trained['clip_id']} (" in line, name
        assert "materialise dpo_checkpoint" in line
        assert "evaluation.releases.safevidbench_base to new" in line
        assert "\n" not in line
    assert any(
        f"checkpoint {SYSTEM}: train clip {trained['clip_id']}" in each for each in benchmark_leaks(lake)
    )
    assert not found_leaks(settings, lake).passed
    with pytest.raises(
        BenchmarkError, match=r"leaks between train and benchmark, first: checkpoint pocket@1"
    ):
        refuse_leaks(settings, lake, pl.DataFrame([ASKED]), BASE)


def found_leaks(settings: Settings, lake: Lake) -> Finding:
    """What the check after SafeVidBench-Base finds."""
    planner = planner_of(settings, lake)
    return NO_LEAKS.run(planner.tools, planner.registry[BASE], ["all"])


def test_a_checkpoint_of_other_clips_is_measured(lake: Lake, settings: Settings) -> None:
    put_known(lake)
    put_items(lake)
    adapter = put_checkpoint(lake, [clip("other"), clip("another", twin_group="t2")])
    put_answers(lake, adapter)
    measure(settings, lake, BASE)
    assert benchmark_leaks(lake) == []
    assert found_leaks(settings, lake).passed


def test_a_twin_that_is_declared_later_counts(lake: Lake, settings: Settings) -> None:
    put_known(lake, clip("trained"))
    put_items(lake)
    put_answers(lake, put_checkpoint(lake, [clip("trained")]))
    measure(settings, lake, BASE)
    put_known(lake, clip("trained", twin_group="t"))
    with pytest.raises(ResponseError, match="first trained"):
        measure(settings, lake, BASE)


def test_what_counts_is_the_adapter_that_answered(lake: Lake, settings: Settings) -> None:
    """A clean checkpoint of today does not wash the answers of one that knew the items."""
    put_known(lake)
    put_items(lake)
    put_answers(lake, put_checkpoint(lake, [clip(**ASKED_NAMED)]))
    clean = put_checkpoint(lake, [clip("other")])
    with pytest.raises(ResponseError, match="ask about what pocket@1 was trained on"):
        measure(settings, lake, BASE)
    put_answers(lake, clean)
    measure(settings, lake, BASE)


def test_control_runs_are_refused_too(lake: Lake, settings: Settings) -> None:
    put_known(lake)
    put_items(lake)
    system = next(name for name in settings.systems if name.startswith("permuted_videos"))
    adapter = put_checkpoint(lake, [clip(**ASKED_NAMED)], system)
    put_answers(lake, adapter, system)
    with pytest.raises(ResponseError, match=f"ask about what {system} was trained on"):
        run_stage(settings, lake, "benchmark_responses", f"{system}|{BASE}", Gateway(settings))
    for stage in ("scorecard", "promotion_decision"):
        with pytest.raises(ResponseError, match=f"ask about what {system} was trained on"):
            run_stage(settings, lake, stage)


def test_files_of_other_benchmarks_count_and_their_names_do_not(lake: Lake, settings: Settings) -> None:
    table = benchmark_table("video_safetybench")
    put_items(lake, table)
    put_checkpoint(lake, [clip("other", twin_group="t", source_id="s-asked")])
    for trained, refused in (
        ([clip("other", twin_group="t")], False),
        ([clip("x", media_sha256="m-asked")], True),
    ):
        adapter = put_checkpoint(lake, trained)
        put_answers(lake, adapter, benchmark=table.name)
        if not refused:
            measure(settings, lake, table.name)
            continue
        with pytest.raises(ResponseError, match="leave the benchmark out"):
            measure(settings, lake, table.name)


def pairs_about(*clips: str) -> list[dict[str, Any]]:
    return [
        {**clip(name), "pair_id": f"pair {name}", "query_id": f"q {name}", "chosen": "a", "rejected": "b",
         "scene": "park", "subcategory": "x"}
        for name in clips
    ]  # fmt: skip


def put_pairs(lake: Lake, table: Any, rows: Sequence[dict[str, Any]], partition: str = "all") -> None:
    kept = [{k: v for k, v in row.items() if k in table.schema} for row in rows]
    put(
        lake,
        table,
        partition,
        [row | ({"release": "r"} if "release" in table.schema else {}) for row in kept],
    )


@pytest.mark.parametrize("how", ["its pairs are still there", "they are in a kept release", "it names none"])
def test_a_checkpoint_from_before_is_known_by_its_pairs(lake: Lake, settings: Settings, how: str) -> None:
    put_known(lake)
    put_items(lake)
    rows = pairs_about("asked", "other")
    adapter = put_checkpoint(lake, None)
    table = lake.read(DPO_CHECKPOINT, SYSTEM).drop("profile")
    if how != "it names none":
        outcomes = [(row["pair_id"], "ok", "") for row in rows]
        lake.commit(DPO_CHECKPOINT, SYSTEM, StageRows(table, outcomes), "", {})  # type: ignore[arg-type]
    if how == "they are in a kept release":
        with lake.new_directory("release") as folder:
            (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            lake.keep("release", folder)
        put_pairs(lake, PAIRS, pairs_about("new"), "park")
    else:
        put_pairs(lake, PAIRS, rows, "park")
    put_answers(lake, adapter)
    with pytest.raises(ResponseError, match="1 of its clips, first asked "):
        measure(settings, lake, BASE)


def test_answers_of_an_adapter_that_nothing_tells_of_are_held_to_all_pairs(
    lake: Lake, settings: Settings
) -> None:
    put_known(lake)
    put_items(lake)
    old = put_checkpoint(lake, None)
    put_checkpoint(lake, [clip("other")])
    put_answers(lake, old)
    put_pairs(lake, PAIRS, pairs_about("other"), "park")
    measure(settings, lake, BASE)
    put_pairs(lake, PAIRS, pairs_about("other", "asked"), "park")
    with pytest.raises(ResponseError, match="ask about what pocket@1 was trained on"):
        measure(settings, lake, BASE)


@pytest.mark.parametrize("table", RELEASED, ids=lambda table: table.name)
@pytest.mark.parametrize("tie", TIES)
def test_training_leaves_out_what_a_release_in_use_asks_about(lake: Lake, tie: str, table: Any) -> None:
    tied = clip("trained", **TIES[tie]) if tie != "itself" else clip(**ASKED_NAMED)
    put_known(lake, tied, clip("other"))
    put_items(lake, table)
    rows = pairs_about("trained", "other")
    rows[0] |= {name: tied[name] for name in ASKED}
    put_pairs(lake, RELEASE, rows)
    put_pairs(lake, PAIRS_WITHOUT_DESCRIPTIONS, rows, "park")
    put_pairs(lake, OWN_STYLE_ANSWERS, rows, "park")
    for control_run in ("release", "own_style", "without_descriptions"):
        pairs = read_training_pairs(lake, control_run)
        assert pairs.rows["clip_id"].to_list() == ["other"]
        assert list(pairs.held_out) == ["pair trained"]
        assert f"clip asked of {table.name} (release R1)" in pairs.held_out["pair trained"]
        assert pairs.share == 1.0


def test_training_leaves_out_what_is_on_the_side_benchmark(lake: Lake) -> None:
    decided = {**clip("moved", split="benchmark"), "decision_id": "d"}
    put(lake, DECIDED_SIDES, "000001", [decided])
    put(lake, CORPUS_SPLIT, "all", [{"clip_id": "moved", "split": "train"}])
    put_pairs(lake, RELEASE, pairs_about("moved", "other"))
    pairs = read_training_pairs(lake, "release")
    assert pairs.rows["clip_id"].to_list() == ["other"]
    assert pairs.held_out == {"pair moved": "its clip is on the side benchmark"}


def test_a_bridge_that_was_set_aside_is_no_leak(lake: Lake) -> None:
    """Two clips that both resemble a third one do not resemble each other."""
    put_known(lake, clip("trained", near_copies=["bridge"]), clip("bridge", near_copies=["trained", "asked"]))
    put_items(lake)
    put_checkpoint(lake, [clip("trained")])
    assert benchmark_leaks(lake) == []


def test_leaks_of_large_groups_are_reported_in_lines_not_in_squares() -> None:
    side = pl.DataFrame({"clip_id": [f"{i:06d}" for i in range(20_000)], "twin_group": "t"})
    other = side.with_columns(clip_id="b" + pl.col("clip_id"))
    assert len(leaks(side, other)) == side.height


def test_what_is_written_beside_an_adapter_hangs_on_the_clips_alone(lake: Lake, tmp_path: Path) -> None:
    put(lake, DECIDED_SIDES, "000001", [{**clip("a"), "decision_id": "d"}])
    columns = ["clip_id", "media_sha256", "start_s", "end_s", "twin_group"]
    pairs = pl.DataFrame([clip("b"), clip("a"), clip("b")]).select(columns)
    texts = []
    for number, frame in enumerate((pairs, pairs.reverse())):
        (tmp_path / str(number)).mkdir()
        write_training_clips(lake, tmp_path / str(number), frame)
        texts.append((tmp_path / str(number) / FILE_NAME).read_text())
    assert texts[0] == texts[1]
    first, second = map(json.loads, texts[0].splitlines())
    assert (first["clip_id"], first["source_id"], first["group_id"]) == ("a", "s-a", "g-a")
    assert (second["clip_id"], second["source_id"]) == ("b", None)
