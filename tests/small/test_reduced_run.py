"""The whole method with SmolLM2 as the policy, in minutes: a reduced build and a few clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from safevid_core.contracts.tables import BENCHMARK_RESPONSES, PAIRS, TAXONOMY_QUERIES
from safevid_core.small.builder import REDUCED, build
from safevid_core.storage.lake import Lake
from tests.end_to_end.conftest import run_demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_REDUCED = {
    "corpus": {"target_clips": 24},
    "models": {"builders": []},
    "queries": {"subcategories_per_clip": 2},
    "evaluation": {"max_items": 8, "modality_items": 2},
}


@pytest.fixture(scope="module")
def root(weights: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which the demo of profile `small` has run, with responses of at most 40 tokens."""
    root = tmp_path_factory.mktemp("small") / "safevid"
    build(root / "small", REDUCED)
    policy = {"max_new_tokens": 40}
    changes = {
        **_REDUCED,
        "alignment": {"base": policy, "batch_size": 4},
        "preferences": {"unaligned": policy},
    }
    file = root.parent / "reduced.yaml"
    file.write_text(yaml.safe_dump(changes))
    run_demo(root, SAFEVID_PROFILE="small", SAFEVID_SETTINGS=str(file))
    return root


def test_the_method_runs_from_describing_to_the_scorecard(root: Path) -> None:
    card = json.loads((root / "reports" / "scorecard.json").read_text())
    assert card["profile"] == "small"
    measured = {(each["system"], each["metric"]) for each in card["systems"] if each["n"]}
    assert {("small@0", "safety_rate"), ("small@1", "safety_rate"), ("small@1", "helpful_rate")} <= measured
    lake = Lake(root, "small")
    assert lake.read(PAIRS).height > 0
    responses = lake.read(BENCHMARK_RESPONSES, "small@0|safevidbench_base")
    assert responses["text"].drop_nulls().len() > 0


def test_every_report_says_what_is_scripted_and_what_was_trained_here(root: Path) -> None:
    card = json.loads((root / "reports" / "scorecard.json").read_text())
    scripted, seen = card["notices"]
    for role in ("queries.asker", "queries.rater", "preferences.responder", "preferences.judges.rubric"):
        assert role in scripted
    assert "SmolLM2-135M-Instruct" in seen
    assert "trained here on rendered clips" in seen
    for name in ("scorecard.html", "scorecard.md"):
        page = (root / "reports" / name).read_text()
        assert "Scripted, and no language model" in page
        assert "trained here on rendered clips" in page
    lake = Lake(root, "small")
    queries, pairs = lake.read(TAXONOMY_QUERIES), lake.read(PAIRS)
    assert set(queries["model"]) == {"scripted/asker"}
    assert set(queries["rater"]) == {"scripted/rater"}
    assert all("scripted/judge" in judge for judge in pairs["pair_judge"])
    assert all(model.startswith("scripted/responder") for model in pairs["chosen_model"])
