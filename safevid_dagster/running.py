"""Runs stages in this process as Dagster runs, which the UI shows like any other run."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError
from dagster._core.utils import make_new_run_id
from dagster._utils.error import SerializableErrorInfo

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import OUTCOMES
from safevid_core.settings import Settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Stage
from safevid_dagster.definitions import defs
from safevid_dagster.defs.partitions import key_of, ranges_of
from safevid_dagster.interrupts import raise_lost_interrupt
from safevid_dagster.liveness import end_dead_runs, reporting_waits
from safevid_dagster.progress import TellPartition, watching_partitions

# Dagster writes the name of the exception class before its message.
_FAILURE = f"{dg.Failure.__module__}.{dg.Failure.__qualname__}: "
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class StepReport:
    """The result of running one stage over some of its partitions.

    Attributes:
        runs: Ids of the Dagster runs, one for each range of partitions.
        failure: Why it failed, in one line. Empty if all runs succeeded.
        outcomes: Outcome -> number of inputs, over the partitions.
        partitions: Number of partitions.
        recomputed: Number of partitions that were made.
    """

    stage: str
    runs: tuple[str, ...]
    failure: str
    outcomes: dict[str, int]
    partitions: int
    recomputed: int
    seconds: float

    @property
    def succeeded(self) -> bool:
        return not self.failure

    @property
    def text(self) -> str:
        """The result in one line, without the name of the stage."""
        if self.failure:
            return f"failed after {self.seconds:.1f} s: {self.failure}"
        counts = "  ".join(f"{number:6} {name}" for name, number in self.outcomes.items())
        return f"{counts}  {self.recomputed:3} of {self.partitions} made  {self.seconds:6.1f} s"


class Steps:
    """Runs stages one after another.

    Args:
        instance: The Dagster instance that records the runs.
        on_wait: Called with one line that names the run which holds a pool for which a run here waits.
        on_start: Called with the id of each run before it starts.
        on_partition: Called before each partition with its name, its number from 1, and the number of
            partitions of the run.
    """

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        *,
        on_wait: Callable[[str], None] = lambda line: None,
        on_start: Callable[[str], None] = lambda run: None,
        on_partition: TellPartition = lambda partition, number, of: None,
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._job = defs().resolve_implicit_global_asset_job_def()
        self._on_wait = on_wait
        self._on_start = on_start
        self._on_partition = on_partition

    def run(self, stage: Stage, partitions: Sequence[str]) -> StepReport:
        """Make the partitions of a stage that are not fresh, with one Dagster run for each range of them.

        Raises:
            KeyboardInterrupt: If the run was interrupted. Dagster has recorded the interruption.
        """
        started, done = time.monotonic(), []
        with reporting_waits(self._instance, self._on_wait), watching_partitions(self._on_partition):
            for some in ranges_of(stage, partitions, self._settings):
                raise_lost_interrupt()
                done.append(self._run_range(stage, some))
        failed = [result for result in done if not result.success]
        totals = _totals(done)
        return StepReport(
            stage.name,
            tuple(result.run_id for result in done),
            _failure(failed[0]) if failed else "",
            {name: totals[name] for name in OUTCOMES},
            totals["partitions"],
            totals["recomputed"],
            time.monotonic() - started,
        )

    def _run_range(self, stage: Stage, partitions: Sequence[str]) -> dg.ExecuteInProcessResult:
        tags = {}
        first, last = key_of(stage, partitions[0]), key_of(stage, partitions[-1])
        if first is not None:
            tags = {
                "dagster/asset_partition_range_start": str(first),
                "dagster/asset_partition_range_end": str(last),
            }
        run_id = make_new_run_id()
        self._on_start(run_id)
        try:
            result = self._job.execute_in_process(
                run_config=_QUIET,
                instance=self._instance,
                raise_on_error=False,
                asset_selection=[dg.AssetKey(stage.name)],
                run_id=run_id,
                tags=tags,
            )
        except DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
        if _interrupted(result):
            raise KeyboardInterrupt
        raise_lost_interrupt()
        return result


def fresh_report(planner: Planner, stage: Stage, partitions: Sequence[str]) -> StepReport | None:
    """The result of a run over partitions that are all fresh. None if a run would make any of them."""
    started, manifests = time.monotonic(), []
    for partition in partitions:
        try:
            state = planner.state(stage, partition)
        except SafeVidError:
            return None  # the run reports the error
        finally:
            planner.forget(stage, partition)
        if state.condition != "fresh" or state.manifest is None:
            return None
        manifests.append(state.manifest)
    outcomes = {name: sum(manifest.outcomes[name] for manifest in manifests) for name in OUTCOMES}
    return StepReport(stage.name, (), "", outcomes, len(manifests), 0, time.monotonic() - started)


@contextmanager
def opened_instance(say: Callable[[str], None]) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance of this home, and mark runs whose processes are gone as failed.

    Args:
        say: Called with one line for each such run.
    """
    # Warnings for developers of libraries. The user can do nothing about them.
    for category in (FutureWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=category)
    with dg.DagsterInstance.get() as instance:
        for line in end_dead_runs(instance):
            say(line)
        yield instance


class Notes(logging.Handler):
    """Collects the warnings of a step until its line is printed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(" ".join(record.getMessage().split()))

    def taken(self) -> list[str]:
        """The warnings since the last call, each once."""
        lines, self._lines = list(dict.fromkeys(self._lines)), []
        return lines


@contextmanager
def noted_warnings() -> Iterator[Notes]:
    """Collect the warnings of all loggers while the block lasts."""
    notes = Notes()
    logging.getLogger().addHandler(notes)
    try:
        yield notes
    finally:
        logging.getLogger().removeHandler(notes)


def _totals(results: Sequence[dg.ExecuteInProcessResult]) -> dict[str, int]:
    """The number of inputs by outcome, of partitions, and of partitions that were made, over some runs."""
    totals = dict.fromkeys((*OUTCOMES, "recomputed", "partitions"), 0)
    for event in (each for result in results for each in result.get_asset_materialization_events()):
        metadata = event.materialization.metadata
        totals["partitions"] += 1
        for name in (*OUTCOMES, "recomputed"):
            if name in metadata:
                value: Any = metadata[name].value
                totals[name] += int(value)
    return totals


def _errors(result: dg.ExecuteInProcessResult) -> Iterator[SerializableErrorInfo]:
    """The innermost error of each step that failed."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                yield error


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a signal ended a step. Dagster records Ctrl-C as a failure."""
    return any(error.cls_name == DagsterExecutionInterruptedError.__name__ for error in _errors(result))


def _failure(result: dg.ExecuteInProcessResult) -> str:
    """The message of the first failed step, or else of the first failed check, in one line."""
    for error in _errors(result):
        # The error of a failed check says no more than that it failed; its evaluation has the reason.
        if error.cls_name != DagsterAssetCheckFailedError.__name__:
            return " ".join(error.message.split()).removeprefix(_FAILURE)
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            problems: Any = check.metadata["problems"].value
            return f"check {check.check_name} failed: {'; '.join(map(str, problems))}"
    return "see `safevid ui` for the run's log"
