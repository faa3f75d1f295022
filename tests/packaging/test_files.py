"""Files that stand at the top of the checkout and in the wheel say the same."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from safevid_core.reporting.scorecard import git_revision

PROJECT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["dagster.yaml", "workspace.yaml"])
def test_the_top_of_the_checkout_shows_the_file_of_the_package(name: str) -> None:
    assert (PROJECT / name).read_text() == (PROJECT / "safevid_dagster" / name).read_text()


def test_the_workspace_names_a_module() -> None:
    (entry,) = yaml.safe_load((PROJECT / "workspace.yaml").read_text())["load_from"]
    assert entry["python_module"]["module_name"] == "safevid_dagster.definitions"


def test_dagster_finds_the_same_project_in_a_wheel() -> None:
    shipped = tomllib.loads((PROJECT / "safevid_dagster" / "dg.toml").read_text())
    assert shipped == PYPROJECT["tool"]["dg"]


def test_every_package_that_is_named_is_locked() -> None:
    locked = set(
        re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==", (PROJECT / "requirements.txt").read_text(), re.M)
    )
    project = PYPROJECT["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[=<>~! ]", each)[0].lower().replace("_", "-") for each in named} - {"safevid"}
    assert names <= locked


def test_the_lock_names_no_registry() -> None:
    assert not re.search(r"https?://|--(extra-)?index-url", (PROJECT / "requirements.txt").read_text())


def test_another_projects_commit_is_not_the_codes(tmp_path: Path) -> None:
    package = tmp_path / "venv" / "safevid_core"
    package.mkdir(parents=True)
    (package / "scorecard.py").write_text("")
    for command in (
        ["init", "-q"],
        ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "Start"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert git_revision(package / "scorecard.py") == "unknown"
