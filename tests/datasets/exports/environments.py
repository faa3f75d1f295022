"""Other tools in environments of their own: installed by uv, and called as processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

# What uv says if it reaches no registry.
_NO_NETWORK = ("dns error", "failed to lookup", "connection refused", "timed out", "network is unreachable")


def installed(folder: Path, *requirements: str) -> Path:
    """The interpreter of a new environment with these packages. Skips the test without a network."""
    uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if uv is None:
        pytest.skip("uv is not installed")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [uv, "pip", "install", "-q", "--python", str(python), *requirements], capture_output=True, text=True
    )
    if done.returncode and any(words in done.stderr.lower() for words in _NO_NETWORK):
        pytest.skip(f"no network to install {requirements[0]}")
    assert done.returncode == 0, done.stderr
    return python


def asked(python: Path, source: str, *arguments: str | Path) -> Any:
    """What a program prints last, as JSON."""
    return json.loads(called([python, "-c", source, *arguments], python.parent.parent).splitlines()[-1])


def called(command: Sequence[str | Path], home: Path) -> str:
    """What a command prints, with its caches below `home` and without a network for Hugging Face."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "huggingface"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**kept, **offline},
        cwd=home,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
