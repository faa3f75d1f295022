"""`safevid trace`: the links follow from tables and registry, in both directions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from safevid_core.alignment.encoding import _by_clip
from safevid_core.contracts.tables import DESCRIPTIONS, PAIRS, RELEASE, TAXONOMY_QUERIES, Table
from safevid_core.datasets.links import link_columns
from safevid_core.datasets.named import UnknownId
from safevid_core.datasets.trace import Trace
from safevid_core.datasets.trace import trace as trace_of
from safevid_core.pipeline import build_registry
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Plan, Stage
from safevid_core.storage.lake import WHOLE
from safevid_core.video.identity import content_key
from tests.command import is_one_line, safevid
from tests.datasets.traced_lake import Traced, build, put

LENGTHS = Table("lengths", "length_id", "clip_id", pl.Schema({"length_id": pl.String, "clip_id": pl.String}))
FIGURES = Table("figures", "figure", None, pl.Schema({"figure": pl.String, "value": pl.Float64}))


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return build(tmp_path / "lake", tmp_path / "mine")


def trace(traced: Traced, word: str, *stages: Stage) -> Trace:
    registry = build_registry(traced.settings)
    if stages:
        registry = Registry([*registry, *stages])
    return trace_of(registry, traced.lake, traced.ledger, word)


def made(found: Trace) -> dict[str, list[str]]:
    return {step.stage: step.ids for step in found.made_from_it if not step.whole}


def before(found: Trace) -> dict[str, list[str]]:
    return {step.stage: step.ids for step in found.came_from if not step.whole}


def toy(table: Table, *reads: str) -> Stage:
    return Stage(table, "audits", "A toy.", lambda tools, name: Plan({}, [], lambda ids: None), reads)  # type: ignore[arg-type,return-value]


def test_a_clip_leads_to_all_that_was_made_from_it(traced: Traced) -> None:
    found = trace(traced, traced.clips["c1"])
    clip = [traced.clips["c1"]]
    assert found.kind == "clip"
    assert made(found) == {
        "video_corpus": clip, "descriptions": clip, "query_plan": ["plan c1 0", "plan c1 1"],
        "taxonomy_queries": ["query c1"], "safevid_350k_pairs": ["pair c1"],
        "safevid_350k_release": ["pair c1"], "own_style_answers": ["pair c1"],
        # The adapter of own_style lists that it was not trained on this clip.
        "dpo_checkpoint": ["checkpoint pocket"], "benchmark_responses": ["response pocket"],
        "benchmark_scores": ["response pocket"], "decided_sides": [f"side {clip[0]}"],
    }  # fmt: skip
    assert [step.stage for step in found.made_from_it if step.whole] == ["scorecard"]
    assert [each.pairs["pair_id"].to_list() for each in found.releases] == [["pair c1"]]
    assert {"described c1", "rated c1", "responded pocket"} <= {call.request_key for call in found.calls}
    assert not any(call.request_key.endswith(" c2") for call in found.calls)
    kinds = {file.what: file.path for file in found.files}
    assert kinds.keys() == {"media", "frames", "embedding", "features"}
    assert kinds["media"] == traced.media["c1"]


def test_a_benchmark_clip_leads_to_items_releases_and_scores(traced: Traced) -> None:
    found = made(trace(traced, traced.clips["c3"]))
    assert found["safevidbench_base"] == found["benchmark_releases"] == ["item c3"]
    assert found["benchmark_scores"] == ["response own_style", "response pocket"]
    assert not {"dpo_checkpoint", "safevid_350k_pairs"} & found.keys()


def test_a_pair_knows_where_it_came_from_and_its_neighbours_stay_out(traced: Traced) -> None:
    found = trace(traced, "pair c2")
    clip = [traced.clips["c2"]]
    assert before(found) == {
        "clip_manifest": clip, "video_corpus": clip, "descriptions": clip, "query_plan": ["plan c2 0"],
        "taxonomy_queries": ["query c2"],
    }  # fmt: skip
    assert made(found)["dpo_checkpoint"] == ["checkpoint own_style", "checkpoint pocket"]


@pytest.mark.parametrize(
    ("word", "kind", "itself"),
    [
        ("query c1", "query", {"taxonomy_queries": ["query c1"]}),
        ("video-c1", "source video", {"clip_manifest": ["c1"]}),
        ("one.mp4", "clip", {"clip_manifest": ["c1"]}),
        ("rated c1", "model call", {"taxonomy_queries": ["query c1"]}),
        ("checkpoint pocket", "checkpoint", {"dpo_checkpoint": ["checkpoint pocket"]}),
        ("item c3", "item", {"safevidbench_base": ["item c3"]}),
        ("response pocket", "response", {"benchmark_responses": ["response pocket"]}),
    ],
)
def test_each_kind_of_id_is_found(traced: Traced, word: str, kind: str, itself: dict[str, list[str]]) -> None:
    found = trace(traced, word)
    expected_ids = {stage: [traced.clips.get(each, each) for each in ids] for stage, ids in itself.items()}
    assert (found.kind, {step.stage: step.ids for step in found.itself}) == (kind, expected_ids)


def test_a_release_and_the_folder_of_a_checkpoint_are_found(traced: Traced) -> None:
    release = trace(traced, traced.release)
    assert release.kind == "release"
    assert release.itself[0].ids == ["pair c1", "pair c2"]
    assert trace(traced, "1.0.0").as_dict() == release.as_dict()
    assert made(release)["dpo_checkpoint"] == ["checkpoint own_style", "checkpoint pocket"]
    for word in (traced.checkpoints["own_style"], traced.checkpoints["own_style"].rpartition("/")[2]):
        found = trace(traced, word)
        assert found.itself[0].ids == ["checkpoint own_style"]
        assert before(found)["safevid_350k_release"] == ["pair c2"], "it was trained on c2 alone"
        assert before(found)["clip_manifest"] == [traced.clips["c2"]]


def test_a_call_that_no_row_names_is_found_in_the_ledger(traced: Traced) -> None:
    from safevid_core.models.ledger import Call

    traced.ledger.store([Call("a discarded candidate", "m", "1", "taxonomy_queries", "ok", text="x")])
    found = trace(traced, "a discarded candidate")
    assert (found.kind, found.itself) == ("model call", [])
    assert [call.asset for call in found.calls] == ["taxonomy_queries"]


def test_a_stage_of_ones_own_is_traced_without_a_change_elsewhere(traced: Traced) -> None:
    """The trace keeps no list of stages: a stage is linked by its columns and its reads alone."""
    rows = [{"length_id": f"length {name}", "clip_id": clip} for name, clip in traced.clips.items()]
    put(traced.lake, LENGTHS, "kitchen", rows)
    put(traced.lake, FIGURES, WHOLE, [{"figure": "mean", "value": 1.0}])
    stages = (toy(LENGTHS, "descriptions"), toy(FIGURES, "lengths"))
    found = trace(traced, traced.clips["c1"], *stages)
    assert made(found)["lengths"] == ["length c1"]
    assert "figures" in [step.stage for step in found.made_from_it if step.whole]
    back = trace(traced, "length c1", *stages)
    assert before(back)["descriptions"] == [traced.clips["c1"]]


def test_links_by_key_come_before_other_columns() -> None:
    keys = {"clip_id", "query_id", "pair_id"}
    assert link_columns(PAIRS, TAXONOMY_QUERIES, keys) == ["query_id"]
    assert link_columns(RELEASE, PAIRS, keys) == ["pair_id"]
    assert link_columns(TAXONOMY_QUERIES, DESCRIPTIONS, keys) == ["clip_id"]
    assert link_columns(FIGURES, PAIRS, keys) == []
    # Columns of one name and two types are two things: a policy's sentences, and the name of a policy.
    other = replace(FIGURES, schema=pl.Schema({"figure": pl.String, "policy": pl.String}))
    assert link_columns(other, PAIRS, keys) == []


def test_features_of_training_have_the_name_that_the_trace_looks_for() -> None:
    columns = {"media_sha256": ["0f"], "start_s": [0.0], "end_s": [2.5], "path": ["a.mp4"]}
    assert [key for key, _ in _by_clip(pl.DataFrame(columns))] == [content_key("0f", 0.0, 2.5)]


def test_an_id_that_does_not_exist(traced: Traced) -> None:
    with pytest.raises(UnknownId, match="has the id 'nothing'"):
        trace(traced, "nothing")
    done = safevid("trace", "nothing", root=traced.lake.root)
    assert is_one_line(done, 2, "has the id 'nothing'; `safevid show STAGE` lists ids")


def test_the_command_prints_a_tree_or_one_document(traced: Traced) -> None:
    lines = safevid("trace", "query c1", root=traced.lake.root).stdout.splitlines()
    assert lines[0] == "query query c1"
    assert "    query_plan: 1  plan c1 0".removeprefix("  ") in lines
    pairs = next(line for line in lines if "safevid_350k_pairs" in line)
    own = next(line for line in lines if "own_style_answers" in line)
    assert len(own) - len(own.lstrip()) == len(pairs) - len(pairs.lstrip()) + 2, "one step further"
    document = json.loads(safevid("trace", "query c1", "--json", root=traced.lake.root).stdout)
    assert document["kind"] == "query"
    assert {step["stage"] for step in document["came_from"]} >= {
        "query_plan",
        "descriptions",
        "clip_manifest",
    }
    pair = next(step for step in document["made_from_it"] if step["stage"] == "safevid_350k_pairs")
    assert pair["rows"][0]["chosen_request_key"] == "chose c1"
    assert traced.said("c1") not in json.dumps(document), "a trace holds no text"
