"""The one resource: settings, lake and gateway, and how a stage's report becomes an asset's result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

import dagster as dg

from safevid_core.lake import WHOLE, Lake, StageReport
from safevid_core.records import Table
from safevid_core.settings import Settings, load_settings
from safevid_dagster.defs.checks import conservation
from safevid_dagster.reports import overview, report_metadata

if TYPE_CHECKING:
    from safevid_core.models.llm import Gateway


@cache
def shared_gateway() -> Gateway:
    """One gateway a process, so that runs in one process share connections, limits and counts."""
    from safevid_core.models.llm import Gateway

    return Gateway(load_settings())


class SafeVid(dg.ConfigurableResource):
    """What every asset needs. Settings come from the profile, the user's file and the environment."""

    @cached_property
    def settings(self) -> Settings:
        return load_settings()

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.settings.root, self.settings.profile)

    @cached_property
    def gateway(self) -> Gateway:
        return shared_gateway()

    def whole(
        self, context: dg.AssetExecutionContext, table: Table, make: Callable[[], StageReport]
    ) -> dg.MaterializeResult:
        """Run a stage that has no partitions."""
        return self._result(context, table, {WHOLE: make()})

    def partitions(
        self,
        context: dg.AssetExecutionContext,
        table: Table,
        make: Callable[[str], StageReport],
        name: Callable[[str], str] = str,
    ) -> dg.MaterializeResult:
        """Run a stage for each partition of this run, committing one by one.

        Args:
            name: The lake's name for a partition key.

        Raises:
            dg.Failure: After all partitions were tried, naming those that failed; the rest is committed.
        """
        reports: dict[str, StageReport] = {}
        failures: dict[str, str] = {}
        for key in context.partition_keys:
            try:
                reports[key] = make(name(key))
            except Exception as error:
                failures[key] = f"{type(error).__name__}: {error}"
                context.log.exception("partition %s failed", key)
        if failures:
            lines = "; ".join(f"{key}: {reason}" for key, reason in failures.items())
            raise dg.Failure(f"{len(failures)} of {len(context.partition_keys)} partitions failed: {lines}")
        return self._result(context, table, reports)

    def together(
        self,
        context: dg.AssetExecutionContext,
        table: Table,
        make: Callable[[Sequence[str]], Sequence[StageReport]],
        name: Callable[[str], str],
    ) -> dg.MaterializeResult:
        """Run a stage that shares its workers between the partitions of this run."""
        reports = make([name(key) for key in context.partition_keys])
        return self._result(context, table, dict(zip(context.partition_keys, reports, strict=True)))

    def _result(
        self, context: dg.AssetExecutionContext, table: Table, reports: Mapping[str, StageReport]
    ) -> dg.MaterializeResult:
        if WHOLE in reports:
            metadata = report_metadata(self.lake, table, reports[WHOLE])
        else:
            metadata = overview(reports)
            for key, report in reports.items():
                context.add_asset_metadata(
                    report_metadata(self.lake, table, report), asset_key=context.asset_key, partition_key=key
                )
        names = [report.manifest.partition for report in reports.values()]
        return dg.MaterializeResult(metadata=metadata, check_results=[conservation(self.lake, table, names)])


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"safevid": SafeVid()})
