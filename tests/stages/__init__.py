"""Making a stage's partition in a test, through the registry, without the stages before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.execution.local import LocalRunner, StageReport
from safevid_core.pipeline import build_registry
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, Manifest

if TYPE_CHECKING:
    from safevid_core.models.llm import Gateway


class Unmarked(Planner):
    """Plans every partition anew: marks do not know of inputs that a test gives."""

    def _is_marked(self, stage: Stage, partition: str, manifest: Manifest) -> bool:
        return False


class AloneStanding(Planner):
    """Plans a stage whose inputs were put into the lake by hand, as far as it needs them."""

    def missing_input(self, stage: Stage, partition: str) -> str:
        return ""


def planner_of(settings: Settings, lake: Lake, gateway: Gateway | None = None) -> Planner:
    """A planner over a lake in which any upstream partition may be missing."""
    return AloneStanding(tools_of(settings, lake, gateway))


def tools_of(settings: Settings, lake: Lake, gateway: Gateway | None = None) -> Tools:
    """What the stages of these settings work with."""

    def open_gateway() -> Gateway:
        from safevid_core.models.llm import Gateway

        return gateway if gateway is not None else Gateway(settings)

    return Tools(settings, lake, build_registry(settings), open_gateway)


def run_stage(
    settings: Settings, lake: Lake, name: str, partition: str = WHOLE, gateway: Gateway | None = None
) -> StageReport:
    """One partition after a run; an error of its stage is raised."""
    return run_stages(settings, lake, name, [partition], gateway)[0]


def run_stages(
    settings: Settings, lake: Lake, name: str, partitions: Sequence[str], gateway: Any = None
) -> list[StageReport]:
    """Some partitions after a run without gates and checks; the first error is raised after all."""
    planner = planner_of(settings, lake, gateway)
    with LocalRunner(planner) as runner:
        report = runner.make(planner.registry[name], partitions)
    for error in report.failures.values():
        raise error
    return list(report.reports.values())


def run_rows(
    lake: Lake,
    table: Table,
    partition: str,
    inputs: Mapping[str, str],
    ids: Sequence[str],
    make: Callable[[], StageRows],
) -> StageReport:
    """One partition of a table by scene, made from the given inputs by a stage that is not in the method."""
    settings = load_settings("pocket")
    stage = Stage(
        table,
        "corpus",
        "A table.",
        lambda tools, name: Plan(inputs, ids, lambda units: make()),
        partitions=BY_SCENE,
    )
    tools = Tools(settings, lake, Registry([stage]), lambda: pytest.fail("asks no model"))
    with LocalRunner(Unmarked(tools)) as runner:
        report = runner.make(stage, [partition])
    for error in report.failures.values():
        raise error
    return report.reports[partition]


def commit_empty(lake: Lake, names: Sequence[str], partitions: Sequence[str]) -> None:
    """Tables of stages, committed without a row in some partitions."""
    registry = build_registry(load_settings("pocket"))
    for name in names:
        for partition in partitions:
            lake.commit(registry[name].table, partition, StageRows(registry[name].table.frame([])), "", {})
