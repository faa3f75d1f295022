"""The one resource: settings, lake and gateway, and how a stage's report becomes an asset's result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from safevid_core.corpus.sources import SourceError
from safevid_core.estimates import require_budget
from safevid_core.lake import WHOLE, Lake, NothingMade, StageReport
from safevid_core.models.ledger import LedgerError
from safevid_core.models.progress import Spend
from safevid_core.models.providers import GatewayError
from safevid_core.records import Table
from safevid_core.settings import Settings, load_settings
from safevid_dagster.defs.checks import conservation
from safevid_dagster.living import give_signs, signing_executor
from safevid_dagster.progress import ProgressLog, spend_metadata
from safevid_dagster.reports import overview, report_metadata

if TYPE_CHECKING:
    from safevid_core.models.llm import Gateway

# A budget that is missing or spent, a key, a price or a ledger, a source that is missing, a model that
# answers nothing: told in one line, without a traceback.
_UNASKABLE = (GatewayError, LedgerError, NothingMade, SourceError)


@cache
def shared_gateway() -> Gateway:
    """One gateway a process, so that runs in one process share connections, limits and counts."""
    from safevid_core.models.llm import Gateway

    return Gateway(load_settings())


class SafeVid(dg.ConfigurableResource):
    """What every asset needs. Settings come from the profile, the user's file and the environment."""

    budget_usd: float | None = Field(
        None,
        ge=0,
        description="Stop the run before it has paid this much. Defaults to models.budget_usd. The asset "
        "`model_estimate` tells what a run will cost.",
    )
    retry_failed: bool | None = Field(
        None,
        description="Ask again what ended in a stored answer of no use. Defaults to models.retry_failed.",
    )
    _run: str = PrivateAttr("")
    _gateway: Gateway | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._run = context.run_id or ""
        if self._run and context.instance is not None:
            give_signs(context.instance, self._run)

    @cached_property
    def settings(self) -> Settings:
        chosen = {"budget_usd": self.budget_usd, "retry_failed": self.retry_failed}
        given = {name: value for name, value in chosen.items() if value is not None}
        return load_settings(overrides={"models": given})

    @cached_property
    def lake(self) -> Lake:
        settings = self.settings
        return Lake(settings.root, settings.profile, retry_failed=settings.models.retry_failed)

    @property
    def gateway(self) -> Gateway:
        """The process's gateway, under the name of this run and with its budget."""
        if self._gateway is None:
            self._gateway = shared_gateway().for_run(
                self._run, settings=self.settings, on_progress=self._progress
            )
        return self._gateway

    @cached_property
    def _progress(self) -> ProgressLog:
        return ProgressLog(self.settings.models.progress_s)

    def whole(
        self, context: dg.AssetExecutionContext, table: Table, make: Callable[[], StageReport]
    ) -> dg.MaterializeResult:
        """Run a stage that has no partitions.

        Raises:
            dg.Failure: If a budget is needed first, or no model can be asked.
        """
        with self._asking(context, table, [WHOLE]):
            report = make()
        return self._result(context, table, {WHOLE: report})

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
            dg.Failure: If a budget is needed first. Or after all partitions were tried, naming those that
                failed; the rest is committed.
        """
        reports: dict[str, StageReport] = {}
        failures: dict[str, list[str]] = {}
        keys = context.partition_keys
        with self._asking(context, table, [name(key) for key in keys]):
            for number, key in enumerate(keys, 1):
                self._progress.part = f"{key} ({number} of {len(keys)}): "
                try:
                    reports[key] = make(name(key))
                except _UNASKABLE as error:
                    failures.setdefault(str(error), []).append(key)
                except Exception as error:
                    failures.setdefault(f"{type(error).__name__}: {error}", []).append(key)
                    context.log.exception("partition %s failed", key)
        if failures:
            lines = "; ".join(f"{', '.join(some)}: {reason}" for reason, some in failures.items())
            failed = sum(map(len, failures.values()))
            raise self._failure(table, f"{failed} of {len(keys)} partitions failed: {lines}")
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

    @contextmanager
    def _asking(
        self, context: dg.AssetExecutionContext, table: Table, partitions: Sequence[str]
    ) -> Iterator[None]:
        """Around a stage that may ask models: its budget before, and what cannot be asked as one line."""
        self._progress.log, self._progress.part = context.log, ""
        try:
            require_budget(self.settings, self.lake, table.name, partitions)
            yield
        except _UNASKABLE as error:
            raise self._failure(table, str(error)) from None

    def _failure(self, table: Table, line: str) -> dg.Failure:
        return dg.Failure(line, spend_metadata(self._spend(table)))

    def _spend(self, table: Table) -> Spend:
        """What this run asked and paid for a table's asset so far."""
        return Spend() if self._gateway is None else self._gateway.spend(table.name)

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
        spend = self._spend(table)
        if spend.asked:
            context.log.info("%s: %d done, %s", table.name, spend.usable + spend.cached, spend)
        names = [report.manifest.partition for report in reports.values()]
        return dg.MaterializeResult(
            metadata=metadata | spend_metadata(spend), check_results=[conservation(self.lake, table, names)]
        )


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"safevid": SafeVid()}, executor=signing_executor)
