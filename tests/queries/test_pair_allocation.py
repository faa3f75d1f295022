"""The stage `pair_allocation`, and the query plan and the comparison that are made from it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.contracts.outcomes import Outcome, StageRows, sequence_outcomes
from safevid_core.contracts.tables import (
    PAIR_ALLOCATION,
    PAIR_YIELD,
    PAIRS,
    QUERY_PLAN,
    QUERY_PLAN_WITHOUT_DESCRIPTIONS,
    RELEASE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
)
from safevid_core.datasets.pair_yield import ENDS
from safevid_core.datasets.pair_yield import STAGE as STAGE_OF_YIELD
from safevid_core.datasets.splits import sources_of, with_splits
from safevid_core.estimates import estimate
from safevid_core.queries.allocation_program import AllocationError
from safevid_core.queries.assignment import _matched
from safevid_core.queries.pair_allocation import asked_in, plans_to_be_made, scenes_of_other_plans
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.taxonomy import load_scenes
from tests.command import is_one_line, safevid
from tests.queries import commit, described
from tests.stages import commit_empty, run_stage, tools_of

SCENES = ("farm", "kitchen")
OTHERS = [scene for scene in load_scenes().ids if scene not in SCENES]


def with_target(
    root: Path, target: int | None = 150, shortage: str = "report", **allocation: Any
) -> Settings:
    datasets = {"target_pairs": target, "shortage": shortage, "allocation": allocation}
    return load_settings("pocket", overrides={"root": str(root), "datasets": datasets})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with the described training clips of two scenes, and no clip of the others."""
    lake, rows = Lake(tmp_path, "pocket"), described(SCENES)
    commit(lake, rows)
    for scene in SCENES:
        clips = [row for row in rows if row["scene"] == scene]
        corpus = [
            {name: row.get(name) for name in ("clip_id", "source_id", "scene", "split")} for row in clips
        ]
        outcomes = sequence_outcomes([row["clip_id"] for row in corpus], "ok")
        lake.commit(VIDEO_CORPUS, scene, StageRows(VIDEO_CORPUS.frame(corpus), outcomes), "given", {})
    commit_empty(lake, ["video_corpus", "descriptions"], OTHERS)
    return lake


def asked_of(lake: Lake, scene: str) -> Counter[tuple[str, str, bool]]:
    return Counter(dict(asked_in(lake, scene)))


def planned_of(lake: Lake, scene: str) -> Counter[tuple[str, str, bool]]:
    rows = lake.read(QUERY_PLAN, scene).select("subcategory", "style", "benign")
    return Counter(rows.iter_rows())


def test_the_plan_of_a_scene_asks_what_is_allocated_as_far_as_there_is_ground(
    lake: Lake, tmp_path: Path
) -> None:
    settings = with_target(tmp_path, queries_per_clip=12)
    report = run_stage(settings, lake, "pair_allocation")
    info = report.manifest.info
    assert (info["target"], info["planned"], info["shortage"]) == (150, 150, 0)
    plain = (int, float, str, list)
    assert all(type(value) in plain for value in info.values()), "the event log refuses numpy's numbers"
    assert info["benign_share"] == 0.5
    assert report.manifest.outcomes == {"ok": 2, "filtered": 28, "failed": 0, "undecidable": 0}
    for scene in SCENES:
        told = run_stage(settings, lake, "query_plan", scene).manifest.info
        asked, planned = asked_of(lake, scene), planned_of(lake, scene)
        assert planned <= asked
        assert told["asked"] == asked.total()
        assert told["not_assigned"] == asked.total() - planned.total()
        assert 0 < told["not_assigned"] < asked.total(), "the rendered clips lack ground for some strata"
        per_clip = Counter(lake.read(QUERY_PLAN, scene)["clip_id"])
        assert max(per_clip.values()) <= 12
        assert told["mirrored"] == 0, "queries of twins would be asked beyond the allocation"


def test_the_plan_without_descriptions_has_the_same_allocation(lake: Lake, tmp_path: Path) -> None:
    settings = with_target(tmp_path)
    run_stage(settings, lake, "pair_allocation")
    told = run_stage(settings, lake, "query_plan_without_descriptions", "kitchen").manifest.info
    asked = asked_of(lake, "kitchen")
    assert told["asked"] == asked.total()
    rows = lake.read(QUERY_PLAN_WITHOUT_DESCRIPTIONS, "kitchen").select("subcategory", "style", "benign")
    assert Counter(rows.iter_rows()) == asked, "everything has ground in a clip of which nothing is known"


