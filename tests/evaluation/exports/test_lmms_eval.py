"""lmms-eval's layout: a folder a seed, a line a document, results whose counts and means are the lines'."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.reporting.exports import EvaluationRun, export_runs
from safevid_core.reporting.exports.lmms_eval import write_lmms_eval
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.evaluation.conftest import BENCHMARK
from tests.evaluation.exports.conftest import CONTROL, HOSTILE, SYSTEM

Lines = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(run: EvaluationRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lmms")
    written = write_lmms_eval([run], folder)
    assert sorted(written) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder


def read_model(folder: Path) -> tuple[dict[str, Any], Lines]:
    """The results of one model, and its documents by task."""
    (results,) = folder.glob("*_results.json")
    stamp = results.name.removesuffix("_results.json")
    lines = {
        path.stem.removeprefix(f"{stamp}_samples_"): [
            json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]
        ]
        for path in folder.glob(f"{stamp}_samples_*.jsonl")
    }
    return json.loads(results.read_text()), lines


def test_each_seed_is_a_model_of_its_own(folder: Path, run: EvaluationRun) -> None:
    assert [path.name for path in sorted(folder.iterdir())] == [f"{SYSTEM}-seed{seed}" for seed in run.seeds]
    for seed, place in zip(run.seeds, sorted(folder.iterdir()), strict=True):
        results, lines = read_model(place)
        assert results["model_name"] == place.name
        assert {row["seed"] for rows in lines.values() for row in rows} == {seed}
        assert set(lines) == set(results["results"]) == set(results["versions"]) == set(results["configs"])
        assert lines.keys() >= {BENCHMARK, f"{BENCHMARK}_none_video"}


def test_a_document_is_the_same_in_every_model(folder: Path) -> None:
    first, *others = (read_model(place)[1] for place in sorted(folder.iterdir()))
    for task, rows in first.items():
        assert [row["doc_id"] for row in rows] == list(range(len(rows)))
        for other in others:
            assert [(row["doc_id"], row["item_id"], row["doc_hash"]) for row in other[task]] == [
                (row["doc_id"], row["item_id"], row["doc_hash"]) for row in rows
            ]


def test_counts_and_means_are_those_of_the_lines(folder: Path) -> None:
    for place in folder.iterdir():
        results, lines = read_model(place)
        for task, rows in lines.items():
            scored = [row for row in rows if "score" in row]
            assert results["n-samples"][task] == {"original": len(rows), "effective": len(scored)}
            assert all(row["score"] in (0.0, 1.0) for row in scored)
        cells = results["results"][BENCHMARK]
        for metric in ("safety_rate", "helpful_rate"):
            values = [row[metric] for row in lines[BENCHMARK] if metric in row]
            assert statistics.mean(values) == pytest.approx(cells[f"{metric},none"])
            assert (
                cells[f"{metric}_ci_low,none"] <= cells[f"{metric},none"] <= cells[f"{metric}_ci_high,none"]
            )
        assert not any({"safety_rate", "helpful_rate"} <= set(row) for row in lines[BENCHMARK])
        assert results["higher_is_better"][BENCHMARK]["safety_rate"] is True
        assert results["higher_is_better"][BENCHMARK]["over_refusal_rate"] is False


def test_without_a_verdict_there_is_no_score_and_no_target(folder: Path) -> None:
    rows = [row for place in folder.iterdir() for some in read_model(place)[1].values() for row in some]
    missing = [row for row in rows if row["outcome"] != "ok"]
    assert {row["outcome"] for row in missing} == {"failed", "undecidable"}
    for row in missing:
        assert "score" not in row
        assert row["target"] == ""
        assert row["outcome_reason"]
    assert all(row["filtered_resps"] == [] for row in missing if row["outcome"] == "failed")


def test_a_document_holds_the_intent_apart_from_lmms_evals_own_target(folder: Path) -> None:
    rows = [row for place in folder.iterdir() for some in read_model(place)[1].values() for row in some]
    for row in rows:
        assert set(row["intent"]) == set(INTENT_COLUMNS)
        assert row["intent"]["target"]
        assert row["target"] in ("", row["reference"], row["expectation"])


def test_a_text_stays_on_its_line_and_whole(folder: Path) -> None:
    rows = [row for place in folder.iterdir() for some in read_model(place)[1].values() for row in some]
    assert [row["filtered_resps"] for row in rows].count(HOSTILE) == 1


def test_systems_of_one_seed_go_by_their_own_name(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    export_runs(settings, lake, tmp_path, [CONTROL], format="lmms-eval")
    results, lines = read_model(tmp_path / CONTROL)
    assert results["model_name"] == CONTROL
    assert results["config"]["model_args"]["checkpoint"] is None
    assert all(row["score"] == 0 for row in lines[BENCHMARK])
