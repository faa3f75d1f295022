"""The resource `safevid`: the settings, the lake and the gateway. It runs a stage for an asset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, cached_property
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from safevid_core.contracts.errors import SafeVidError
from safevid_core.execution.local import LocalRunner, RunReport
from safevid_core.models.progress import Spend
from safevid_core.pipeline import build_registry
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.storage.opening import lake_of
from safevid_dagster.defs.partitions import partition_of
from safevid_dagster.liveness import heartbeat_executor, start_heartbeat
from safevid_dagster.progress import ProgressLog, spend_metadata, tell_watchers
from safevid_dagster.reports import overview, report_metadata

if TYPE_CHECKING:
    from safevid_core.alignment.dpo import Program
    from safevid_core.models.llm import Gateway


@cache
def shared_gateway() -> Gateway:
    """The gateway of this process. Runs in one process share its connections, limits and counts."""
    from safevid_core.models.llm import Gateway

    return Gateway(load_settings())


class SafeVid(dg.ConfigurableResource):
    """The resource of every asset. Settings come from the profile, the user's file and the environment."""

    budget_usd: float | None = Field(
        None,
        ge=0,
        description="Upper limit of the run's spending in USD. Defaults to models.budget_usd. The asset "
        "`model_estimate` estimates the cost of a run.",
    )
    retry_failed: bool | None = Field(
        None,
        description="Whether questions with an unusable stored answer are asked again. Defaults to "
        "models.retry_failed.",
    )
    _run: str = PrivateAttr("")
    _gateway: Gateway | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._run = context.run_id or ""
        if self._run and context.instance is not None:
            start_heartbeat(context.instance, self._run)

    @cached_property
    def settings(self) -> Settings:
        chosen = {"budget_usd": self.budget_usd, "retry_failed": self.retry_failed}
        given = {name: value for name, value in chosen.items() if value is not None}
        return load_settings(overrides={"models": given})

    @cached_property
    def lake(self) -> Lake:
        return lake_of(self.settings)

    @cached_property
    def registry(self) -> Registry:
        return build_registry(self.settings)

    @property
    def gateway(self) -> Gateway:
        """The process's gateway, with the id and the budget of this run."""
        if self._gateway is None:
            self._gateway = shared_gateway().for_run(
                self._run, settings=self.settings, on_progress=self._progress
            )
        return self._gateway

    @cached_property
    def _progress(self) -> ProgressLog:
        return ProgressLog(self.settings.models.progress_s)

    def planner(
        self,
        *,
        training_program: Callable[[], AbstractContextManager[Program]] | None = None,
        retry_failed: bool | None = None,
        only_reads: bool = False,
    ) -> Planner:
        """A planner for one run. See :class:`~safevid_core.stages.planner.Planner`."""
        tools = Tools(self.settings, self.lake, self.registry, lambda: self.gateway, training_program)
        return Planner(tools, retry_failed=retry_failed, only_reads=only_reads)

    def make(self, context: dg.AssetExecutionContext, stage: Stage) -> dg.MaterializeResult:
        """Run a stage over the partitions of this run. Each partition is committed on its own.

        Raises:
            dg.Failure: If a gate is closed. Or, after all partitions were tried, if some failed. The message
                names them, and the others are committed.
        """
        stage = self.registry[stage.name]  # with the settings of this run
        keys = (
            {partition_of(stage, key): key for key in context.partition_keys}
            if context.has_partition_key_range or context.has_partition_key
            else {}
        )
        self._progress.log, self._progress.part = context.log, ""
        planner = self.planner(training_program=lambda: training_program(context))
        try:
            with LocalRunner(
                planner,
                build_registry=build_registry,
                who=f"run {context.run_id}",
                on_partition=self._tell_partition,
                on_error=lambda partition, error: context.log.error(
                    "partition %s failed", partition, exc_info=error
                ),
            ) as runner:
                report = runner.run(stage, list(keys) or (WHOLE,))
        except SafeVidError as error:
            raise self._failure(stage, " ".join(str(error).split())) from None
        if report.failures:
            raise self._failure(stage, _failed(report, len(keys) or 1))
        return self._result(context, stage, report, keys)

    def _tell_partition(self, partition: str, number: int, of: int) -> None:
        self._progress.part = "" if partition == WHOLE else f"{partition} ({number} of {of}): "
        tell_watchers(partition, number, of)

    def _failure(self, stage: Stage, line: str) -> dg.Failure:
        return dg.Failure(line, spend_metadata(self._spend(stage)))

    def _spend(self, stage: Stage) -> Spend:
        """The calls and the cost of this run for a stage so far."""
        return Spend() if self._gateway is None else self._gateway.spend(stage.name)

    def _result(
        self, context: dg.AssetExecutionContext, stage: Stage, report: RunReport, keys: dict[str, str]
    ) -> dg.MaterializeResult:
        if keys:
            metadata = overview({keys[name]: each for name, each in report.reports.items()})
            for name, each in report.reports.items():
                context.add_asset_metadata(
                    report_metadata(self.lake, stage.table, each),
                    asset_key=context.asset_key,
                    partition_key=keys[name],
                )
        else:
            metadata = report_metadata(self.lake, stage.table, report.reports[WHOLE])
        spend = self._spend(stage)
        if spend.asked:
            context.log.info("%s: %d done, %s", stage.name, spend.usable + spend.cached, spend)
        checks = [
            dg.AssetCheckResult(
                check_name=name,
                asset_key=context.asset_key,
                passed=finding.passed,
                metadata={**finding.figures, "problems": list(finding.problems[:20])},
            )
            for name, finding in report.findings.items()
        ]
        return dg.MaterializeResult(metadata=metadata | spend_metadata(spend), check_results=checks)


_MOST_REASONS = 3  # reasons of failed partitions in a message


def _failed(report: RunReport, partitions: int) -> str:
    """The first reasons of failed partitions, in one line."""
    reasons = report.lines()
    more = len(reasons) - _MOST_REASONS
    lines = "; ".join(reasons[:_MOST_REASONS])
    if more > 0:
        lines += f"; and {more} more, which `safevid status --partitions` lists"
    return (
        lines
        if partitions == 1 and WHOLE in report.failures
        else (f"{len(report.failures)} of {partitions} partitions failed: {lines}")
    )


@contextlib.contextmanager
def training_program(context: dg.AssetExecutionContext) -> Iterator[Program]:
    """The training as a separate process, which writes its progress to the log of this run."""
    from safevid_core.alignment.dpo import Program

    with dg.open_pipes_session(
        context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
    ) as session:
        yield Program("safevid_dagster.training", session.get_bootstrap_env_vars())


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"safevid": SafeVid()}, executor=heartbeat_executor)
