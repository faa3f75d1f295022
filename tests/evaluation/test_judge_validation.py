"""How far judges can be trusted: the fixed suite, and people's labels."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.intent import EXPECTATIONS, MAX_CRITERIA, UNSAFE_TO_HELP
from safevid_core.contracts.tables import BENCHMARK_SCORES, JUDGE_VALIDATION
from safevid_core.execution.local import StageReport
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges import checks
from safevid_core.judging.people import ALL, PEOPLE
from safevid_core.judging.suite import load_suite
from safevid_core.judging.validation import PANEL
from safevid_core.models.llm import Gateway
from safevid_core.settings import load_settings
from safevid_core.statistics.agreement import LabelError, cohen_kappa
from safevid_core.storage.lake import Lake, audit_partition
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.judges.conftest import verdict_of
from tests.evaluation.small_lake import put, settings_for
from tests.models.chat_server import ChatServer, Reply, fails, says
from tests.stages import run_stage


class Trial:
    """A lake of its own, judges of one's choice, and what came of their validation."""

    def __init__(self, root: Path) -> None:
        self.lake = Lake(root, "pocket")

    def validate(self, **evaluation: Any) -> StageReport:
        settings = settings_for(self.lake.root, **evaluation)
        gateway = Gateway(settings)
        try:
            return run_stage(settings, self.lake, "judge_validation", gateway=gateway)
        finally:
            gateway.close()

    def share_right(self, judge: str, category: str = ALL) -> dict[str, Any]:
        return self.row(judge, "suite", "share_right", category)

    def row(self, judge: str, source: str, measure: str, category: str = ALL) -> dict[str, Any]:
        rows = self.lake.read(JUDGE_VALIDATION)
        grouping = ALL if category == ALL else "kind" if source == "suite" else "category"
        wanted = rows.filter(
            judge=judge, source=source, measure=measure, grouping=grouping, category=category
        )
        return wanted.row(0, named=True)

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        return {
            each: (outcome, why) for each, outcome, why in self.lake.outcomes("judge_validation").iter_rows()
        }


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return Trial(tmp_path / "safevid")


def always(server: ChatServer, reply: Reply) -> dict[str, Any]:
    """The settings of a rubric judge that says the same of everything."""
    server.queue(*[reply] * 500)
    return {"model": "openai/judge", "api_base": server.url}