def test_without_a_target_nothing_is_allocated(lake: Lake, tmp_path: Path) -> None:
    settings = with_target(tmp_path, None)
    tools = tools_of(settings, lake)
    flow = {stage.name for stage, _ in tools.registry.flow(settings)}
    assert not flow & {"pair_allocation", "pair_yield"}
    planner = Planner(tools)
    assert planner.state(tools.registry["query_plan"], "kitchen").condition == "missing"
    assert "allocation" not in planner.plan(tools.registry["query_plan"], "kitchen").inputs
    with pytest.raises(AllocationError, match="target_pairs is not set"):
        run_stage(settings, lake, "pair_allocation")


def test_with_a_target_the_plan_waits_for_the_allocation(lake: Lake, tmp_path: Path) -> None:
    settings = with_target(tmp_path)
    tools = tools_of(settings, lake)
    state = Planner(tools).state(tools.registry["query_plan"], "kitchen")
    assert (state.condition, state.reason) == ("blocked", "pair_allocation is not made yet")
    run_stage(settings, lake, "pair_allocation")
    assert Planner(tools).state(tools.registry["query_plan"], "kitchen").condition == "missing"


def test_an_estimate_prices_the_allocation_before_anything_is_made(tmp_path: Path, lake: Lake) -> None:
    """The same number of queries is then allocated. Every track asks as many."""
    settings = with_target(tmp_path)
    stages = ("query_plan", "taxonomy_queries", "safevid_350k_pairs")
    rows = {(row.asset, row.model): row for row in estimate(Planner(tools_of(settings, lake)), stages)}
    run_stage(settings, lake, "pair_allocation")
    asked = int(lake.read(PAIR_ALLOCATION)["asked"].sum())
    assert asked > 150
    assert rows["query_plan", "scripted/asker"].calls == 36, "one walk a clip"
    assert rows["taxonomy_queries", "scripted/asker"].calls == asked
    assert rows["taxonomy_queries", "scripted/rater"].calls == 2 * asked
    assert rows["safevid_350k_pairs", "scripted/responder"].calls == asked
    again = {(row.asset, row.model): row for row in estimate(Planner(tools_of(settings, lake)), stages)}
    assert again["taxonomy_queries", "scripted/asker"].calls == asked


