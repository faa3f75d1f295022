"""One verdict for each answer. Judging is apart from answering: a new judge asks no system again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from safevid_core.evaluation.judges.rubric import (
    PARSER_VERSION,
    Verdict,
    judge_identity,
    judge_request,
    judges_itself,
)
from safevid_core.evaluation.systems import EvaluationError, system_of
from safevid_core.lake import Lake, StageReport, frame_hash, run_stage
from safevid_core.models.llm import ChatAnswer, Gateway, ask_structured
from safevid_core.models.teacher import spend_info
from safevid_core.records import BENCHMARK_RESPONSES, BENCHMARK_SCORES, Outcome, StageRows
from safevid_core.settings import Settings, TextModel

_JUDGED = (
    "response_id", "item_id", "benchmark", "system", "policy", "data_scale", "seed", "variant", "clip_id",
    "media_sha256", "twin_group", "scene", "principle", "subcategory", "style", "explicit", "query", "rule",
    "text",
)  # fmt: skip
_COPIED = tuple(name for name in _JUDGED if name in BENCHMARK_SCORES.schema)


def make_benchmark_scores(
    settings: Settings, lake: Lake, system: str, benchmark: str, gateway: Gateway
) -> StageReport:
    """Judge every answer of a system; what the judge cannot or will not judge is `undecidable`.

    Raises:
        EvaluationError: If the judge is of a family that wrote queries or answers, unless
            `evaluation.allow_self_judging` is set.
    """
    system_of(settings, system)
    own_family = judges_itself(settings.evaluation)
    if own_family and not settings.evaluation.allow_self_judging:
        raise EvaluationError(
            f"judge {settings.evaluation.judge.model} is of family {own_family!r}, which wrote queries or "
            "chosen answers; choose another evaluation.judge, or set evaluation.allow_self_judging"
        )
    partition = f"{system}|{benchmark}"
    responses = lake.read(BENCHMARK_RESPONSES, partition).select(_JUDGED).sort("response_id")
    judge = settings.evaluation.judge

    def compute() -> StageRows:
        rows = responses.to_dicts()
        requests = [judge_request(judge, row) for row in rows]
        verdicts = ask_structured(
            gateway, requests, Verdict, asset=BENCHMARK_SCORES.name, parser_version=PARSER_VERSION
        )
        outcomes = [
            (row["response_id"], *_outcome(*verdict)) for row, verdict in zip(rows, verdicts, strict=True)
        ]
        scores = [
            _score(row, verdict, answer, judge)
            for row, (verdict, answer), (_, outcome, _) in zip(rows, verdicts, outcomes, strict=True)
            if verdict is not None and outcome == "ok"
        ]
        info = spend_info([answer for _, answer in verdicts]) | {
            "self_judged": bool(own_family),
            "succeeded": sum(score["success"] for score in scores),
            "undecidable_reasons": dict(Counter(why for _, outcome, why in outcomes if outcome != "ok")),
        }
        return StageRows(BENCHMARK_SCORES.frame(scores), outcomes, info)

    inputs = {"responses": frame_hash(responses), "judge": judge_identity(judge)}
    return run_stage(lake, BENCHMARK_SCORES, partition, inputs, responses["response_id"].to_list(), compute)


def _outcome(verdict: Verdict | None, answer: ChatAnswer) -> tuple[Outcome, str]:
    if verdict is None:
        # An answer of the judge that cannot be read is a verdict that is missing, not a failed response.
        return ("failed" if answer.outcome == "failed" and not answer.tokens_out else "undecidable"), (
            answer.reason or "the judge gave no answer"
        )
    if verdict.undecidable is not None:
        return "undecidable", " ".join(verdict.undecidable.split()) or "the judge gave no reason"
    return "ok", ""


def _score(row: Mapping[str, Any], verdict: Verdict, answer: ChatAnswer, judge: TextModel) -> dict[str, Any]:
    return {
        **{name: row[name] for name in _COPIED},
        "outcome": "ok",
        "expected": verdict.expected,
        "success": verdict.success,
        "refused": verdict.refused,
        "reason": verdict.reason,
        "judge": judge.model,
        "judge_revision": judge.revision,
        "request_key": answer.request_key,
    }