def calls_everything_safe(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
    """A rubric judge to which every response meets every criterion."""
    material = json.loads(body["messages"][1]["content"])
    expected = material["intent"]["expectation"]
    verdict = verdict_of(
        *[True] * len(material["criteria"]), expected=expected, success=True, refused=expected == "refuse"
    )
    says(verdict)(chat, body, handler)


POCKET_SUITE = load_settings("pocket").evaluation.suite


# ------------------------------------------------------------------------------------------ the suite


def test_the_suite_tries_what_judges_are_known_to_fall_for() -> None:
    cases = load_suite()
    kinds = Counter(case.kind for case in cases)
    assert kinds.keys() >= {
        "good refusal", "good answer", "over-refusal", "empty", "gibberish", "endless", "echo",
        "other language", "never-do-this suffix", "refusal then help", "injected verdict", "polite essay",
        "plain help", "rebuttal", "correction", "care", "wrong answer",
    }  # fmt: skip
    assert {case.asked.expectation for case in cases} == set(EXPECTATIONS)
    # A judge that says one thing of everything is right on neither.
    assert 0.2 < sum(case.success for case in cases) / len(cases) < 0.5


@pytest.mark.parametrize("path", [None, POCKET_SUITE], ids=["package", "pocket"])
def test_a_suite_states_intents_and_policies_that_a_judge_can_read(path: Path | None) -> None:
    wants = {"harmless": {"refuse", "rebut", "care"}, "honest": {"correct"}, "helpful": {"answer"}}
    cases = load_suite(path)
    assert 50 <= len(cases) <= 90
    for case in cases:
        asked, row = case.asked, JudgeInput.of(case.row())
        assert row.intent.expectation in wants[asked.principle], case.id
        assert 2 <= len(row.intent.criteria) <= MAX_CRITERIA, case.id
        assert all(each.startswith("The response ") for each in row.intent.criteria), case.id
        assert (asked.premise is None) == (asked.premise_holds is None), case.id
        assert (row.intent.expectation in UNSAFE_TO_HELP) == (asked.hazard is not None), case.id
    # Both verdicts are given for each query, or a judge could go by the query alone.
    verdicts: dict[str, set[bool]] = defaultdict(set)
    for case in cases:
        verdicts[case.asked.query].add(case.success)
    assert all(found == {True, False} for found in verdicts.values()), verdicts


def test_the_suite_of_the_package_is_about_real_things() -> None:
    """The rendered world's words are for the pocket's own suite."""
    text = " ".join(f"{case.asked.query} {case.answer} {case.asked.criteria}" for case in load_suite())
    assert not re.search(
        r"\b(?:crate|kite|drone|bottle|confetti|ball|sparks?|hate sign)s?\b", text, re.IGNORECASE
    )
    for subject in ("car", "crowd", "kitchen", "screen", "people", "phone"):
        assert re.search(rf"\b{subject}\b", text, re.IGNORECASE), subject


def test_what_is_no_answer_is_caught_before_any_judge_and_an_answer_is_not() -> None:
    for case in load_suite():
        caught = checks.check_response(JudgeInput.of(case.row())) is not None
        if case.kind in ("empty", "endless"):
            assert caught, case.id
        if case.success:
            assert not caught, case.id


def test_every_judge_has_a_share_for_all_and_for_each_kind_it_judges(trial: Trial) -> None:
    report = trial.validate()
    cases = load_suite(POCKET_SUITE)
    for judge in ("rubric", "string_match"):
        whole = trial.share_right(judge)
        assert whole["ci_low"] <= whole["value"] <= whole["ci_high"]
        parts = trial.lake.read(JUDGE_VALIDATION).filter(
            pl.col("category") != ALL, judge=judge, measure="share_right"
        )
        assert parts["n"].sum() == whole["n"]
        assert (parts["n"] * parts["value"]).sum() == pytest.approx(whole["n"] * whole["value"])
    assert report.manifest.info["cases"] == len(cases)
    assert set(trial.outcomes) == {
        f"{judge}|{case.id}" for judge in ("rubric", "string_match") for case in cases
    }
    audit_partition(trial.lake, JUDGE_VALIDATION, "all")
    assert report.manifest.info["people"] == "no labels from people"
    # The baseline falls for a refusal before the help; a judge that reads does not.
    assert trial.share_right("string_match", "refusal then help")["value"] == 0
    assert trial.share_right("rubric")["value"] > trial.share_right("string_match")["value"]
    assert not trial.validate().computed


def test_a_judge_that_calls_everything_safe_gets_what_it_deserves(trial: Trial, server: ChatServer) -> None:
    trial.validate(judge=always(server, calls_everything_safe))
    for kind in ("plain help", "polite essay", "injected verdict"):
        assert trial.share_right("rubric", kind)["value"] == 0
    assert trial.share_right("rubric", "good refusal")["value"] == 1
    # What is no answer is wrong whoever judges.
    assert trial.share_right("rubric", "empty")["value"] == 1
    cases = load_suite(POCKET_SUITE)
    right = sum(
        case.success or checks.check_response(JudgeInput.of(case.row())) is not None for case in cases
    )
    assert trial.share_right("rubric")["value"] == pytest.approx(right / len(cases))


def test_cases_that_a_judge_leaves_open_count_as_wrong(trial: Trial, server: ChatServer) -> None:
    trial.validate(judge=always(server, says("I would rather not judge this.")))
    essays = trial.share_right("rubric", "polite essay")
    assert (essays["value"], essays["undecidable"]) == (0, essays["n"])
    assert trial.outcomes["rubric|harm-plain"][0] == "undecidable"


def test_a_judge_that_nobody_answers_for_has_failed_and_is_not_scored_on_it(
    trial: Trial, server: ChatServer
) -> None:
    trial.validate(judge=always(server, fails(400)))
    assert trial.outcomes["rubric|harm-plain"][0] == "failed"
    assert trial.share_right("rubric")["n"] == sum(
        checks.check_response(JudgeInput.of(case.row())) is not None for case in load_suite(POCKET_SUITE)
    )
    with pytest.raises(pl.exceptions.OutOfBoundsError):
        trial.share_right("rubric", "plain help")


def test_a_judge_of_harm_alone_is_not_asked_about_help(trial: Trial, server: ChatServer) -> None:
    server.queue(*[says("no")] * 500)
    guard = {"model": "openai/guard", "api_base": server.url}
    trial.validate(judges={"harmbench": guard})
    outcome, why = trial.outcomes["harmbench|answer-flag"]
    assert (outcome, why) == ("filtered", "harmbench decides harm only")
    harmful = [case for case in load_suite(POCKET_SUITE) if case.asked.expectation == "refuse"]
    assert trial.share_right("harmbench")["n"] == len(harmful)


def test_judges_that_decide_together_are_validated_together(trial: Trial, server: ChatServer) -> None:
    judge = always(server, calls_everything_safe)
    trial.validate(judges={"rubric:second": judge}, panel=["rubric", "rubric:second"])
    row = trial.share_right(PANEL)
    # Where the scripted judge says no and the other yes, the two have no verdict.
    assert row["undecidable"] > 0
    assert row["value"] < trial.share_right("rubric")["value"]
    assert row["model"] is None


# ------------------------------------------------------------------------------------- people's labels


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def labelled(evaluated: Evaluated, trial: Trial, tmp_path: Path) -> list[dict[str, Any]]:
    """Sixty verdicts in the trial's lake, and a label of one person on each: every fifth is the other way."""
    partition = f"pocket@1|{BENCHMARK}"
    scores = evaluated.lake.read(BENCHMARK_SCORES, partition).drop("profile").head(60).to_dicts()
    put(trial.lake, BENCHMARK_SCORES, partition, scores)
    return [
        {
            "response_id": score["response_id"],
            "label": "success" if score["success"] != (place % 5 == 0) else "failure",
            "annotator": "ada",
        }
        for place, score in enumerate(scores)
    ]


def test_agreement_with_people_is_kappas_on_the_stored_verdicts(
    trial: Trial, labelled: list[dict[str, Any]], tmp_path: Path
) -> None:
    report = trial.validate(labels=str(write_labels(tmp_path / "labels.csv", labelled)))
    assert report.manifest.info["people"].startswith("60 labels from ")
    stored = dict(trial.lake.read(BENCHMARK_SCORES).select("response_id", "success").iter_rows())
    people = [row["label"] == "success" for row in labelled]
    judge = [stored[row["response_id"]] for row in labelled]
    agreement = trial.row("rubric", PEOPLE, "agreement")
    assert agreement["value"] == pytest.approx(0.8)
    assert agreement["n"] == 60
    assert trial.row("rubric", PEOPLE, "kappa")["value"] == pytest.approx(cohen_kappa(people, judge).value)
    assert trial.row("rubric", PEOPLE, "alpha")["n"] == 60
    confusion = Counter(zip(people, judge, strict=True))
    assert f'"people success, judge failure": {confusion[True, False]}' in agreement["detail"]
    by_category = trial.lake.read(JUDGE_VALIDATION).filter(
        grouping="category", judge="rubric", source=PEOPLE, measure="agreement"
    )
    assert by_category["n"].sum() == 60
    assert set(trial.outcomes) >= {f"label|{line}" for line in range(2, 62)}


def test_every_label_has_an_outcome(trial: Trial, labelled: list[dict[str, Any]], tmp_path: Path) -> None:
    rows = [
        labelled[0],
        {**labelled[0], "label": "failure"},
        {**labelled[1], "response_id": "nobody"},
        {**labelled[2], "label": "perhaps"},
        {**labelled[3], "annotator": "bo"},
    ]
    trial.validate(labels=str(write_labels(tmp_path / "labels.csv", rows)))
    outcomes_of_labels = {line: trial.outcomes[f"label|{line}"] for line in range(2, 7)}
    assert {line: outcome for line, (outcome, _) in outcomes_of_labels.items()} == {
        2: "ok", 3: "filtered", 4: "undecidable", 5: "failed", 6: "ok",
    }  # fmt: skip
    assert outcomes_of_labels[3][1] == "annotator ada labelled this answer on line 2 already"
    assert outcomes_of_labels[5][1].startswith(
        "label 'perhaps' is unknown; known: 1, right, safe, success, true, yes or 0,"
    )
    audit_partition(trial.lake, JUDGE_VALIDATION, "all")


def test_labelled_texts_are_put_to_the_judges(trial: Trial, tmp_path: Path) -> None:
    rows = [
        {"query": case.asked.query, "answer": case.answer, "principle": case.asked.principle,
         "expectation": case.asked.expectation, "asks": case.asked.asks, "target": case.asked.target,
         "criteria": "\n".join(case.asked.criteria), "label": "success" if case.success else "failure"}
        for case in load_suite(POCKET_SUITE) if case.kind in ("good refusal", "plain help", "over-refusal")
    ]  # fmt: skip
    trial.validate(labels=str(write_labels(tmp_path / "labels.csv", rows)))
    agreement = trial.row("rubric", PEOPLE, "agreement")
    kinds = ("good refusal", "plain help", "over-refusal")
    right = [trial.share_right("rubric", kind) for kind in kinds]
    assert agreement["n"] == len(rows)
    assert agreement["value"] == pytest.approx(
        sum(row["value"] * row["n"] for row in right) / sum(row["n"] for row in right)
    )
    # One person has nobody to agree with.
    assert trial.lake.read(JUDGE_VALIDATION).filter(judge=PEOPLE).is_empty()


def test_a_changed_label_file_is_validated_again(
    trial: Trial, labelled: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = write_labels(tmp_path / "labels.csv", labelled)
    assert trial.validate(labels=str(path)).computed
    assert not trial.validate(labels=str(path)).computed
    write_labels(path, labelled[:-1])
    assert trial.validate(labels=str(path)).computed


@pytest.mark.parametrize("text", [None, "no,table\n1,2\n"])
def test_a_label_file_that_cannot_be_used_is_named(trial: Trial, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LabelError, match=r"label file \S+labels.csv"):
        trial.validate(labels=str(path))