def test_plans_of_another_target_price_and_compare_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run without a target, or with another one, the committed plans say nothing about this one."""
    old = with_target(tmp_path)
    for settings in (with_target(tmp_path, None), old):
        if settings is old:
            run_stage(settings, lake, "pair_allocation")
        for scene in SCENES:
            run_stage(settings, lake, "query_plan", scene)
        assert not plans_to_be_made(tools_of(settings, lake))
        new = with_target(tmp_path, 100)
        assert "of 2 scenes are not of this target" in plans_to_be_made(tools_of(new, lake))
        monkeypatch.setenv("SAFEVID_DATASETS__TARGET_PAIRS", "100")
        done = safevid("estimate", "query_plan", root=tmp_path)
        assert "Target not priced: the query plans of 2 scenes are not of this target" in done.stdout
    run_stage(new, lake, "pair_allocation")
    assert set(scenes_of_other_plans(tools_of(new, lake))) == set(SCENES)
    with pytest.raises(
        AllocationError, match=r"query_plan\[kitchen\] was not made for this allocation \(2 scenes"
    ):
        STAGE_OF_YIELD.plan(tools_of(new, lake), "all")
    for scene in SCENES:
        run_stage(new, lake, "query_plan", scene)
    assert not plans_to_be_made(tools_of(new, lake))
    assert STAGE_OF_YIELD.plan(tools_of(new, lake), "all").units


def test_the_command_says_why_a_target_cannot_be_met(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEVID_DATASETS__TARGET_PAIRS", "10000")
    done = safevid("estimate", "query_plan", root=tmp_path)
    assert done.exit_code == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("Target not met: ")]
    assert any("raise it to 397, or add clips" in line for line in lines)
    told = json.loads(safevid("estimate", "query_plan", "--json", root=tmp_path).stdout)
    assert [f"Target not met: {line}" for line in told["shortage"]] == lines
    monkeypatch.setenv("SAFEVID_DATASETS__TARGET_PAIRS", "0")
    done = safevid("estimate", "query_plan", root=tmp_path)
    assert is_one_line(done, 2, "0 pairs cannot be allocated; give at least 1, or null for no target")


def test_a_target_that_cannot_be_met_is_refused_on_request(lake: Lake, tmp_path: Path) -> None:
    settings = with_target(tmp_path, 10_000, "refuse")
    with pytest.raises(AllocationError) as raised:
        run_stage(settings, lake, "pair_allocation")
    told = str(raised.value)
    assert "datasets.target_pairs is 10,000, and " in told
    assert "14,286 queries at the expected survival, 396.8 for each of 36 clips" in told
    assert "raise it to 397, or add clips" in told
    assert told.endswith("or set datasets.shortage to report")
    assert lake.manifest("pair_allocation") is None
    with pytest.raises(AllocationError):
        estimate(Planner(tools_of(settings, lake)), ["query_plan"])
    report = run_stage(with_target(tmp_path, 10_000), lake, "pair_allocation")
    info = report.manifest.info
    assert info["planned"] + info["shortage"] == 10_000
    assert info["planned"] > 0
    assert any("raise it to 397" in line for line in info["problems"])


# --------------------------------------------------------------------------------- planned against made


def end_pairs(lake: Lake, scene: str) -> Counter[str]:
    """Commit the pairs of a scene's queries: one of three is dropped by the judge, one of seven failed."""
    queries = lake.read(TAXONOMY_QUERIES, scene)
    outcomes: list[tuple[str, Outcome, str]] = []
    pairs = []
    for place, row in enumerate(queries.sort("query_id").iter_rows(named=True)):
        outcome: Outcome = "filtered" if place % 3 == 0 else "failed" if place % 7 == 0 else "ok"
        outcomes.append((row["query_id"], outcome, "" if outcome == "ok" else "so it ends"))
        if outcome == "ok":
            carried = {name: row[name] for name in PAIRS.schema.names() if name in row}
            pairs.append({**carried, "pair_id": f"pair {row['query_id']}"})
    lake.commit(PAIRS, scene, StageRows(PAIRS.frame(pairs), outcomes), "given", {})
    return Counter(outcome for _, outcome, _ in outcomes)


def make_release(lake: Lake) -> int:
    """Commit a release of all pairs but one of five; return how many were kept out."""
    pairs = lake.read(PAIRS).drop("profile").sort("pair_id")
    out = [pair for place, pair in enumerate(pairs["pair_id"]) if place % 5 == 0]
    outcomes: list[tuple[str, Outcome, str]] = [
        (pair, "filtered" if pair in out else "ok", "a duplicate" if pair in out else "")
        for pair in pairs["pair_id"]
    ]
    kept = pairs.filter(~pl.col("pair_id").is_in(out)).with_columns(pl.lit("r").alias("release"))
    rows = with_splits(kept, sources_of(lake, kept), 0.0)
    lake.commit(RELEASE, "all", StageRows(rows, outcomes), "given", {})
    return len(out)


@pytest.fixture
def first_round(lake: Lake, tmp_path: Path) -> tuple[Lake, Settings, dict[str, int]]:
    """A lake after the first round, and how many queries ended how by its tables."""
    settings = with_target(tmp_path, queries_per_clip=20)
    run_stage(settings, lake, "pair_allocation")
    ended: Counter[str] = Counter()
    for scene in SCENES:
        run_stage(settings, lake, "query_plan", scene)
        run_stage(settings, lake, "taxonomy_queries", scene)
        ends = end_pairs(lake, scene)
        ended.update({"judged_out": ends["filtered"], "failed_pair": ends["failed"]})
    ended["kept_out"] = make_release(lake)
    ended["released"] = lake.read(RELEASE).height
    return lake, settings, dict(ended)


