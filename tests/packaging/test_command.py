"""The command `safevid`: quick to answer, and its exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.command import PROJECT, safevid_process


def test_help_takes_less_than_half_a_second() -> None:
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        done = safevid_process("--help")
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0
        assert {"demo", "ui"} <= set(done.stdout.split())
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    source = (
        "import sys, safevid_dagster.cli.commands; "
        "heavy = {'dagster', 'polars', 'pydantic', 'torch', 'litellm'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_command_is_a_bad_request() -> None:
    done = safevid_process("dmeo")
    assert done.returncode == 2
    assert "dmeo" in done.stderr


def test_an_unknown_setting_is_a_bad_request_in_one_line(tmp_path: Path) -> None:
    done = safevid_process("demo", SAFEVID_CORPSE="{}", SAFEVID_ROOT=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("safevid: environment variable SAFEVID_CORPSE matches no setting")
    assert done.stderr.count("\n") == 1


def test_a_stage_that_fails_is_a_failure(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    sources = f'[{{"kind": "folder", "path": "{nothing}"}}]'
    done = safevid_process("demo", SAFEVID_CORPUS__SOURCES=sources, SAFEVID_ROOT=str(tmp_path / "root"))
    assert done.returncode == 1
    assert str(nothing) in done.stdout
