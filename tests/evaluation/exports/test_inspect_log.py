"""The `.eval` file: read by inspect_ai's own reader where it is installed, and checked part by part."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from safevid_core.reporting.exports import EvaluationRun
from safevid_core.reporting.exports.inspect_log import HELPFULNESS, SAFETY, inspect_log, write_inspect_log
from safevid_core.systems.responses import VARIANTS
from tests.evaluation.exports.conftest import HOSTILE, PROMPT, SYSTEM


@pytest.fixture(scope="module")
def archive(run: EvaluationRun) -> dict[str, Any]:
    """Name of each member -> its content."""
    with zipfile.ZipFile(io.BytesIO(inspect_log(run))) as file:
        assert file.testzip() is None
        return {name: json.loads(file.read(name)) for name in file.namelist()}


@pytest.fixture(scope="module")
def samples(archive: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for name, each in archive.items() if name.startswith("samples/")]


def test_inspect_ais_own_reader_opens_it(run: EvaluationRun, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    path = write_inspect_log(run, tmp_path)
    found = log.read_eval_log(str(path))
    assert found.status == "success"
    assert found.eval.model == f"safevid/{SYSTEM}"
    assert len(found.samples) == len(run.samples)
    if hasattr(log, "read_eval_log_sample_summaries"):  # which older readers lack
        assert len(log.read_eval_log_sample_summaries(str(path))) == len(run.samples)
    scores = {each.name: each for each in found.results.scores}
    for score, metric in ((SAFETY, "safety_rate"), (HELPFULNESS, "helpful_rate")):
        assert scores[score].metrics[metric].value == pytest.approx(run.figures[metric].value)
    assert log.read_eval_log(str(path), header_only=True).samples is None
    texts = [sample.output.completion for sample in found.samples]
    assert HOSTILE in texts


def test_the_zip_has_the_parts_of_a_log_and_no_name_that_leads_elsewhere(
    archive: dict[str, Any], run: EvaluationRun
) -> None:
    other = {name for name in archive if not name.startswith("samples/")}
    assert other == {"header.json", "summaries.json", "reductions.json", "_journal/start.json"}
    assert len(archive) - len(other) == len(run.samples)
    for name in archive:
        assert not PurePosixPath(name).is_absolute()
        assert ".." not in PurePosixPath(name).parts
    for name, sample in archive.items():
        if name.startswith("samples/"):
            assert name == f"samples/{sample['id']}_epoch_{sample['epoch']}.json"
            assert re.fullmatch(r"[A-Za-z0-9-]+", sample["id"])


def test_the_header_counts_what_the_samples_are(
    archive: dict[str, Any], samples: list[dict[str, Any]], run: EvaluationRun
) -> None:
    header = archive["header.json"]
    assert (header["version"], header["status"]) == (2, "success")
    assert {key: header[key] for key in ("version", "eval", "plan")} == archive["_journal/start.json"]
    spec, results = header["eval"], header["results"]
    assert spec["config"]["epochs"] == len(run.seeds) == 3
    assert set(spec["dataset"]["sample_ids"]) == {each["id"] for each in samples}
    assert spec["dataset"]["samples"] == len(set(spec["dataset"]["sample_ids"]))
    assert spec["metadata"]["profile"] == "pocket"
    assert results["total_samples"] == len(samples)
    assert results["completed_samples"] == sum(each["error"] is None for each in samples)
    assert results["headline"] == {"score": SAFETY, "metric": "safety_rate"}
    assert [(each["id"], each["epoch"]) for each in archive["summaries.json"]] == [
        (each["id"], each["epoch"]) for each in samples
    ]


def test_the_mean_of_the_samples_is_the_figure_and_no_score_mixes_safety_and_help(
    archive: dict[str, Any], samples: list[dict[str, Any]], run: EvaluationRun
) -> None:
    scores = {each["name"]: each for each in archive["header.json"]["results"]["scores"]}
    for name, metric in ((SAFETY, "safety_rate"), (HELPFULNESS, "helpful_rate")):
        values = [each["scores"][name]["value"] for each in samples if name in (each["scores"] or {})]
        known = [value for value in values if not math.isnan(value)]
        figure = scores[name]["metrics"][metric]
        assert statistics.mean(known) == pytest.approx(figure["value"])
        assert figure["value"] == pytest.approx(run.figures[metric].value)
        assert figure["metadata"]["ci_low"] <= figure["value"] <= figure["metadata"]["ci_high"]
        assert scores[name]["scored_samples"] == len(known)
        assert scores[name]["unscored_samples"] == len(values) - len(known)
    assert not any({SAFETY, HELPFULNESS} <= set(each["scores"] or {}) for each in samples)
    # Other videos than the item's own are counted apart.
    assert all(
        SAFETY not in (each["scores"] or {})
        for each in samples
        if each["metadata"]["variant"] in VARIANTS[1:]
    )


def test_what_has_no_verdict_is_no_number_and_what_has_no_answer_an_error(
    samples: list[dict[str, Any]], run: EvaluationRun
) -> None:
    by_outcome: dict[str, list[dict[str, Any]]] = {}
    for each in samples:
        by_outcome.setdefault(each["metadata"]["outcome"], []).append(each)
    (undecidable,) = by_outcome["undecidable"]
    (score,) = undecidable["scores"].values()
    assert math.isnan(score["value"])
    assert score["explanation"] == "the judge refused"
    assert by_outcome["failed"]
    for failed in by_outcome["failed"]:
        assert failed["scores"] is None
        assert failed["error"]["message"]
        assert failed["output"]["choices"] == []
    assert sum(map(len, by_outcome.values())) == len(run.samples)


def test_texts_are_whole_and_the_system_prompt_is_the_first_message(
    archive: dict[str, Any], samples: list[dict[str, Any]]
) -> None:
    (hostile,) = (each for each in samples if each["output"]["completion"] == HOSTILE)
    assert hostile["messages"][-1]["content"] == HOSTILE
    assert [message["role"] for message in hostile["messages"]] == ["system", "user", "assistant"]
    assert hostile["messages"][0]["content"] == PROMPT
    user = hostile["messages"][1]["content"]
    assert user[-1]["type"] == "text"
    assert {part["type"] for part in user[:-1]} <= {"video", "text"}
    ids = [message["id"] for each in samples for message in each["messages"]]
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_bytes(run: EvaluationRun) -> None:
    assert inspect_log(run) == inspect_log(run)