def test_each_asked_query_ends_in_one_column(first_round: tuple[Lake, Settings, dict[str, int]]) -> None:
    lake, settings, ended = first_round
    report = run_stage(settings, lake, "pair_yield")
    rows, allocation = lake.read(PAIR_YIELD), lake.read(PAIR_ALLOCATION)
    assert rows["stratum_id"].to_list() == allocation["stratum_id"].to_list()
    assert (rows.select(pl.sum_horizontal(*ENDS)).to_series() == rows["asked"]).all()
    assert (rows["planned"] - rows["released"] == rows["shortage"]).all()
    assert {name: int(rows[name].sum()) for name in ended} == ended
    outcomes = lake.outcomes("taxonomy_queries")["outcome"].value_counts()
    filtered = dict(outcomes.iter_rows()).get("filtered", 0)
    unassigned = int(rows["asked"].sum()) - lake.read(QUERY_PLAN).height
    assert rows["no_ground"].sum() + rows["weak_query"].sum() == unassigned + filtered
    assert rows["no_ground"].sum() >= unassigned > 0
    assert report.manifest.info["released"] == ended["released"]
    of_scene = rows.filter(pl.col("scene") == "farm")
    assert set(of_scene["clips"]) == {18}
    assert (rows["planned_queries"] <= rows["asked"]).all()
    # A query of a stratum was planned only in clips with ground.
    assert (of_scene["planned_queries"] <= of_scene["grounded"]).all()


def test_a_later_round_refills_from_neighbours_by_what_was_measured(
    first_round: tuple[Lake, Settings, dict[str, int]], tmp_path: Path
) -> None:
    lake, settings, _ = first_round
    before = lake.read(PAIR_ALLOCATION)
    run_stage(settings, lake, "pair_yield")
    measured = lake.read(PAIR_YIELD)
    tools = tools_of(settings, lake)
    stage = tools.registry["pair_allocation"]
    assert Planner(tools).state(stage, "all").condition == "fresh", "a run does not change its own plan"

    later = with_target(tmp_path, queries_per_clip=20, round=2)
    state = Planner(tools_of(later, lake)).state(stage, "all")
    assert state.condition == "stale"
    run_stage(later, lake, "pair_allocation")
    after = lake.read(PAIR_ALLOCATION)
    assert after["planned"].sum() + after["shortage"].sum() == 150
    assert after["grounded"].to_list() == measured["grounded"].to_list()
    short = after.filter(pl.col("portion") > pl.col("capacity"))
    assert short.height > 0
    assert (short["planned"] == short["capacity"]).all()
    moved = short.filter((pl.col("shortage") == 0) & (pl.col("planned") < pl.col("portion")))
    assert moved.height > 0
    assert (moved["refilled_from"].list.len() > 0).all()
    assert (after["planned"] > before["planned"]).any()
    share = measured["released"].sum() / measured["planned_queries"].sum()
    assert share < 0.6 < 0.7
    assert 0.3 < np.average(after["survival"].to_numpy()) < 0.7, (
        "the measured share replaces that of the settings"
    )
    lost = 0
    for scene in SCENES:
        told = run_stage(later, lake, "query_plan", scene).manifest.info
        lost += told["not_assigned"]
    assert lost < int(measured["no_ground"].sum()), "the plan asks where there is ground"


# ------------------------------------------------------------------------------- which clip is asked what


@given(st.data())
@hypothesis_settings(max_examples=80)
def test_no_assignment_asks_more_and_no_clip_is_asked_beyond_its_cap(data: st.DataObject) -> None:
    """Held against a linear program, whose solution is a maximum flow too."""
    from scipy.optimize import linprog

    clips, strata = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    possible = [[data.draw(st.booleans()) for _ in range(strata)] for _ in range(clips)]
    asked = [data.draw(st.integers(1, 5)) for _ in range(strata)]
    most = data.draw(st.integers(1, 6))
    found = _matched(possible, asked, most, [f"c{place}" for place in range(clips)])
    assert len(set(found)) == len(found)
    assert all(possible[clip][stratum] for clip, stratum in found)
    per_clip, per_cell = Counter(clip for clip, _ in found), Counter(stratum for _, stratum in found)
    assert max(per_clip.values(), default=0) <= most
    assert all(per_cell[stratum] <= number for stratum, number in enumerate(asked))

    def largest(cap: int) -> int:
        edges = [
            (clip, stratum) for clip in range(clips) for stratum in range(strata) if possible[clip][stratum]
        ]
        if not edges:
            return 0
        of_clip = [[float(clip == each) for clip, _ in edges] for each in range(clips)]
        of_cell = [[float(stratum == each) for _, stratum in edges] for each in range(strata)]
        solved = linprog(
            -np.ones(len(edges)), A_ub=[*of_clip, *of_cell], b_ub=[*[cap] * clips, *asked], bounds=(0, 1)
        )
        return round(-solved.fun)

    assert len(found) == largest(most)
    for level in range(1, most):
        within = sum(min(number, level) for number in per_clip.values())
        assert within == largest(level), "the queries are spread as evenly as possible"
