"""A lake whose answers hold what an export must carry whole: hostile texts, no answer, no verdict."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, Table
from safevid_core.reporting.exports import EvaluationRun, read_runs
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.evaluation.conftest import BENCHMARK, Evaluated
from tests.evaluation.small_lake import settings_for

SYSTEM, CONTROL = "pocket@1", "gibberish"
# A text that would leave a script element, a JSON string, a line and a path, had it the chance.
HOSTILE = '</script><script>alert(1)</script>\u2028 "},{"a":1 \n../../etc/passwd \u202e\x00'
PROMPT = "Answer with care."


@pytest.fixture(scope="module")
def settings(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("exports") / "safevid"
    shutil.copytree(evaluated.lake.root, root)
    lake = Lake(root, "pocket")
    partition = f"{SYSTEM}|{BENCHMARK}"
    answers = lake.read(BENCHMARK_RESPONSES, partition).drop("profile").to_dicts()
    scores = lake.read(BENCHMARK_SCORES, partition).drop("profile").to_dicts()
    first, second = (each["response_id"] for each in scores[:2])
    for answer in answers:
        answer["settings"] = json.dumps({**json.loads(answer["settings"]), "system_prompt": PROMPT})
        if answer["response_id"] == first:
            answer["text"] = HOSTILE
    _put_again(lake, BENCHMARK_RESPONSES, partition, answers, "request_id", {})
    _put_again(
        lake,
        BENCHMARK_SCORES,
        partition,
        [score for score in scores if score["response_id"] != second],
        "response_id",
        {second: "the judge refused"},
    )
    return settings_for(root)


@pytest.fixture(scope="module")
def lake(settings: Settings) -> Lake:
    return Lake(settings.root, "pocket")


@pytest.fixture(scope="module")
def run(settings: Settings, lake: Lake) -> EvaluationRun:
    return next(read_runs(settings, lake, [SYSTEM]))


def _put_again(
    lake: Lake,
    table: Table,
    partition: str,
    rows: list[dict[str, Any]],
    parent: str,
    undecidable: dict[str, str],
) -> None:
    """Rows in place of those that are there; the outcomes of what has none stay."""
    manifest = lake.manifest(table.name, partition)
    assert manifest is not None
    stage = StageRows(table.frame(rows), [(row[parent], "ok", "") for row in rows], manifest.info)
    stage.outcomes += [(each, "undecidable", reason) for each, reason in undecidable.items()]
    known = {each for each, _, _ in stage.outcomes}
    before = lake.outcomes(table.name, partition).iter_rows()
    stage.outcomes += [(each, outcome, reason) for each, outcome, reason in before if each not in known]
    lake.commit(table, partition, stage, "made for a test", manifest.inputs, manifest.seconds)
