"""Validates the judges with a fixed adversarial suite and, if there are labels, by agreement with people.

Every judge of the settings judges the cases of the suite as it judges responses: first the checks decide,
then the judge. A case is right if the verdict's `success` equals that of the case. Cases that a judge
declines are left out of its share. Undecidable cases count as wrong. Judges are never tuned to the suite. If
there are no labels, the record says `no labels from people`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import BENCHMARK_SCORES, JUDGE_VALIDATION
from safevid_core.estimates.budget import BUDGET
from safevid_core.judging.judges import checks
from safevid_core.judging.panel import Panel, Seat, combined, judge_questions, open_panel, prompt_files
from safevid_core.judging.people import ALL, PEOPLE, Rated, groups, measures, rated
from safevid_core.judging.suite import ValidationCase, load_suite
from safevid_core.judging.verdicts import JudgedResponse, judge_responses, panel_identity
from safevid_core.models.llm import Gateway
from safevid_core.models.teacher import spend_info
from safevid_core.settings import Settings
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Stage, Tools
from safevid_core.statistics.agreement import Figure, Label, read_labels, share
from safevid_core.storage.lake import Lake, frame_hash, settings_hash

# The name in the column `judge` for several judges together.
PANEL = "panel"
NO_LABELS = "no labels from people"

_Outcomes = list[tuple[str, Outcome, str]]


@dataclass(frozen=True)
class CaseVerdict:
    """The verdict of one judge on one case or labelled response. `success` is None without a verdict."""

    success: bool | None
    outcome: Outcome
    reason: str


def plan_judge_validation(tools: Tools, partition: str) -> Plan:
    """Plan to validate every judge of the settings on the suite, and on people's labels if there are any.

    Raises:
        JudgeError: If the panel cannot be opened, or the suite is malformed.
        LabelError: If the label file is not a table of labels.
    """
    settings, lake = tools.settings, tools.lake
    panel = open_panel(settings)
    cases = load_suite(settings.evaluation.suite)
    path = settings.evaluation.labels
    labels, unusable = read_labels(path) if path is not None else ([], {})
    scores = _labelled_scores(lake, labels)
    names = [seat.name for seat in panel.seats] + ([PANEL] if len(panel.deciding_groups[0]) > 1 else [])

    def make(ids: Sequence[str]) -> StageRows:
        gateway = tools.gateway
        responses = judge_responses(panel, [case.row() for case in cases], gateway, JUDGE_VALIDATION.name)
        rows, outcomes = _suite_rows(panel, names, cases, responses)
        people_rows, people_outcomes, labelled = _people_rows(settings, panel, names, labels, scores, gateway)
        outcomes += people_outcomes
        outcomes += [(_label_id(line), "failed", why) for line, why in unusable.items()]
        answers = [
            judged.answer
            for each in (*responses, *labelled)
            for _, judged in (*each.deciding, *each.comparison)
        ]
        info = spend_info([answer for answer in answers if answer is not None]) | {
            "cases": len(cases),
            "people": f"{len(labels)} labels from {path}" if labels else NO_LABELS,
            "judges": {seat.name: seat.described() for seat in panel.seats},
        }
        return StageRows(JUDGE_VALIDATION.frame([*rows, *people_rows]), outcomes, info)

    inputs = {
        "suite": settings_hash([repr(case) for case in cases]),
        "judges": panel_identity(panel),
        "labels": settings_hash([repr(label) for label in labels], unusable),
        "scores": frame_hash(scores),
        "draws": settings_hash(settings.evaluation.bootstrap_draws, settings.seed),
    }
    ids = [_case_id(name, case) for name in names for case in cases]
    ids += [_label_id(line) for line in (*(label.line for label in labels), *unusable)]
    return Plan(inputs, ids, make, judge_questions(panel, len(cases)))


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    return Forecast(
        0, judge_questions(open_panel(tools.settings), len(load_suite(tools.settings.evaluation.suite)))
    )


def _files(settings: Settings) -> list[Path]:
    own = (settings.evaluation.labels, settings.evaluation.suite)
    return [*prompt_files(settings), *(path for path in own if path is not None)]


STAGE = Stage(
    JUDGE_VALIDATION,
    "evaluation",
    "How far each judge can be trusted, by a fixed adversarial suite and by labels from people.",
    plan_judge_validation,
    reads=(BENCHMARK_SCORES.name,),
    optional=frozenset({BENCHMARK_SCORES.name}),
    forecast=_forecast,
    watches=_files,
    asks=True,
    gates=(BUDGET,),
)


# ------------------------------------------------------------------------------------------ the suite


def _suite_rows(
    panel: Panel, names: Sequence[str], cases: Sequence[ValidationCase], responses: Sequence[JudgedResponse]
) -> tuple[list[dict[str, Any]], _Outcomes]:
    """For each judge the share of right cases, over all and by kind, and the outcome of each case."""
    rows: list[dict[str, Any]] = []
    outcomes: _Outcomes = []
    for name in names:
        verdicts = [_verdict_of(panel, name, response) for response in responses]
        outcomes += [
            (_case_id(name, case), each.outcome, each.reason)
            for case, each in zip(cases, verdicts, strict=True)
        ]
        asked = [
            (case, each)
            for case, each in zip(cases, verdicts, strict=True)
            if each.outcome in ("ok", "undecidable")
        ]
        kinds = dict.fromkeys(case.kind for case, _ in asked)
        for category in (ALL, *kinds):
            some = [(case, each) for case, each in asked if category in (ALL, case.kind)]
            wrong = [case.id for case, each in some if each.success != case.success]
            figure = share(len(some) - len(wrong), len(some))
            undecidable = sum(each.success is None for _, each in some)
            group = (ALL if category == ALL else "kind", category)
            rows.append(
                _row(panel, name, "suite", "share_right", group, figure, undecidable, {"wrong": wrong})
            )
    return rows, outcomes


def _verdict_of(panel: Panel, name: str, response: JudgedResponse) -> CaseVerdict:
    """The verdict of one judge, or of the whole panel, on a judged response."""
    seats = panel.deciding_groups[0] if name == PANEL else [seat for seat in panel.seats if seat.name == name]
    why = [seat.judge.declines(response.seen) for seat in seats]
    if None not in why:
        return CaseVerdict(None, "filtered", "; ".join(each for each in why if each))
    if response.checked:
        return CaseVerdict(response.verdict.success, "ok", "")
    given = [(seat, judged) for seat, judged in (*response.deciding, *response.comparison) if seat in seats]
    verdict = combined(given)
    if verdict.undecidable is None:
        return CaseVerdict(verdict.success, "ok", "")
    failed = all(judged.failed for _, judged in given)
    return CaseVerdict(None, "failed" if failed else "undecidable", verdict.undecidable)


def _case_id(judge: str, case: ValidationCase) -> str:
    return f"{judge}|{case.id}"


# ------------------------------------------------------------------------------------- people's labels


def _labelled_scores(lake: Lake, labels: Sequence[Label]) -> pl.DataFrame:
    """The committed verdicts on the responses that people labelled."""
    wanted = sorted({label.response_id for label in labels if label.response_id is not None})
    scores = lake.scan(BENCHMARK_SCORES).filter(pl.col("response_id").is_in(wanted))
    columns = ("response_id", "system", "subcategory", "expected", "success", "verdicts")
    return scores.select(columns).sort("response_id").collect()


def _people_rows(
    settings: Settings,
    panel: Panel,
    names: Sequence[str],
    labels: Sequence[Label],
    scores: pl.DataFrame,
    gateway: Gateway,
) -> tuple[list[dict[str, Any]], _Outcomes, list[JudgedResponse]]:
    """Agreement of each judge with people and of people with each other, and the outcome of each label."""
    kept, outcomes = _without_repeats(labels)
    given = [label for label in kept if label.texts is not None]
    units = list({label.unit: label for label in given}.values())
    responses = judge_responses(panel, [_text_row(label) for label in units], gateway, JUDGE_VALIDATION.name)
    verdicts: dict[Any, dict[str, bool | None]] = {
        label.unit: {name: _verdict_of(panel, name, response).success for name in names}
        for label, response in zip(units, responses, strict=True)
    }
    stored: dict[Any, dict[str, Any]] = {}
    for row in scores.iter_rows(named=True):
        stored[row["response_id"]] = row
        verdicts[row["response_id"]] = _stored_verdicts(row["success"], row["verdicts"], names)
    for label in kept:
        known = any(verdict is not None for verdict in verdicts.get(label.unit, {}).values())
        found: tuple[Outcome, str] = ("ok", "") if known else ("undecidable", "no judge has a verdict on it")
        outcomes.append((_label_id(label.line), *found))
    known_units = _rated([label for label in kept if label.unit in verdicts], stored)
    draws, seed = settings.evaluation.bootstrap_draws, settings.seed
    rows = [
        _row(panel, name, "people", measure, (grouping, category), figure, undecidable, detail)
        for grouping, category, some in groups(known_units)
        for name in (*names, PEOPLE)
        for measure, figure, undecidable, detail in measures(name, some, verdicts, draws, seed)
    ]
    return rows, outcomes, responses


def _without_repeats(labels: Sequence[Label]) -> tuple[list[Label], _Outcomes]:
    """The first label of each annotator on each response, and an outcome for the repeated ones."""
    first: dict[Any, Label] = {}
    outcomes: _Outcomes = []
    for label in labels:
        known = first.setdefault((label.unit, label.annotator), label)
        if known is not label:
            why = f"annotator {label.annotator} labelled this answer on line {known.line} already"
            outcomes.append((_label_id(label.line), "filtered", why))
    return list(first.values()), outcomes


def _rated(labels: Sequence[Label], stored: Mapping[Any, Mapping[str, Any]]) -> list[Rated]:
    """The labelled responses. `stored` is response id -> its row of `benchmark_scores`."""
    together: dict[Any, list[Label]] = defaultdict(list)
    for label in labels:
        together[label.unit].append(label)
    found = []
    for unit, some in together.items():
        row, texts = stored.get(unit, {}), some[0].texts
        found.append(
            rated(
                unit,
                [label.success for label in some],
                category=_first(label.category for label in some) or row.get("subcategory"),
                system=_first(label.system for label in some) or row.get("system"),
                expected=texts.expected if texts is not None else row.get("expected"),
            )
        )
    return found


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


def _stored_verdicts(
    success: bool | None, verdicts: str | None, names: Sequence[str]
) -> dict[str, bool | None]:
    """Judge -> its success on a response. A decision of the checks counts for every judge."""
    stored = {each["judge"]: each.get("success") for each in json.loads(verdicts or "[]")}
    if checks.NAME in stored:
        return dict.fromkeys(names, success)
    return {**stored, PANEL: success}


def _text_row(label: Label) -> dict[str, Any]:
    own = label.texts.row if label.texts is not None else {}
    return {**own, "variant": "none", "subcategory": label.category}


def _label_id(line: int) -> str:
    return f"label|{line}"


# ---------------------------------------------------------------------------------------------- rows


def _row(
    panel: Panel,
    name: str,
    source: str,
    measure: str,
    group: tuple[str, str],
    figure: Figure,
    undecidable: int,
    detail: Mapping[str, Any],
) -> dict[str, Any]:
    seat = next((seat for seat in panel.seats if seat.name == name), None)
    model = seat.model if seat else None
    grouping, category = group
    return {
        "validation_id": content_id(name, source, measure, grouping, category),
        "judge": name,
        "model": model.model if model else None,
        "revision": model.revision if model else None,
        "version": _version(panel, name, seat),
        "sees": ",".join(seat.judge.seen_by(model)) if seat else None,
        "source": source,
        "measure": measure,
        "grouping": grouping,
        "category": category,
        "n": figure.n,
        "undecidable": undecidable,
        "value": figure.value,
        "ci_low": figure.ci_low,
        "ci_high": figure.ci_high,
        "detail": json.dumps(detail),
    }


def _version(panel: Panel, name: str, seat: Seat | None) -> str | None:
    if name == PANEL:
        return ",".join(f"{each.name}/{each.judge.version}" for each in panel.deciding_groups[0])
    return seat.judge.version if seat else None
