from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import DESCRIPTIONS, SIGNAL_DESCRIPTIONS
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.descriptions.candidates import BALL, CRATE, DESCRIBERS, SCENE, commit_candidates, commit_corpus
from tests.models.chat_server import ChatServer, says
from tests.stages import run_stage


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, "pocket")


def outcome_of(lake: Lake, clip_id: str) -> tuple[str, str]:
    rows = lake.outcomes("descriptions", SCENE).filter(pl.col("input_id") == clip_id)
    return str(rows["outcome"][0]), str(rows["reason"][0])


def row_of(lake: Lake, clip_id: str) -> dict[str, Any]:
    rows = lake.read(DESCRIPTIONS, SCENE).filter(pl.col("clip_id") == clip_id)
    assert rows.height == 1
    return dict(rows.row(0, named=True))


def test_describers_become_one_description_with_provenance(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a", "b"))
    for describer in DESCRIBERS[:2]:
        commit_candidates(lake, describer, {"a": CRATE, "b": BALL})
    commit_candidates(lake, DESCRIBERS[2], {"a": CRATE.replace("red", "green"), "b": BALL})
    commit_candidates(
        lake, "signal", {"a": "Main colours: grey, red. Motion: something moves left.", "b": ""}
    )
    report = run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    assert report.manifest.outcomes["ok"] == 2
    row = row_of(lake, "a")
    assert row["text"] == CRATE
    assert row["witnesses"] == [*DESCRIBERS, "signal"]
    claims = {claim["kind"]: claim for claim in json.loads(row["claims"])}
    assert claims["colour"]["asserted_by"] == [*DESCRIBERS[:2], "signal"]
    assert claims["colour"]["contradicted_by"] == [DESCRIBERS[2]]
    assert claims["event"]["asserted_by"] == list(DESCRIBERS)
    assert "green" in json.loads(row["dropped"])[0]["text"]
    assert row["agreement"] == pytest.approx(4 / 5)
    assert row["contradiction"] == pytest.approx(1 / 5)
    assert row["coverage"] == pytest.approx(16 / 17)
    assert row["model"] == "scripted/reconciler"
    assert (row["source_id"], row["split"]) == ("source-a", "train")
    assert report.manifest.info["calls"] == 2


def test_the_signals_are_heard_only_where_the_settings_say_so(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a",))
    commit_candidates(lake, DESCRIBERS[0], {"a": CRATE})
    commit_candidates(lake, DESCRIBERS[1], {"a": CRATE.replace("left", "up")})
    commit_candidates(lake, DESCRIBERS[2], {"a": CRATE.replace("left", "down")})
    commit_candidates(lake, "signal", {"a": "Main colours: red. Motion: something moves left."})
    run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    assert "moves left" in row_of(lake, "a")["text"]
    descriptions = settings.descriptions.model_copy(update={"signal_witness": False})
    as_published = settings.model_copy(update={"descriptions": descriptions})
    assert run_stage(as_published, lake, "descriptions", SCENE, Gateway(settings)).computed
    assert "moves" not in row_of(lake, "a")["text"]
    assert row_of(lake, "a")["witnesses"] == list(DESCRIBERS)


def test_a_clip_that_nobody_describes_fails_and_names_why(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a", "b"))
    for describer in DESCRIBERS:
        commit_candidates(lake, describer, {"a": CRATE, "b": None})
    report = run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    assert report.manifest.outcomes == {"ok": 1, "filtered": 0, "failed": 1, "undecidable": 0}
    outcome, reason = outcome_of(lake, "b")
    assert outcome == "failed"
    assert "qwen2_5_vl: clip has no video stream" in reason
    assert "\n" not in reason


def test_witnesses_that_agree_on_nothing_leave_a_clip_undecidable(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a",))
    commit_candidates(lake, DESCRIBERS[0], {"a": "A red crate moves left."})
    commit_candidates(lake, DESCRIBERS[1], {"a": "A blue ball moves up."})
    commit_candidates(lake, DESCRIBERS[2], {"a": "zzz"})
    run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    assert outcome_of(lake, "a") == ("undecidable", "no two witnesses agree on anything that the clip shows")


def test_measured_signals_carry_a_clip_that_no_model_describes(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a",))
    for describer in DESCRIBERS:
        commit_candidates(lake, describer, {"a": None})
    commit_candidates(lake, "signal", {"a": "Main colours: grey, brown. Motion: something moves right."})
    run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    row = row_of(lake, "a")
    assert row["text"] == "Something moves right. The main colours are grey and brown."
    assert row["witnesses"] == ["signal"]
    assert row["agreement"] == 0


def test_a_description_that_no_claim_supports_is_sent_back_once(
    server: ChatServer, hosted: Settings, lake: Lake
) -> None:
    commit_corpus(lake, ("a", "b"))
    commit_candidates(lake, DESCRIBERS[0], {"a": CRATE, "b": BALL})
    for describer in DESCRIBERS[1:]:
        commit_candidates(lake, describer, {"a": None, "b": None})
    bare = says('{"description": "A man runs.", "claims": [{"text": " "}]}')
    whole = says('{"description": "A man runs.", "claims": [{"text": "A man runs.", "kind": "action"}]}')
    server.queue(bare, bare, whole, bare)
    run_stage(hosted, lake, "descriptions", SCENE, Gateway(hosted))
    ends = {clip_id: outcome_of(lake, clip_id) for clip_id in ("a", "b")}
    assert sorted(outcome for outcome, _ in ends.values()) == ["failed", "ok"]
    (reason,) = [reason for outcome, reason in ends.values() if outcome == "failed"]
    assert "a description needs the claims that it is written from" in reason
    assert "\n" not in reason


def test_an_unchanged_scene_is_not_computed_and_a_changed_text_is(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a", "b"))
    for describer in DESCRIBERS:
        commit_candidates(lake, describer, {"a": CRATE, "b": BALL})
    gateway = Gateway(settings)
    first = run_stage(settings, lake, "descriptions", SCENE, gateway)
    again = run_stage(settings, lake, "descriptions", SCENE, gateway)
    assert (first.computed, again.computed) == (True, False)
    commit_candidates(lake, DESCRIBERS[0], {"a": CRATE, "b": BALL.replace("blue", "green")})
    changed = run_stage(settings, lake, "descriptions", SCENE, gateway)
    assert changed.computed
    assert (changed.manifest.info["calls"], changed.manifest.info["cached_calls"]) == (1, 1)


def test_an_empty_scene_is_an_empty_partition(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ())
    report = run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    assert report.manifest.rows == 0


def test_a_claim_carries_the_signals_stance_and_when_it_was_measured(settings: Settings, lake: Lake) -> None:
    commit_corpus(lake, ("a",))
    for describer in DESCRIBERS[:2]:
        commit_candidates(lake, describer, {"a": CRATE})
    commit_candidates(lake, DESCRIBERS[2], {"a": CRATE.replace("left", "right")})
    commit_candidates(lake, "signal", {"a": "Main colours: red. Motion: something moves left."})
    segment = {"start_s": 0.5, "end_s": 2.0, "kind": "object", "direction": "left", "travel": 0.5}
    measured = {"motion": [segment], "colours": [{"name": "red", "share": 0.3}], "cuts_s": []}
    rows = lake.read(SIGNAL_DESCRIPTIONS, SCENE).drop("profile")
    rows = rows.with_columns(measurements=pl.lit(json.dumps(measured)))
    lake.commit(SIGNAL_DESCRIPTIONS, SCENE, StageRows(rows, [("a", "ok", "")]), "given", {})
    run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))
    row = row_of(lake, "a")
    assert row["text"] == CRATE
    claims = {claim["kind"]: claim for claim in json.loads(row["claims"])}
    assert {name: claims[name]["signal"] for name in ("colour", "motion", "event")} == {
        "colour": "confirms", "motion": "confirms", "event": "silent",
    }  # fmt: skip
    assert (claims["motion"]["start_s"], claims["motion"]["end_s"]) == (0.5, 2.0)
    assert (claims["event"]["start_s"], claims["event"]["end_s"]) == (None, None)
    (dropped,) = json.loads(row["dropped"])
    assert (dropped["signal"], dropped["asserted_by"]) == ("refutes", [DESCRIBERS[2]])
    assert dropped["why"]
