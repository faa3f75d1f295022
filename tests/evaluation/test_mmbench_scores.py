"""MMBench-Video's score over valid and over all answers, by ability and by dimension."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safevid_core.benchmarks.outside.mmbench_video import ABILITIES, HALVES, KINDS
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_SCORES
from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.pipeline import build_registry
from safevid_core.reporting.flow import read_flow
from safevid_core.reporting.scorecard import REPORTS, write_report
from safevid_core.reporting.tables import heat_tables, outcome_rows
from safevid_core.settings import Settings, merge
from tests.evaluation.benchmarks.conftest import Committed, commit
from tests.evaluation.benchmarks.layouts import write_csv, write_video

CLIPS, QUESTIONS = 5, 60
SYSTEMS = ("pocket@0", "pocket@1")


@dataclass(frozen=True)
class Made:
    """A benchmark with verdicts.

    Attributes:
        dimensions: Question -> its dimensions.
        scores: System -> question -> score; -1 where the answer has no verdict.
    """

    committed: Committed
    dimensions: dict[str, list[str]]
    scores: dict[str, dict[str, int]]


def write_questions(folder: Path) -> dict[str, list[str]]:
    """A benchmark whose questions have up to three dimensions each: index -> its dimensions."""
    rng = random.Random(7)
    every = [dimension for under in ABILITIES.values() for dimension in under]
    dimensions = {str(number): rng.sample(every, rng.randint(1, 3)) for number in range(QUESTIONS)}
    rows = [
        {
            "index": index, "video": f"clip {int(index) % CLIPS}", "question": f"What is number {index}?",
            "answer": f"number {index}", "dimensions": repr(names),
        }
        for index, names in dimensions.items()
    ]  # fmt: skip
    write_csv(folder / "MMBench-Video.tsv", rows, delimiter="\t")
    for number in range(CLIPS):
        write_video(folder / "video" / f"clip {number}.mp4", 40 + 40 * number)
    return dimensions


def put_scores(committed: Committed, system: str, scores: dict[str, int]) -> None:
    rows: list[dict[str, Any]] = []
    outcomes = []
    for item in committed.items.to_dicts():
        score = scores[json.loads(item["options"])["id"]]
        response_id = f"{system}-{item['item_id']}"
        outcomes.append((response_id, "ok", "") if score >= 0 else (response_id, "failed", "no answer"))
        if score >= 0:
            rows.append(
                {**{name: item.get(name) for name in BENCHMARK_SCORES.schema}, "response_id": response_id,
                 "system": system, "policy": "pocket", "data_scale": float(system[-1]), "seed": 0,
                 "variant": "right", "explicit": False, "outcome": "ok", "expected": "answer",
                 "success": score >= 2, "refused": None, "score": float(score), "verdicts": "[]",
                 "panel": "mmbench_video", "judge": "mmbench_video"}
            )  # fmt: skip
    stage = StageRows(BENCHMARK_SCORES.frame(rows), outcomes, {})
    committed.lake.commit(BENCHMARK_SCORES, f"{system}|mmbench_video", stage, "made for a test", {})


def plain_ratings(dimensions: dict[str, list[str]], scores: dict[str, int]) -> dict[str, float]:
    """The mean over the valid scores of each name, question by question, as the benchmark tells it."""
    scores_by_kind: dict[str, list[int]] = {}
    for index, names in dimensions.items():
        for name in names:
            scores_by_kind.setdefault(name, []).append(scores[index])
        for half, abilities in HALVES.items():
            if any(name in ABILITIES[ability] for ability in abilities for name in names):
                scores_by_kind.setdefault(half, []).append(scores[index])
            for ability in abilities:
                if any(name in ABILITIES[ability] for name in names):
                    scores_by_kind.setdefault(ability, []).append(scores[index])
    valid = {name: [score for score in all_ if score >= 0] for name, all_ in scores_by_kind.items()}
    return {name: sum(some) / len(some) for name, some in valid.items() if some}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("mmbench")
    dimensions = write_questions(root / "files")
    committed = commit(root / "lake", "mmbench_video", root / "files")
    rng = random.Random(11)
    scores = {system: {index: rng.randint(-1, 3) for index in dimensions} for system in SYSTEMS}
    for system, mine in scores.items():
        put_scores(committed, system, mine)
    return Made(committed, dimensions, scores)


@pytest.fixture(scope="module")
def measured(made: Made) -> Measurement:
    return measure(made.committed.settings, made.committed.lake, "mmbench_video")


def test_the_score_is_reported_over_valid_and_over_all_answers(made: Made, measured: Measurement) -> None:
    for system, scores in made.scores.items():
        valid = [score for score in scores.values() if score >= 0]
        figures = measured.estimates[system]
        assert figures["mmbench_score"].value == pytest.approx(sum(valid) / len(valid))
        assert figures["mmbench_score_all"].value == pytest.approx(sum(valid) / QUESTIONS)
        assert figures["mmbench_score_all"].n == figures["mmbench_score_bound"].n == QUESTIONS
    for row in outcome_rows([measured]):
        assert [metric for metric, *_ in row.rates] == ["helpful_rate", "mmbench_score"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_mean_of_its_questions(kind: str, made: Made, measured: Measurement) -> None:
    for system in SYSTEMS:
        found = {
            each.category: each.estimate.value
            for each in measured.categories
            if (each.system, each.column) == (system, kind) and each.estimate.known
        }
        plain = plain_ratings(made.dimensions, made.scores[system])
        assert found == pytest.approx({name: plain[name] for name in KINDS[kind] if name in plain})
    changes = [each for each in measured.category_changes if each.column == kind]
    assert {each.metric for each in changes} == {"mmbench_score"}
    assert all(each.adjusted_p >= each.estimate.p_value for each in changes if each.adjusted_p is not None)


def test_the_tables_keep_the_order_of_the_benchmark(measured: Measurement) -> None:
    tables = {table.title: table for table in heat_tables(measured, {})}
    assert [row.name for row in tables["By ability"].rows] == list(KINDS["ability"])
    cells = [cell for row in tables["By dimension"].rows for cell in row.cells[0]]
    assert all(cell.link is None for cell in cells)


def test_the_page_shows_scores_and_not_shares(made: Made) -> None:
    settings = Settings.model_validate(
        merge(made.committed.settings.model_dump(), {"evaluation": {"benchmarks": ["mmbench_video"]}})
    )
    write_report(settings, made.committed.lake, read_flow(made.committed.lake, build_registry(settings)))
    reports = made.committed.lake.root / "reports"
    page, card, _ = ((reports / name).read_text() for name in REPORTS)
    table = page[page.index("By ability") :]
    table = table[: table.index("</table>")]
    assert "Score, before" in table
    assert "Change</th>" in table
    reasoning = plain_ratings(made.dimensions, made.scores["pocket@0"])["Reasoning"]
    assert "<td>Reasoning</td>" in table
    assert f">{reasoning:.2f}<br>" in table
    assert "%<" not in table
    found = {
        each["category"]: each["value"]
        for each in json.loads(card)["categories"]
        if (each["system"], each["column"]) == ("pocket@0", "ability")
    }
    assert found["Reasoning"] == pytest.approx(reasoning)
