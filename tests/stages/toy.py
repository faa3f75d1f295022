"""Stages for tests, over a table of word counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.execution.local import LocalRunner, RunReport
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, frame_hash


def table(name: str) -> Table:
    return Table(name, "unit", "unit", pl.Schema({"unit": pl.String, "words": pl.Int64}))


def rows_of(name: str, units: Sequence[str]) -> StageRows:
    """A row for each unit, with the length of its id."""
    rows = [{"unit": unit, "words": len(unit)} for unit in units]
    return StageRows(table(name).frame(rows), [(unit, "ok", "") for unit in units])


def stage(name: str, *reads: str, plan: Any = None, **more: Any) -> Stage:
    """A stage that makes one row a unit, from `a` and `b` or by a plan of its own."""
    default = Plan({"given": "1"}, ["a", "b"], lambda units: rows_of(name, units))
    return Stage(
        table(name),
        "audits",
        f"Words of {name}.",
        plan or (lambda tools, partition: default),
        reads=reads,
        **more,
    )


def counting(name: str, read: str, planned: list[str], **more: Any) -> Stage:
    """A stage that copies the units of another one, and notes each partition that it plans."""

    def plan(tools: Tools, partition: str) -> Plan:
        planned.append(partition)
        given = tools.lake.scan(table(read), [partition]).select("unit", "words").sort("unit").collect()
        return Plan({"given": frame_hash(given)}, given["unit"].to_list(), lambda units: rows_of(name, units))

    return stage(name, read, plan=plan, **more)


def settings_for(lake: Lake, **overrides: Any) -> Settings:
    return load_settings("pocket", overrides={"root": str(lake.root), **overrides})


def planner(lake: Lake, *stages: Stage, **overrides: Any) -> Planner:
    """A planner over these stages alone."""
    return Planner(Tools(settings_for(lake, **overrides), lake, Registry(stages), _no_gateway))


def _no_gateway() -> Any:
    raise AssertionError("these stages ask no model")


def make(planner: Planner, name: str, *partitions: str) -> RunReport:
    """Run one of the planner's stages; the first error is raised."""
    with LocalRunner(planner) as runner:
        report = runner.run(planner.registry[name], partitions or (WHOLE,))
    for error in report.failures.values():
        raise error
    return report
