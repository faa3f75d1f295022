"""The wheel alone, in a fresh environment and an empty folder: the demo runs to its end and the UI loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.end_to_end.conftest import PROJECT
from tests.end_to_end.test_reproducible import SMALL
from tests.ui.test_backfill import query, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PACKAGES = ("safevid_core", "safevid_dagster")
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
  name locationOrLoadError { __typename ... on PythonError { message } }
} } } }"""


def run(*command: str | Path, cwd: Path, timeout: float = 120, **environment: str) -> str:
    """The output of a command that finds no checkout; fails the test if the command fails."""
    done = subprocess.run(
        command, cwd=cwd, env=bare(**environment), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(**environment: str) -> dict[str, str]:
    """This process's variables without those that lead to the checkout or set what SafeVid sets itself."""
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "LITELLM_LOCAL_MODEL_COST_MAP", "DAGSTER_HOME")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith("SAFEVID_")
    }
    return {**kept, **environment}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel of this checkout, beside the packages installed here."""
    folder = tmp_path_factory.mktemp("installed")
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(PROJECT / file, source / file)
    uv = [sys.executable, "-m", "uv"]
    run(*uv, "venv", "--python", sys.executable, environment, cwd=folder)
    # A line of a .pth file adds a folder. The .pth files in that folder are not read, so that an editable
    # installation of the checkout stays out of sight.
    (site_packages(environment) / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ("pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python")
    run(*uv, *install, environment / "bin" / "python", source, cwd=folder)
    return environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The empty folder from which the command is run."""
    return tmp_path_factory.mktemp("empty")


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def test_the_wheel_holds_every_file_of_the_packages(environment: Path, folder: Path) -> None:
    for package in PACKAGES:
        source = "import sys, importlib; print(importlib.import_module(sys.argv[1]).__file__)"
        where = run(environment / "bin" / "python", "-c", source, package, cwd=folder).strip()
        installed = site_packages(environment) / package
        assert Path(where) == installed / "__init__.py"
        expected = {
            path.relative_to(PROJECT / package)
            for path in (PROJECT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert not {path for path in expected if not (installed / path).is_file()}


def test_the_demo_runs_to_its_end(environment: Path, folder: Path) -> None:
    settings = {f"SAFEVID_{group.upper()}": json.dumps(values) for group, values in SMALL.items()}
    output = run(environment / "bin" / "safevid", "demo", cwd=folder, timeout=1500, **settings)
    assert "Took " in output
    assert [path.name for path in folder.iterdir()] == [".safevid"]
    card = json.loads((folder / ".safevid" / "reports" / "scorecard.json").read_text())
    assert card["git_revision"] == "unknown"
    assert (folder / ".safevid" / "reports" / "scorecard.html").stat().st_size > 10_000


def test_the_ui_serves_the_code_location(environment: Path, folder: Path) -> None:
    with served([environment / "bin" / "safevid"], folder, bare()) as port:
        (location,) = query(port, LOCATIONS)["workspaceOrError"]["locationEntries"]
        assert location["name"] == "safevid"
        assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
