"""Verdicts: one an answer, undecidable apart, never by a judge of the writers' family."""

from __future__ import annotations

import json
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES
from safevid_core.estimates import estimate
from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges.rubric import RubricAnswer, judge_identity, judge_request
from safevid_core.judging.panel import judges_itself
from safevid_core.models.llm import Gateway
from safevid_core.settings import EvaluationSettings, JudgeModel, TextModel
from safevid_core.storage.lake import Lake
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.judges.conftest import verdict_of
from tests.evaluation.small_lake import settings_for
from tests.models.chat_server import ChatServer, fails, says
from tests.stages import planner_of, run_stage


def scores_of(evaluated: Evaluated, system: str) -> pl.DataFrame:
    return evaluated.lake.read(BENCHMARK_SCORES, f"{system}|{BENCHMARK}").filter(pl.col("variant") == "right")


def test_controls_get_what_they_deserve(evaluated: Evaluated) -> None:
    refusing = scores_of(evaluated, "always_refuse")
    by_expected = dict(refusing.group_by("expected").agg(pl.col("success").mean()).iter_rows())
    assert by_expected == {"refuse": 1.0, "correct": 0.0, "answer": 0.0}
    for control in ("always_comply", "gibberish", "echo_query"):
        rows = scores_of(evaluated, control)
        assert not rows["success"].any(), control
        assert not rows["refused"].any(), control


def test_the_judge_never_sees_the_system_or_the_description(evaluated: Evaluated) -> None:
    row = evaluated.lake.read(BENCHMARK_RESPONSES, f"pocket@1|{BENCHMARK}").row(0, named=True)
    seen = JudgeInput.of(row)
    said = json.dumps(judge_request(TextModel(model="scripted/judge"), seen).messages)
    assert "pocket@1" not in said
    material = json.loads(judge_request(TextModel(model="x"), seen).messages[1]["content"])
    assert set(material) == {
        "query",
        "answer",
        "intent",
        "policy",
        "criteria",
        "principle",
        "clip",
        "variant",
    }


def test_a_judge_of_the_writers_family_is_refused_unless_allowed(evaluated: Evaluated) -> None:
    own = settings_for(evaluated.lake.root, writer_families=["scripted"], max_items=120)
    with pytest.raises(JudgeError, match="allow_self_judging"):
        run_stage(own, evaluated.lake, "benchmark_scores", f"pocket@0|{BENCHMARK}", evaluated.gateway)
    allowed = settings_for(evaluated.lake.root, writer_families=["scripted"], allow_self_judging=True)
    run_stage(allowed, evaluated.lake, "benchmark_scores", f"pocket@0|{BENCHMARK}", evaluated.gateway)


def test_families_are_known_by_the_model_string() -> None:
    def writer_that_judges(model: str, writer: str) -> str | None:
        return judges_itself(EvaluationSettings(judge=JudgeModel(model=model), writer_families=(writer,)))

    assert writer_that_judges("openai/gpt-9", "gpt") == "gpt"
    assert writer_that_judges("hosted_vllm/Qwen/Qwen9-72B", "qwen") == "qwen"
    assert writer_that_judges("anthropic/claude-x", "gpt") is None
    assert writer_that_judges("openai/not-a-llama", "ama") is None


def test_another_judge_is_another_input(evaluated: Evaluated) -> None:
    one, other = TextModel(model="scripted/judge"), TextModel(model="scripted/judge", revision="2")
    assert judge_identity(one) != judge_identity(other)


def test_an_estimate_sees_that_answers_have_changed(evaluated: Evaluated, tmp_path: Path) -> None:
    root = shutil.copytree(evaluated.lake.root, tmp_path / "lake")
    settings, lake = evaluated.settings.model_copy(update={"root": root}), Lake(root, "pocket")
    partition = f"pocket@0|{BENCHMARK}"

    def foreseen() -> int:
        rows = estimate(planner_of(settings, lake), [BENCHMARK_SCORES.name], [partition])
        return sum(row.calls for row in rows)

    assert foreseen() == 0
    answers = lake.read(BENCHMARK_RESPONSES, partition).drop("profile")
    changed = answers.with_columns(text=pl.lit("Something else. ") + pl.col("text"))
    outcomes = sequence_outcomes(changed["request_id"].to_list(), "ok")
    lake.commit(BENCHMARK_RESPONSES, partition, StageRows(changed, outcomes), "made for a test", {})
    assert foreseen() == answers.height


@pytest.mark.parametrize("text", ['{"expected": "refuse", "success": true}', '{"reason": "fine"}', "{}"])
def test_half_a_verdict_is_none(text: str) -> None:
    with pytest.raises(ValidationError):
        RubricAnswer.model_validate_json(text)


def test_a_judge_that_refuses_or_answers_in_prose_is_undecidable_never_a_score(evaluated: Evaluated) -> None:
    def declines(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        criteria = json.loads(body["messages"][1]["content"])["criteria"]
        met = [True] * len(criteria)
        says(verdict_of(*met, expected="refuse", success=True, refused=True))(chat, body, handler)

    server = ChatServer()
    server.queue(
        says("I must not judge this.", finish_reason="content_filter"),
        says("The answer seems careful to me."),
        fails(400, "no such model"),
        says('{"undecidable": "cannot see\\nthe clip"}'),
        *[declines] * 1000,
    )
    settings = settings_for(evaluated.lake.root, judge={"model": "openai/odd", "api_base": server.url})
    one_by_one = settings.models.model_copy(update={"concurrency": 1, "max_attempts": 1})
    settings = settings.model_copy(update={"models": one_by_one})
    gateway, system = Gateway(settings), "always_comply"
    try:
        report = run_stage(settings, evaluated.lake, "benchmark_scores", f"{system}|{BENCHMARK}", gateway)
        counts = report.manifest.outcomes
        assert (counts["undecidable"], counts["failed"]) == (3, 1)
        assert report.manifest.rows == counts["ok"] > 0
        reasons = evaluated.lake.outcomes(BENCHMARK_SCORES.name, f"{system}|{BENCHMARK}")["reason"]
        assert "cannot see the clip" in reasons.to_list()
    finally:
        gateway.close()
        server.close()
        run_stage(
            evaluated.settings, evaluated.lake, "benchmark_scores", f"{system}|{BENCHMARK}", evaluated.gateway
        )
