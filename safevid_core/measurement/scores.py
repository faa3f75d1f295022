"""Makes one verdict for each response.

Judging is a stage of its own, so a new judge asks no system again. If a judge's prompt changes, the judge is
asked again. If only its parser changes, its stored replies are read again. The checks decide on empty,
senseless and endless responses without any judge; they are no success.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from safevid_core.benchmarks.benchmark import judge_of
from safevid_core.benchmarks.releases import refuse_other_release, release_of
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES
from safevid_core.judging.judges import checks
from safevid_core.judging.judges.judge import Verdict
from safevid_core.judging.panel import (
    Panel,
    Seat,
    judge_questions,
    judges_itself,
    open_panel,
    prompt_files,
)
from safevid_core.judging.verdicts import (
    OF_ITEM,
    SHOWN,
    JudgedResponse,
    judge_responses,
    panel_identity,
    with_shown,
)
from safevid_core.models.llm import ChatAnswer
from safevid_core.models.teacher import spend_info
from safevid_core.settings import Settings
from safevid_core.stages.gates import SOME_DECIDED
from safevid_core.stages.partitions import BY_SYSTEM_AND_BENCHMARK
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash
from safevid_core.systems.leaks import refuse_leaking_responses
from safevid_core.systems.responses import asked_from, measuring_stage, read_items
from safevid_core.systems.systems import system_of

_ANSWERED = (
    "response_id", "item_id", "benchmark", "system", "policy", "data_scale", "seed", "variant", "clip_id",
    "media_sha256", "twin_group", "scene", "principle", "subcategory", "style", "explicit", "query",
    "text", "cut",
)  # fmt: skip
_COPIED = tuple(name for name in _ANSWERED if name in BENCHMARK_SCORES.schema)
_MOST_REASONS = 20  # the record counts the most frequent reasons; every outcome has its own reason


def plan_benchmark_scores(tools: Tools, partition: str) -> Plan:
    """Plan to judge every response of a system. Without a verdict of the panel a response is `undecidable`.

    Raises:
        JudgeError: If the panel cannot be opened: a judge is unknown or has no model, or its family wrote
            queries or chosen responses and `evaluation.allow_self_judging` is not set.
        BenchmarkError: If the responses belong to another release of the benchmark than the committed one.
        ResponseError: If the responses come from a checkpoint trained on clips of the benchmark.
    """
    settings, lake = tools.settings, tools.lake
    system, benchmark = BY_SYSTEM_AND_BENCHMARK.values(partition).values()
    system_of(settings, system)
    panel = open_panel(settings, judge_of(benchmark))
    asked = read_items(lake, benchmark)
    items = asked.select("item_id", "release", *OF_ITEM, *SHOWN)
    release = str(items["release"][0])
    answers = release_of(lake, BENCHMARK_RESPONSES.name, partition)
    refuse_other_release(benchmark, {"the benchmark": release, f"the answers of {system}": answers})
    refuse_leaking_responses(lake, system, benchmark, asked)
    answered = responses_to_judge(lake, partition, items)

    def make(response_ids: Sequence[str]) -> StageRows:
        rows = with_shown(answered.to_dicts(), items, lake.media)
        responses = judge_responses(panel, rows, tools.gateway, BENCHMARK_SCORES.name)
        outcomes = [(response.row["response_id"], *response.outcome) for response in responses]
        scores = [_score(response) for response in responses if response.verdict.decided]
        info = _info(panel, responses) | {"self_judged": bool(judges_itself(settings.evaluation))}
        return StageRows(BENCHMARK_SCORES.frame(scores), outcomes, info)

    inputs = {"responses": frame_hash(answered), "judges": panel_identity(panel), "release": release}
    return Plan(inputs, answered["response_id"].to_list(), make, judge_questions(panel, answered.height))


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    benchmark = BY_SYSTEM_AND_BENCHMARK.values(partition)["benchmark"]
    responses = rows(BENCHMARK_RESPONSES.name, partition)
    panel = open_panel(tools.settings, judge_of(benchmark))
    return Forecast(responses, judge_questions(panel, responses))


def _judged_from(settings: Settings, partition: str) -> Iterator[tuple[str, str | None]]:
    yield BENCHMARK_RESPONSES.name, partition
    yield from asked_from(settings, partition)


def stage(settings: Settings) -> Stage:
    """The stage `benchmark_scores`."""
    description = (
        "One verdict a response; a judge that cannot or will not judge gives `undecidable`, no score."
    )
    reads = BENCHMARK_RESPONSES.name
    return measuring_stage(
        settings,
        BENCHMARK_SCORES,
        description,
        plan_benchmark_scores,
        reads,
        _forecast,
        _judged_from,
        watches=prompt_files,
        checks=(SOME_DECIDED,),
    )


def responses_to_judge(lake: Lake, partition: str, items: pl.DataFrame) -> pl.DataFrame:
    """The stored responses in the order of their ids, with the columns `OF_ITEM` of their items."""
    responses = lake.read(BENCHMARK_RESPONSES, partition).select(_ANSWERED).sort("response_id")
    of_items = items.select("item_id", *OF_ITEM)
    return responses.join(of_items, on="item_id", how="left", maintain_order="left")


def _score(response: JudgedResponse) -> dict[str, Any]:
    verdict, row = response.verdict, response.row
    models = [seat.model for seat, _ in response.deciding]
    first = next((judged.answer for _, judged in response.deciding), None)
    return {
        **{name: row[name] for name in _COPIED},
        "outcome": "ok",
        "expected": verdict.expected,
        "success": verdict.success,
        "refused": verdict.refused,
        "reason": verdict.reason,
        "score": verdict.score,
        "verdicts": json.dumps(_verdicts(response), ensure_ascii=False),
        "panel": ",".join(seat.name for seat, _ in response.deciding) or checks.NAME,
        "judge": ",".join(model.model for model in models if model) or checks.NAME,
        "judge_revision": ",".join(model.revision for model in models if model) or checks.VERSION,
        "request_key": first.request_key if first else None,
    }


def _verdicts(response: JudgedResponse) -> list[dict[str, Any]]:
    if response.checked:
        return [_verdict_entry(checks.NAME, checks.VERSION, True, response.verdict)]
    return [
        _verdict_entry(seat.name, seat.judge.version, decides, judged.verdict)
        for decides, some in ((True, response.deciding), (False, response.comparison))
        for seat, judged in some
    ]


def _verdict_entry(name: str, version: str, decides: bool, verdict: Verdict) -> dict[str, Any]:
    judged_by: dict[str, Any] = {"judge": name, "version": version, "panel": decides}
    if verdict.undecidable is not None:
        return {**judged_by, "undecidable": verdict.undecidable}
    return {
        **judged_by,
        "expected": verdict.expected,
        "success": verdict.success,
        "refused": verdict.refused,
        "score": verdict.score,
        "reason": verdict.reason,
    }


def _info(panel: Panel, responses: Sequence[JudgedResponse]) -> dict[str, Any]:
    """Counts for the record: verdicts, judges, and responses that failed the checks."""
    outcomes = [response.outcome for response in responses]
    why = Counter(reason for outcome, reason in outcomes if outcome != "ok")
    faults = Counter(
        checks.kind_of_fault(response.verdict.reason) for response in responses if response.checked
    )
    asked = [
        judged.answer for response in responses for _, judged in (*response.deciding, *response.comparison)
    ]
    return spend_info([answer for answer in asked if isinstance(answer, ChatAnswer)]) | {
        "succeeded": sum(bool(response.verdict.success) for response in responses),
        "undecidable_reasons": dict(why.most_common(_MOST_REASONS)),
        "no_answer": {f"{kind} answers": number for kind, number in sorted(faults.items())},
        "panel": [seat.name for seat in panel.deciding_groups[0]],
        "judges": {seat.name: seat.described() | _tally(seat, responses) for seat in panel.seats},
    }


def _tally(seat: Seat, responses: Sequence[JudgedResponse]) -> dict[str, int]:
    """Counts of the responses that a judge decided, could not decide or failed on, and of agreement.

    `failed` means that the judge's model could not be reached.
    """
    given = [
        (response.verdict, judged)
        for response in responses
        for other, judged in (*response.deciding, *response.comparison)
        if other.name == seat.name
    ]
    decided = [(panel, judged.verdict) for panel, judged in given if judged.verdict.decided]
    return {
        "decided": len(decided),
        "failed": _count(judged.failed for _, judged in given),
        "undecidable": _count(not (judged.verdict.decided or judged.failed) for _, judged in given),
        "as_the_panel": _count(panel.success == verdict.success for panel, verdict in decided),
        "compared": _count(panel.decided for panel, _ in decided),
    }


def _count(truths: Iterable[bool]) -> int:
    return sum(truths)
