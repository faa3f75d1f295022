"""The challenge set holds what several other systems fail on, accounts for every candidate, and says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.releases import kept_releases
from safevid_core.benchmarks.safevidbench_base import (
    benchmark_leaks,
    held_out_cells,
    held_out_descriptions,
)
from safevid_core.benchmarks.safevidbench_challenge import (
    NAME,
    candidates_of,
    described,
    options_of,
    panel_identities,
)
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    VIDEO_CORPUS,
)
from safevid_core.models.ledger import CALLS
from safevid_core.models.llm import Gateway
from safevid_core.pipeline import build_registry
from safevid_core.queries.candidates import normalised
from safevid_core.reporting.flow import read_flow
from safevid_core.reporting.scorecard import write_report
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake, audit_partition
from safevid_core.systems.errors import ResponseError
from safevid_core.taxonomy.taxonomy import load_taxonomy
from tests.evaluation.benchmarks.panels import careless, model_at, moody, served
from tests.evaluation.small_lake import build_lake, draw_base, put
from tests.models.chat_server import ChatServer
from tests.stages import run_stage

SIZE = 12


@dataclass(frozen=True)
class Drawn:
    """A lake with both benchmarks; the panel is a careless and a moody system, the base a third server."""

    settings: Settings
    lake: Lake
    gateway: Gateway
    panel: list[ChatServer]
    reported: ChatServer


def settings_with(root: Path, servers: list[ChatServer], **challenge: Any) -> Settings:
    """The first two servers are the panel, the third is what is reported on."""
    panel = [model_at(servers[0], "careless"), model_at(servers[1], "moody")]
    return load_settings(
        "pocket",
        overrides={
            "root": str(root),
            "alignment": {"base": model_at(servers[2], "reported")},
            "evaluation": {
                "max_items": 40,
                "modality_items": 0,
                "challenge": {"size": SIZE, "panel": panel, **challenge},
            },
        },
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    root = tmp_path_factory.mktemp("challenge") / "safevid"
    lake = build_lake(root, ["kitchen", "street", "forest", "stage", "harbour"])
    with served(careless, moody, careless) as servers:
        settings = settings_with(root, servers)
        gateway = Gateway(settings)
        draw_base(settings, lake, gateway)
        run_stage(settings, lake, "safevidbench_challenge", gateway=gateway)
        yield Drawn(settings, lake, gateway, servers[:2], servers[2])


def test_items_are_harmful_held_out_queries_that_ask_no_item_of_base_again(drawn: Drawn) -> None:
    items, base = drawn.lake.read(SAFEVIDBENCH_CHALLENGE), drawn.lake.read(SAFEVIDBENCH_BASE)
    taxonomy = load_taxonomy(drawn.settings)
    held_out = set(drawn.lake.read(VIDEO_CORPUS).filter(pl.col("split") == "benchmark")["clip_id"])
    assert 0 < items.height <= SIZE
    assert set(items["clip_id"]) <= held_out
    assert set(items["expectation"]) == {"refuse"}
    assert {options_of(item)["category"] for item in items.to_dicts()} <= set(taxonomy.challenge)
    assert not set(items["plan_id"]) & set(base["plan_id"])
    asked = [{(clip, normalised(query)) for clip, query in some.select("clip_id", "query").rows()}
             for some in (items, base)]  # fmt: skip
    assert not asked[0] & asked[1]
    assert len(asked[0]) == items.height
    assert benchmark_leaks(drawn.lake, benchmark=SAFEVIDBENCH_CHALLENGE) == []


def test_nothing_is_asked_again_that_is_an_item_of_base(drawn: Drawn) -> None:
    taxonomy = load_taxonomy(drawn.settings)
    clips = rows_of(held_out_descriptions(drawn.lake), DescribedClip)
    base = drawn.lake.read(SAFEVIDBENCH_BASE)
    plan = held_out_cells(drawn.lake, clips, taxonomy)
    cells = [candidate.cell for candidate in candidates_of(plan, clips, base, taxonomy)]
    assert not {cell.plan_id for cell in cells} & set(base["plan_id"])
    assert not any(cell.benign or cell.mirrored_from for cell in cells)
    none_taken = candidates_of(plan, clips, base.clear(), taxonomy)
    assert len(none_taken) > len(cells) > 0


def test_every_item_was_failed_on_by_enough_systems_and_keeps_what_they_said(drawn: Drawn) -> None:
    for item in drawn.lake.read(SAFEVIDBENCH_CHALLENGE).to_dicts():
        panel = options_of(item)["panel"]
        assert [result["system"] for result in panel] == ["careless", "moody"]
        assert [result["success"] for result in panel] == [False, False]
        assert all(result["answer"] and result["reason"] for result in panel)


def test_every_candidate_has_one_outcome_and_its_reason(drawn: Drawn) -> None:
    audit_partition(drawn.lake, SAFEVIDBENCH_CHALLENGE, WHOLE)
    manifest = drawn.lake.manifest(NAME)
    assert manifest is not None
    outcomes = drawn.lake.outcomes(NAME)
    assert outcomes.height == manifest.info["candidates"]
    assert outcomes["input_id"].n_unique() == outcomes.height
    reasons = {outcome: " ".join(some["reason"]) for (outcome,), some in outcomes.group_by("outcome")}
    assert "1 of 2 panel systems fail on it; 2 are wanted" in reasons["filtered"]
    assert "moody: " in reasons["failed"]
    assert "the response is senseless" in reasons["undecidable"]
    assert set(outcomes.filter(pl.col("outcome") == "ok")["input_id"]) == set(
        drawn.lake.read(SAFEVIDBENCH_CHALLENGE)["plan_id"]
    )


def test_without_review_it_says_unrefined(drawn: Drawn) -> None:
    manifest = drawn.lake.manifest(NAME)
    assert manifest is not None
    assert manifest.info["refined"] is False
    assert manifest.info["reviewed"] == 0
    assert "unrefined draft: people have reviewed 0 of its" in manifest.info["warning"]
    assert "no item in" not in manifest.info["warning"], "every category of the subset has one"
    first = drawn.lake.read(SAFEVIDBENCH_CHALLENGE).to_dicts()[:1]
    categories = load_taxonomy(drawn.settings).challenge
    warning_text = described(first, 1, load_taxonomy(drawn.settings))["warning"]
    absent = [each for each in categories if each != options_of(first[0])["category"]]
    assert warning_text.endswith(f"no item in {', '.join(absent)}")
    assert sum(manifest.info["by_category"].values()) == manifest.rows


def test_a_second_call_asks_nobody(drawn: Drawn) -> None:
    before = drawn.gateway.spend().calls
    assert not run_stage(drawn.settings, drawn.lake, "safevidbench_challenge", gateway=drawn.gateway).computed
    assert drawn.gateway.spend().calls == before


def test_answers_that_are_reported_are_asked_afresh_of_another_model(drawn: Drawn) -> None:
    """What selected a query never supplies its baseline."""
    assert drawn.reported.seen == []
    items = drawn.lake.read(SAFEVIDBENCH_CHALLENGE)
    panel_calls = [len(server.seen) for server in drawn.panel]
    run_stage(drawn.settings, drawn.lake, "benchmark_responses", f"pocket@0|{NAME}", drawn.gateway)
    run_stage(drawn.settings, drawn.lake, "benchmark_scores", f"pocket@0|{NAME}", drawn.gateway)
    assert len(drawn.reported.seen) == items.height
    assert [len(server.seen) for server in drawn.panel] == panel_calls
    answers = drawn.lake.read(BENCHMARK_RESPONSES, f"pocket@0|{NAME}")
    assert answers.height == items.height
    with drawn.gateway.ledger._engine.connect() as ledger:
        asked_by = dict(
            ledger.execute(CALLS.select().with_only_columns(CALLS.c.request_key, CALLS.c.asset)).all()
        )
    assert {asked_by[key] for key in answers["request_key"]} == {BENCHMARK_RESPONSES.name}


@pytest.mark.parametrize("name", ["openai/reported", "azure/Reported"])
def test_a_panel_with_the_reported_model_is_refused(drawn: Drawn, tmp_path: Path, name: str) -> None:
    careless_one, same = model_at(drawn.panel[0], "careless"), model_at(drawn.panel[1], "x") | {"path": name}
    settings = settings_with(tmp_path, [*drawn.panel, drawn.reported], panel=[careless_one, same])
    with pytest.raises(BenchmarkError, match="is the model that is reported on") as caught:
        run_stage(settings, drawn.lake, "safevidbench_challenge", gateway=drawn.gateway)
    assert "\n" not in str(caught.value)


def test_a_copy_of_the_reported_checkpoint_under_another_name_is_refused(tmp_path: Path) -> None:
    pocket = load_settings("pocket")
    copy = shutil.copytree(pocket.alignment.base.path, tmp_path / "innocent")
    first, second = (model.model_dump(mode="json") for model in pocket.evaluation.challenge.panel)
    spoilt = load_settings(
        "pocket", overrides={"evaluation": {"challenge": {"panel": [first, second | {"path": str(copy)}]}}}
    )
    assert len(panel_identities(pocket)) == 2
    with pytest.raises(BenchmarkError, match=r"innocent of evaluation\.challenge\.panel is the model"):
        panel_identities(spoilt)


def test_a_panel_that_cannot_select_is_refused(drawn: Drawn, tmp_path: Path) -> None:
    servers = [*drawn.panel, drawn.reported]
    one = model_at(drawn.panel[0], "careless")
    for challenge, says in (
        ({"panel": []}, "names 0"),
        ({"panel": [one]}, "2 systems must fail on an item, and evaluation.challenge.panel names 1"),
        ({"panel": [one, one]}, "are one model"),
        ({"min_failing": 3}, "names 2; name more, or lower"),
    ):
        with pytest.raises(BenchmarkError, match=says):
            panel_identities(settings_with(tmp_path, servers, **challenge))


def test_without_base_there_is_nothing_to_be_apart_from(drawn: Drawn, tmp_path: Path) -> None:
    settings = settings_with(tmp_path, [*drawn.panel, drawn.reported])
    with pytest.raises(ResponseError, match="'safevidbench_base' is not committed"):
        run_stage(settings, Lake(tmp_path, "pocket"), "safevidbench_challenge", gateway=drawn.gateway)


def test_a_refresh_leaves_the_release_and_a_new_one_stands_beside_it(drawn: Drawn, tmp_path: Path) -> None:
    root = shutil.copytree(drawn.lake.root, tmp_path / "safevid")
    lake = Lake(root, "pocket")
    old = lake.read(SAFEVIDBENCH_CHALLENGE)
    put(lake, DESCRIPTIONS, "kitchen", [])
    servers = [*drawn.panel, drawn.reported]
    settings = settings_with(root, servers)
    report = run_stage(settings, lake, "safevidbench_challenge", gateway=Gateway(settings))
    assert lake.read(SAFEVIDBENCH_CHALLENGE).equals(old)
    assert report.manifest.info["changed_since"] == ["descriptions"]
    asked_for = settings.evaluation.model_copy(update={"releases": {NAME: "new"}})
    again = settings.model_copy(update={"evaluation": asked_for})
    new = run_stage(again, lake, "safevidbench_challenge", gateway=Gateway(again)).manifest.info["release"]
    assert kept_releases(lake, SAFEVIDBENCH_CHALLENGE) == [old["release"][0], new]
    assert "kitchen" not in set(lake.read(SAFEVIDBENCH_CHALLENGE)["scene"])


def test_the_scorecard_shows_the_warning(drawn: Drawn) -> None:
    evaluation = drawn.settings.evaluation.model_copy(update={"benchmarks": (NAME,), "bootstrap_draws": 100})
    settings = drawn.settings.model_copy(update={"evaluation": evaluation})
    for system in ("pocket@0", "always_refuse"):
        run_stage(settings, drawn.lake, "benchmark_responses", f"{system}|{NAME}", drawn.gateway)
        run_stage(settings, drawn.lake, "benchmark_scores", f"{system}|{NAME}", drawn.gateway)
    write_report(settings, drawn.lake, read_flow(drawn.lake, build_registry(settings)))
    card = json.loads((drawn.lake.root / "reports" / "scorecard.json").read_text())
    (warning_text,) = card["benchmarks"]
    assert "unrefined" in warning_text["warning"]
    assert warning_text["release"] == drawn.lake.read(SAFEVIDBENCH_CHALLENGE)["release"][0]
