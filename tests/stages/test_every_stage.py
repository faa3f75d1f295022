"""What holds for every registered stage: its gates, what it declares to read, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import BENCHMARK_RELEASES, DECIDED_SIDES, RELEASE_VERSIONS, Table
from safevid_core.estimates import BUDGET
from safevid_core.pipeline import build_registry
from safevid_core.settings import load_settings
from safevid_core.stages.stage import Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, Manifest
from tests.evaluation.conftest import evaluated  # noqa: F401

if TYPE_CHECKING:
    from tests.evaluation.conftest import Evaluated

REGISTRY = build_registry(load_settings("pocket"))
EVERY = pytest.mark.parametrize("stage", list(REGISTRY), ids=lambda stage: stage.name)
ROOTS = {stage.name for stage in REGISTRY if stage.group == "benchmarks"} | {"pocket_clips"}

# Tables that a stage writes beside its own: they change only when it runs.
WRITTEN_BY = {
    DECIDED_SIDES.name: {"corpus_split"},
    RELEASE_VERSIONS.name: {"safevid_350k_release"},
    BENCHMARK_RELEASES.name: {"safevidbench_base", "safevidbench_challenge"},
}


@EVERY
def test_a_stage_that_asks_models_has_a_budget_and_a_forecast(stage: Stage) -> None:
    assert (BUDGET in stage.gates) == stage.asks
    assert not stage.asks or stage.forecast is not None


@EVERY
def test_a_stage_says_what_it_makes_in_a_sentence(stage: Stage) -> None:
    assert stage.description[0].isupper()
    assert stage.description.endswith(".")
    assert "\n" not in stage.description


@EVERY
def test_every_stage_but_the_roots_reads_another(stage: Stage) -> None:
    assert bool(stage.reads) or stage.name in ROOTS
    assert stage.optional <= set(stage.reads)
    assert len(set(stage.reads)) == len(stage.reads)


@EVERY
def test_what_a_partition_is_made_from_is_declared(stage: Stage) -> None:
    settings = load_settings("pocket")
    every = stage.partitions.names(settings)
    assert set(stage.wanted(stage, settings)) <= set(every)
    for partition in every[::5]:
        for upstream, name in REGISTRY.inputs(stage, partition, settings):
            assert upstream.name in stage.reads
            assert name in upstream.partitions.names(settings)


class Recorder(Lake):
    """A lake that notes which partitions of which tables are looked at; None stands for all of a table."""

    def __init__(self, root: Path, profile: str) -> None:
        super().__init__(root, profile)
        self.seen: set[tuple[str, str | None]] = set()

    def manifest(self, asset: str, partition: str = WHOLE) -> Manifest | None:
        self.seen.add((asset, partition))
        return super().manifest(asset, partition)

    def partitions(self, asset: str) -> list[str]:
        self.seen.add((asset, None))
        return super().partitions(asset)

    def scan(self, table: Table, partitions: Sequence[str] | None = None) -> pl.LazyFrame:
        self.seen |= {(table.name, each) for each in partitions} if partitions else {(table.name, None)}
        return super().scan(table, partitions)


@EVERY
def test_a_plan_reads_what_its_stage_declares(stage: Stage, evaluated: Evaluated) -> None:  # noqa: F811
    """Else the fingerprint of the partition could change while the mark says that nothing did."""
    settings = evaluated.settings
    lake = Recorder(evaluated.lake.root, settings.profile)
    tools = Tools(settings, lake, REGISTRY, lambda: evaluated.gateway)
    every = stage.partitions.names(settings)
    for partition in every[:: 1 + len(every) // 40]:
        lake.seen.clear()
        with suppress(SafeVidError):  # such as for a benchmark without files
            stage.plan(tools, partition)
        inputs = {(upstream.name, name) for upstream, name in REGISTRY.inputs(stage, partition, settings)}
        for table, name in lake.seen:
            if table in WRITTEN_BY:
                # A plan stays once a release was drawn from it. A later release changes nothing of that.
                drawn_from_it = {each.name for each in REGISTRY if stage.name in each.reads}
                known = {stage.name, *stage.reads, *drawn_from_it}
                assert WRITTEN_BY[table] & known, f"{table} is not declared"
            elif table in REGISTRY and table != stage.name and stage.name != "scorecard":
                names = REGISTRY[table].partitions.names(settings) if name is None else [name]
                assert {(table, each) for each in names} <= inputs, f"{partition} reads {table}[{name}]"


def test_the_scorecard_reads_every_stage_before_it(evaluated: Evaluated) -> None:  # noqa: F811
    """It tells of every table that the lake holds, so nothing is to be left out."""
    reads = set(REGISTRY["scorecard"].reads)
    assert reads == {stage.name for stage in REGISTRY} - {"scorecard", "promotion_decision", "video_report"}
