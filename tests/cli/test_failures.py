"""Why an attempt failed is stored beside the partition, and removed by the next success."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.execution.local import LocalRunner
from safevid_core.settings import load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake

TOY = Table("toy", "toy_id", "toy_id", pl.Schema({"toy_id": pl.String}))


class NoRoom(SafeVidError):
    """Stands for any error of a stage."""


def test_a_failure_lasts_until_an_attempt_succeeds(tmp_path: Path) -> None:
    errors: list[Exception] = [NoRoom("no room\nleft"), ValueError("a mistake")]

    def make(units: Sequence[str]) -> StageRows:
        if errors:
            raise errors.pop(0)
        return StageRows(TOY.frame([{"toy_id": "a"}]), [("a", "ok", "")])

    stage = Stage(TOY, "corpus", "A toy.", lambda tools, partition: Plan({}, ["a"], make))
    settings, lake = load_settings("pocket", overrides={"root": str(tmp_path)}), Lake(tmp_path, "pocket")

    def run() -> str:
        tools = Tools(settings, lake, Registry([stage]), lambda: None)  # type: ignore[arg-type, return-value]
        with LocalRunner(Planner(tools)) as runner:
            runner.make(stage, [WHOLE])
        return lake.read_failure("toy", WHOLE)

    assert lake.read_failure("toy", WHOLE) == ""
    assert run() == "no room left"
    assert run() == "ValueError: a mistake"
    assert run() == ""
    assert lake.manifest("toy") is not None


def test_inputs_that_are_missing_are_no_failure(tmp_path: Path) -> None:
    settings, lake = load_settings("pocket", overrides={"root": str(tmp_path)}), Lake(tmp_path, "pocket")
    above = Table("above", "toy_id", "toy_id", pl.Schema({"toy_id": pl.String}))
    plan = Plan({}, [], lambda units: StageRows(TOY.frame([]), []))
    stages = [
        Stage(above, "corpus", "A toy.", lambda tools, partition: plan),
        Stage(TOY, "corpus", "A toy.", lambda tools, partition: plan, reads=("above",)),
    ]
    tools = Tools(settings, lake, Registry(stages), lambda: None)  # type: ignore[arg-type, return-value]
    with LocalRunner(Planner(tools)) as runner:
        report = runner.make(stages[1], [WHOLE])
    assert "above is not made yet" in str(report.failures[WHOLE])
    assert lake.read_failure("toy", WHOLE) == ""
