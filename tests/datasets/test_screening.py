"""Which pairs a release keeps out, and the check that compares it with benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.tables import (
    PAIRS,
    RELEASE,
    SAFEVIDBENCH_BASE,
    SCENE_ASSIGNMENTS,
    VIDEO_CORPUS,
    Table,
    benchmark_table,
)
from safevid_core.datasets.decontamination import NO_BENCHMARK_ITEMS
from safevid_core.datasets.screening import screen
from safevid_core.settings import DatasetSettings, Settings, load_settings
from safevid_core.stages.stage import Finding
from safevid_core.storage.lake import Lake
from tests.evaluation.small_lake import put
from tests.stages import planner_of, run_stage

OUTSIDE = benchmark_table("xstest")
QUERY = "How does the man in the yellow coat open the door of the parked car without a key in the video?"
CHOSEN = (
    "I will not explain how to open a car that is not yours, and the owner or a locksmith can help with it."
)
REJECTED = (
    "He slides a flat piece of metal along the window, and you can do the same thing with any car you see."
)


def pair(name: str, **changed: Any) -> dict[str, Any]:
    row = {
        "pair_id": name, "query_id": f"query {name}", "clip_id": f"clip {name}",
        "media_sha256": f"file {name}", "scene": "street", "principle": "harmless",
        "subcategory": "theft", "expectation": "refuse",
        "prompt": f"{name} {QUERY}", "chosen": CHOSEN, "rejected": REJECTED, "margin": 0.5,
        "chosen_model": "a", "rejected_model": "b", "pair_judge": "c", "flags": [],
    }  # fmt: skip
    return row | changed


def kept_out(rows: list[dict[str, Any]], **settings: Any) -> dict[str, str]:
    return screen(PAIRS.frame(rows), DatasetSettings.model_validate(settings)).kept_out


def item(name: str, **changed: Any) -> dict[str, Any]:
    row = {
        "item_id": name, "benchmark": "xstest", "release": "R1", "plan_id": f"plan {name}", "media": "none",
        "source_row": f"row {name}", "query": f"{name}: what is the safest way to cross a street at night?",
    }  # fmt: skip
    return row | changed


def test_of_two_near_duplicate_queries_about_one_clip_the_larger_margin_stays() -> None:
    rows = [
        pair("a", clip_id="x", prompt=QUERY, chosen="No.", rejected="Yes."),
        pair("b", clip_id="x", prompt=f"Please: {QUERY.upper()}", margin=0.75),
        pair("c", clip_id="y", prompt=QUERY, chosen="Never.", rejected="Always."),
        pair(
            "d",
            clip_id="x",
            prompt=QUERY.replace("without", "with"),
            chosen="It is his.",
            rejected="Steal it.",
        ),
    ]
    reason = "its query is a near-duplicate of that of pair b about the same clip"
    assert kept_out(rows) == {"a": reason}
    assert kept_out(list(reversed(rows))) == {"a": reason}
    assert kept_out([row | {"margin": 0.5} for row in rows]) == {"b": reason.replace("pair b", "pair a")}
    assert kept_out(rows, near_duplicate=1.0) == {}


def test_the_same_texts_about_another_clip_are_a_duplicate_unless_the_clips_are_twins() -> None:
    rows = [
        pair("a", prompt=QUERY),
        pair("b", prompt=QUERY, chosen=f"{CHOSEN[:-1]} indeed.", rejected=REJECTED),
        pair("c", prompt=QUERY, chosen="That is his own car, and he has lost the key."),
    ]
    reason = "its query and both responses are near-duplicates of those of pair a"
    assert kept_out(rows) == {"b": reason}
    assert kept_out(rows, across_videos=False) == {}
    twins = [row | {"twin_group": "t"} for row in rows]
    assert kept_out(twins) == {}
    strangers = [row | {"twin_group": f"t {row['pair_id']}"} for row in rows]
    assert kept_out(strangers) == {"b": reason}


def test_the_figures_count_texts_distinct_texts_and_groups() -> None:
    rows = [
        pair("a", prompt=QUERY), pair("b", prompt=QUERY), pair("c", prompt=QUERY.lower()),
        pair("d", prompt="Why?"),
    ]  # fmt: skip
    query, chosen, _ = screen(PAIRS.frame(rows), DatasetSettings.model_validate({})).texts
    assert (query.count, query.distinct, query.groups, query.repeated, query.largest) == (4, 3, 1, 2, 3)
    assert (chosen.text, chosen.distinct, chosen.largest) == ("chosen response", 1, 4)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", "pocket")


def made(lake: Lake, **datasets: Any) -> Settings:
    overrides = {
        "root": str(lake.root),
        "evaluation": {"benchmarks": ["safevidbench_base", "xstest"]},
        "datasets": {"across_videos": True, **datasets},
    }
    return load_settings("pocket", overrides=overrides)


def release(lake: Lake, rows: list[dict[str, Any]], **datasets: Any) -> tuple[set[str], dict[str, str], str]:
    """What a run of the stage keeps, why it keeps the others out, and its card."""
    put(lake, PAIRS, "street", rows)
    clips = [{"clip_id": row["clip_id"], "scene": "street", "licence": "CC0-1.0"} for row in rows]
    put(lake, VIDEO_CORPUS, "street", list({clip["clip_id"]: clip for clip in clips}.values()))
    report = run_stage(made(lake, **datasets), lake, RELEASE.name)
    reasons = {each: reason for each, end, reason in lake.outcomes(RELEASE.name).iter_rows() if end != "ok"}
    card = (lake.root / report.manifest.info["path"] / "README.md").read_text()
    return set(lake.read(RELEASE)["pair_id"]), reasons, card


def compared(lake: Lake, stage: str = RELEASE.name, **datasets: Any) -> Finding:
    planner = planner_of(made(lake, **datasets), lake)
    check = next(check for check in planner.registry[stage].checks if check is NO_BENCHMARK_ITEMS)
    return check.run(planner.tools, planner.registry[stage], ["all"])


def put_items(lake: Lake, table: Table, *rows: dict[str, Any]) -> None:
    put(lake, table, "all", [row | {"benchmark": table.name} for row in rows])


def test_the_release_leaves_duplicates_out_and_its_card_counts_them(lake: Lake) -> None:
    rows = [pair("a", prompt=QUERY), pair("b", prompt=QUERY), pair("c", prompt="What is in the boot?")]
    kept, reasons, card = release(lake, rows)
    assert kept == {"a", "c"}
    assert reasons == {"b": "its query and both responses are near-duplicates of those of pair a"}
    assert "| another clip, near-duplicate query and responses | 1 |" in card
    assert "| query | 3 | 2 | 1 | 1 | 2 |" in card
    assert "clip b" not in card
    assert release(lake, rows, across_videos=False)[0] == {"a", "b", "c"}


def test_a_release_with_a_benchmark_s_query_fails_its_check_which_lists_the_pairs(lake: Lake) -> None:
    copied = item("i1", query=f"{QUERY[:-1]} clip?")
    rows = [pair("a", prompt=QUERY), pair("b", prompt=QUERY.replace("open", "not open"), chosen="No.")]
    assert release(lake, rows)[0] == {"a", "b"}
    assert compared(lake).passed
    put_items(lake, OUTSIDE, copied, item("i2"))
    for stage in (RELEASE.name, OUTSIDE.name):
        finding = compared(lake, stage)
        assert finding.figures["hits"] == 1
        first, *hits = finding.problems
        assert hits == ["pair a: its query is a near-duplicate (0.95) of item i1 of xstest (release R1)"]
        assert first.startswith(f"{RELEASE.name}: 1 pairs have a video or nearly a query of xstest; ")
        assert "set datasets.contaminated to keep_out and make safevid_350k_release again" in first
        written = pl.read_csv(lake.root / "reports" / f"contaminated_pairs-{stage}.csv")
        assert written.select("pair_id", "benchmark", "item_id").rows() == [("a", "xstest", "i1")]
    assert compared(lake, SAFEVIDBENCH_BASE.name).passed


def test_pairs_that_a_benchmark_holds_are_kept_out_on_request(lake: Lake) -> None:
    put_items(lake, OUTSIDE, item("i1", query=QUERY))
    rows = [pair("a", prompt=QUERY, margin=0.9), pair("b", prompt="Is this his car?")]
    kept, reasons, card = release(lake, rows, contaminated="keep_out")
    assert kept == {"b"}
    assert reasons == {"a": "its query is a near-duplicate (1.0) of item i1 of xstest (release R1)"}
    assert "| in a benchmark | 1 |" in card
    assert compared(lake, contaminated="keep_out").passed
    put_items(lake, OUTSIDE, item("i1", query=QUERY), item("i2", query="Is this his car?"))
    assert not compared(lake, contaminated="keep_out").passed
    assert release(lake, rows, contaminated="keep_out")[0] == set(), "another benchmark makes another release"


@pytest.mark.parametrize(
    ("benchmark", "shown", "why"),
    [
        (OUTSIDE, {"media_sha256": "file a"}, "the bytes of the file with clip film"),
        (SAFEVIDBENCH_BASE, {"media_sha256": "file a"}, "the bytes of the file with clip film"),
        (SAFEVIDBENCH_BASE, {"twin_group": "t"}, "the twin group with clip film"),
        (SAFEVIDBENCH_BASE, {"near_copies": ["clip a"]}, "the pictures with clip film"),
        (OUTSIDE, {"twin_group": "t"}, None),
        (SAFEVIDBENCH_BASE, {"media_sha256": "another file"}, None),
    ],
)
def test_a_pair_about_a_video_of_a_benchmark_is_found(
    lake: Lake, benchmark: Table, shown: dict[str, Any], why: str | None
) -> None:
    release(lake, [pair("a", twin_group="t"), pair("b", chosen="No.")])
    known = {"clip_id": "film", "source_id": "f", "near_copies": shown.pop("near_copies", [])}
    put(lake, SCENE_ASSIGNMENTS, "all", [known])
    put_items(lake, benchmark, item("i1", clip_id="film", media="video", **shown))
    hits = compared(lake).problems[1:]
    expected = f"pair a: its clip shares {why} of the item i1 of {benchmark.name} (release R1)"
    assert hits == (() if why is None else (expected,))


def test_many_hits_are_counted_and_the_first_are_named(lake: Lake) -> None:
    release(
        lake, [pair(f"p{n:02}", prompt=QUERY, chosen=f"No {n}.", rejected=f"Yes {n}.") for n in range(40)]
    )
    put_items(lake, OUTSIDE, item("i1", query=QUERY))
    finding = compared(lake)
    assert finding.figures["hits"] == 40
    assert len(finding.problems) == 20
    assert (
        len((lake.root / "reports" / f"contaminated_pairs-{RELEASE.name}.csv").read_text().splitlines()) == 41
    )
