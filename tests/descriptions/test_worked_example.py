"""The worked example of docs/descriptions.md gives the row and the scores that the page states."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import DESCRIPTIONS, SIGNAL_DESCRIPTIONS
from safevid_core.descriptions.claims import KINDS
from safevid_core.descriptions.reconciliation import KINDS_IN_WORDS, TASK
from safevid_core.descriptions.signals.measurement import Measurements
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.descriptions.candidates import SCENE, commit_candidates, commit_corpus
from tests.models.chat_server import ChatServer, says
from tests.stages import run_stage

PAGE = (Path(__file__).parents[2] / "docs" / "descriptions.md").read_text(encoding="utf-8")
ASKED, ANSWERED = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
MEASURED = {
    "motion": [],
    "colours": [{"name": "grey"}, {"name": "orange"}],
    "cuts_s": [],
    "moving_colours": [],
}


@pytest.fixture
def made(server: ChatServer, hosted: Settings, tmp_path: Path) -> tuple[dict[str, Any], ChatServer]:
    """The row of the example, and the server that answered as the page says."""
    lake = Lake(tmp_path, "pocket")
    commit_corpus(lake, ("a",))
    for candidate in ASKED["candidates"]:
        commit_candidates(lake, candidate["describer"], {"a": candidate["text"]})
    commit_candidates(lake, "signal", {"a": ASKED["signal"]})
    signal = lake.read(SIGNAL_DESCRIPTIONS, SCENE).drop("profile")
    signal = signal.with_columns(measurements=pl.lit(json.dumps(MEASURED)))
    lake.commit(SIGNAL_DESCRIPTIONS, SCENE, StageRows(signal, [("a", "ok", "")]), "given", {})
    server.queue(says(json.dumps(ANSWERED)))
    report = run_stage(hosted, lake, "descriptions", SCENE, Gateway(hosted))
    assert report.manifest.outcomes["ok"] == 1
    (row,) = lake.read(DESCRIPTIONS, SCENE).to_dicts()
    return row, server


def test_a_hosted_reconciler_is_given_the_texts_and_the_kinds(
    made: tuple[dict[str, Any], ChatServer],
) -> None:
    _, server = made
    (request,) = server.seen
    system, user = (message["content"] for message in request["messages"])
    assert json.loads(user) == ASKED
    assert all(f"- {kind}: {covers}\n" in system for kind, covers in KINDS_IN_WORDS.items())


def test_every_kind_is_reported() -> None:
    assert tuple(KINDS_IN_WORDS) == KINDS
    assert all(kind in TASK for kind in KINDS)


def test_unsupported_details_are_not_in_the_text_but_in_the_record(
    made: tuple[dict[str, Any], ChatServer],
) -> None:
    row, _ = made
    kept, dropped = json.loads(row["claims"]), json.loads(row["dropped"])
    assert row["text"] == ANSWERED["description"]
    for word in ("water", "coat", "woman", "tense"):
        assert word not in row["text"]
        (claim,) = [claim for claim in dropped if word in claim["text"] and claim["kind"] != "colour"]
        assert len(claim["asserted_by"]) == 1
        assert claim["why"]
    assert all(len(claim["asserted_by"]) > len(claim["contradicted_by"]) for claim in kept)
    assert all(claim["kind"] in KINDS and claim["kind"] != "other" for claim in kept)


def test_the_record_says_of_every_witness_where_it_stands(made: tuple[dict[str, Any], ChatServer]) -> None:
    row, _ = made
    for claim in [*json.loads(row["claims"]), *json.loads(row["dropped"])]:
        named_witnesses = [*claim["asserted_by"], *claim["omitted_by"], *claim["contradicted_by"]]
        assert sorted(named_witnesses) == sorted(row["witnesses"])
        assert claim["signal"] == "silent"
    pours = next(claim for claim in json.loads(row["claims"]) if claim["kind"] == "action")
    assert (pours["start_s"], pours["end_s"]) == (1.0, None)


def test_the_scores_are_those_of_the_page(made: tuple[dict[str, Any], ChatServer]) -> None:
    row, _ = made
    for score in ("agreement", "coverage", "contradiction"):
        (stated,) = re.findall(rf"`{score}` is [^=.]*= (0\.\d\d)", PAGE)
        assert row[score] == pytest.approx(float(stated), abs=0.005), score


def test_the_measurements_of_the_example_are_fields_of_the_signals() -> None:
    assert set(MEASURED) <= set(Measurements.__dataclass_fields__)
