"""A fixture of every benchmark, written once, and a way to commit one from a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.tables import benchmark_table
from safevid_core.execution.local import StageReport
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake, Manifest
from tests.evaluation.benchmarks.layouts import WRITERS
from tests.stages import run_stage


@dataclass(frozen=True)
class Committed:
    """A benchmark in a lake."""

    settings: Settings
    lake: Lake
    name: str
    report: StageReport

    @property
    def manifest(self) -> Manifest:
        return self.report.manifest

    @property
    def items(self) -> pl.DataFrame:
        return self.lake.read(benchmark_table(self.name))

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Source row -> outcome and reason."""
        rows = self.lake.outcomes(self.name).iter_rows()
        return {source_row: (outcome, reason) for source_row, outcome, reason in rows}


def commit(root: Path, name: str, path: Path, **files: Any) -> Committed:
    """Commit a benchmark from its files to the lake at `root`."""
    overrides = {"root": str(root), "evaluation": {"files": {name: {"path": str(path), **files}}}}
    settings = load_settings("pocket", overrides=overrides)
    lake = Lake(root, "pocket")
    return Committed(settings, lake, name, run_stage(settings, lake, name))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Benchmark -> its folder; only read, never changed."""
    root = tmp_path_factory.mktemp("published")
    folders = {name: root / name for name in WRITERS}
    for name, folder in folders.items():
        WRITERS[name](folder)
    return folders


@pytest.fixture
def copy_of(published: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a benchmark's folder, to be spoiled."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(published[name], tmp_path / "files"))

    return copied
