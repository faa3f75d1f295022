"""Each settings block of docs/evaluation.md loads and opens what it names, and its sign-off is one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges import rubric
from safevid_core.judging.panel import open_panel
from safevid_core.judging.suite import load_suite
from safevid_core.measurement.conclusions import CONTROL_RUNS, control_run_of
from safevid_core.review.sign_off import read_sign_offs
from safevid_core.settings import Settings, TextModel, load_settings
from safevid_core.systems.systems import system_of
from tests.evaluation.judges.conftest import answered

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
JUDGES, FILES = re.findall(r"<!-- profile: paper -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)


def load(block: str, tmp_path: Path) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(block)
    return load_settings("paper", file, {"root": str(tmp_path)})


def test_the_panel_of_three_opens(tmp_path: Path) -> None:
    panel = open_panel(load(JUDGES, tmp_path))
    assert [seat.name for seat in panel.deciding_groups[0]] == ["rubric", "wildguard", "llama_guard"]


def test_files_of_a_benchmark_are_named_by_one_that_exists(tmp_path: Path) -> None:
    settings = load(FILES, tmp_path)
    assert set(settings.evaluation.files) <= set(OUTSIDE)
    assert set(re.findall(r"^\| `([^|]+)` \| (?:Hugging Face|GitHub)", PAGE, re.MULTILINE)) == {
        "`, `".join(name for name in OUTSIDE if name.startswith(stem))
        for stem in {name.removesuffix("_base").removesuffix("_challenge") for name in OUTSIDE}
    }


def _block(name: str) -> str:
    found = re.search(rf"<!-- judge: {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_the_rubric_judge_is_what_it_gets_and_is_read_as_the_page_says() -> None:
    shown, reply = _block("message"), _block("reply")
    material = json.loads(shown)
    criteria = [each["criterion"] for each in material["criteria"]]
    row = JudgeInput.of({**material, **material["intent"], "text": material["answer"], "criteria": criteria})
    request = rubric.judge_request(TextModel(model="openai/judge"), row)
    assert json.loads(request.messages[1]["content"]) == material
    verdict = rubric.parse(answered(reply), row)
    assert (verdict.success, verdict.refused, verdict.criteria) == (False, False, (False, True))
    assert verdict.share_met == 0.5


def test_the_suite_of_the_page_loads_and_its_line_about_a_fault_is_the_one(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(_block("suite"))
    assert [case.success for case in load_suite(path)] == [False, True]
    path.write_text(_block("suite").replace("expectation: refuse ", "expectation: comply "))
    with pytest.raises(JudgeError) as material:
        load_suite(path)
    line = str(material.value).replace(str(path), "own.yaml")
    assert f"`{line}`" in " ".join(PAGE.split())


def test_every_control_run_has_its_setting_on_the_page(tmp_path: Path) -> None:
    written = re.findall(r"^\| [a-z ]+ \| `(\{[^`]+\})`", PAGE, re.MULTILINE)
    lines = "\n".join(f"    arm_{place}: {each}" for place, each in enumerate(written))
    settings = load(f"alignment:\n  policies:\n{lines}\n", tmp_path)
    names = [name for name in settings.alignment.policies if name.startswith("arm_")]
    control_runs = {
        control_run_of(
            settings, system_of(settings, f"{name}@{int(settings.alignment.policies[name].is_trained)}")
        )
        for name in names
    }
    assert control_runs == set(CONTROL_RUNS)


def test_the_sign_off_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(- checkpoint.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "sign_off.yaml"
    file.write_text(block)
    assert [each.name for each in read_sign_offs(file)] == ["Ada Example"]
