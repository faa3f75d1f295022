"""One full demo in a root of its own, shared by the tests that look at what came out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def run_demo(root: Path, **environment: str) -> str:
    """The demo's output; fails the test if the demo fails."""
    done = subprocess.run(
        [sys.executable, "-m", "safevid_dagster.cli", "demo"],
        cwd=PROJECT,
        env={
            **os.environ,
            "SAFEVID_ROOT": str(root),
            "PYTHONPATH": str(PROJECT),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "safevid"
    run_demo(root)
    return root
