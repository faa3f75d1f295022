"""Runs stages on this machine, in this process or in a pool of processes.

Each partition is committed as soon as its rows are made. Each finished batch is stored at once, so that the
next run after a kill makes the missing batches only.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import polars as pl

from safevid_core.contracts.errors import READ_AGAIN, SafeVidError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.execution.children import without_interrupts
from safevid_core.execution.parts import Parts
from safevid_core.settings import Settings, TextModel, VideoModel
from safevid_core.stages.gates import checks_of, require_gates
from safevid_core.stages.planner import Planner, State
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Finding, Makers, Plan, Stage, Tools
from safevid_core.storage.lake import (
    WHOLE,
    Manifest,
    NothingMade,
    check_conservation,
    stage_fingerprint,
)
from safevid_core.storage.opening import lake_of

# Builds the registry in a worker process: functions of the parent process cannot be sent to it.
BuildRegistry = Callable[[Settings], Registry]


class InputMissing(SafeVidError, RuntimeError):
    """A partition cannot be made because an upstream partition is missing."""


class WorkerDied(SafeVidError, RuntimeError):
    """A process of the pool ended before it had made its batch."""


@dataclass(frozen=True)
class StageReport:
    """The result for one partition: its manifest, whether its rows were computed, and the seconds it took."""

    manifest: Manifest
    computed: bool
    seconds: float


@dataclass
class RunReport:
    """The result of running one stage.

    Attributes:
        reports: Committed partition -> its report.
        failures: Failed partition -> the error.
        findings: Name of a check -> its finding over the committed partitions.
    """

    reports: dict[str, StageReport] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def recomputed(self) -> int:
        return sum(report.computed for report in self.reports.values())

    def lines(self) -> list[str]:
        """One line for each reason of failure, then one for each problem that a check found."""
        by_reason: dict[str, list[str]] = {}
        for partition, error in self.failures.items():
            by_reason.setdefault(line_of(error), []).append(partition)
        lines = [
            reason if some == [WHOLE] else f"{', '.join(some)}: {reason}"
            for reason, some in by_reason.items()
        ]
        return lines + [line for finding in self.findings.values() for line in finding.problems]


def line_of(error: Exception) -> str:
    """An error in one line. The type precedes the message if the error is not a `SafeVidError`."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SafeVidError) else f"{type(error).__name__}: {text}"


class LocalRunner:
    """Runs stages one after another.

    Args:
        planner: Plans the partitions of this run.
        build_registry: Builds the registry in a worker process. None makes every batch in this process.
        processes: Processes of the pool. Defaults to `execution.processes`, or else to one for each core.
        who: The name of this run, shown to other runs that wait for its partition. Defaults to process and
            machine: "process 4711 on gpu-01".
        on_partition: Called before each partition with its name, its number from 1, and how many there are.
        on_error: Called with the partition and each error that is not a `SafeVidError`.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        build_registry: BuildRegistry | None = None,
        processes: int | None = None,
        who: str = "",
        on_partition: Callable[[str, int, int], None] = lambda partition, number, of: None,
        on_error: Callable[[str, Exception], None] = lambda partition, error: None,
    ) -> None:
        self._planner = planner
        self._build_registry = build_registry
        self._processes = processes or planner.tools.settings.execution.processes or os.cpu_count() or 1
        self._who = who or f"process {os.getpid()} on {socket.gethostname()}"
        self._on_partition = on_partition
        self._on_error = on_error
        self._pool: ProcessPoolExecutor | None = None
        self._workers: set[multiprocessing.process.BaseProcess] = set()

    def __enter__(self) -> LocalRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._pool is not None:
            if kind is not None and not issubclass(kind, Exception):  # Ctrl-C; a batch may take minutes
                for worker in self._workers:
                    worker.terminate()
            self._pool.shutdown(cancel_futures=True)

    @property
    def tools(self) -> Tools:
        return self._planner.tools

    def run(self, stage: Stage, partitions: Sequence[str] = (WHOLE,)) -> RunReport:
        """Make the partitions of a stage that are not fresh, then check all.

        If a partition fails, its error goes into the report and the next partition is made.

        Raises:
            SafeVidError: If a gate is closed. No partition is made then.
        """
        require_gates(self._planner, stage, partitions)
        report = self.make(stage, partitions)
        for check in checks_of(stage) if report.reports else ():
            report.findings[check.name] = check.run(self.tools, stage, list(report.reports))
        return report

    def make(self, stage: Stage, partitions: Sequence[str]) -> RunReport:
        """Make the partitions of a stage that are not fresh, without gates and checks."""
        report = RunReport()
        with self._shared_makers(stage, partitions) as makers:
            for number, partition in enumerate(partitions, 1):
                self._on_partition(partition, number, len(partitions))
                try:
                    report.reports[partition] = self._run_partition(stage, partition, makers)
                except Exception as error:
                    report.failures[partition] = error
                    if not isinstance(error, SafeVidError):
                        self._on_error(partition, error)
                finally:
                    self._planner.forget(stage, partition)
        return report

    def _run_partition(self, stage: Stage, partition: str, makers: Makers) -> StageReport:
        started = time.monotonic()
        with (
            self.tools.lake.hold(stage.name, partition, self._who),
            self._noting_failure(stage, partition),
        ):
            state = self._planner.state(stage, partition)
            if state.condition == "blocked":
                raise InputMissing(f"{stage.name}: {state.reason}; make it first (--upstream makes both)")
            manifest = state.manifest
            if state.to_make or manifest is None:
                manifest = self._make(stage, partition, state, makers, started)
            if self._planner.is_planned(stage, partition):
                on_fresh = self._planner.plan(stage, partition).on_fresh
                if on_fresh is not None:
                    on_fresh()
        return StageReport(manifest, state.to_make, time.monotonic() - started)

    @contextmanager
    def _noting_failure(self, stage: Stage, partition: str) -> Iterator[None]:
        """Store beside the partition why an attempt failed, and remove that once one succeeds."""
        error = ""
        try:
            yield
        except InputMissing:
            raise
        except Exception as raised:
            error = line_of(raised)
            raise
        finally:
            with suppress(OSError):  # a full disk: the error itself is on its way to the caller
                self.tools.lake.write_failure(stage.name, partition, error)

    def _make(self, stage: Stage, partition: str, state: State, makers: Makers, started: float) -> Manifest:
        lake, plan = self.tools.lake, self._planner.plan(stage, partition)
        rows = makers[partition]() if partition in makers else self._rows(stage, partition, plan, state)
        models = tuple(dict.fromkeys(_model_name(each.model) for each in plan.questions))
        require_rows(stage, partition, rows, needs_rows=plan.needs_rows, models=models)
        unread = sum(reason.endswith(READ_AGAIN) for _, _, reason in rows.outcomes)
        rows.info = {**rows.info, **({"unread": unread} if unread else {})}
        check_conservation(stage.table, rows, plan.units)
        seconds = time.monotonic() - started
        inputs = plan.inputs if plan.inputs_after_make is None else plan.inputs_after_make()
        fingerprint = stage_fingerprint(lake, stage.table, inputs)
        manifest = lake.commit(stage.table, partition, rows, fingerprint, inputs, seconds)
        Parts(lake, stage.name, partition).remove()
        self._planner.committed(stage, partition, manifest)
        return manifest

    @contextmanager
    def _shared_makers(self, stage: Stage, partitions: Sequence[str]) -> Iterator[Makers]:
        """The functions that make partitions with shared workers. Empty if the stage shares no workers."""
        if stage.shared_workers is None:
            yield {}
            return
        plans = {}
        for partition in partitions:
            try:
                if self._planner.state(stage, partition).to_make:
                    plans[partition] = self._planner.plan(stage, partition)
            except SafeVidError:
                continue  # _run_partition meets the same error and reports it
        with stage.shared_workers(self.tools, plans) as makers:
            yield makers

    # ---------------------------------------------------------------------------------------- batches

    def _rows(self, stage: Stage, partition: str, plan: Plan, state: State) -> StageRows:
        size = stage.needs.batch
        if size is None:
            rows = plan.make(plan.units)
        else:
            rows = self._rows_in_batches(stage, partition, plan, size, state.fingerprint)
        return rows if plan.finish is None else plan.finish(rows)

    def _rows_in_batches(
        self, stage: Stage, partition: str, plan: Plan, size: int, fingerprint: str
    ) -> StageRows:
        """The rows of all batches in the order of the units. Batches that an earlier run stored are read."""
        batches = [list(plan.units[place : place + size]) for place in range(0, len(plan.units), size)]
        parts = Parts(self.tools.lake, stage.name, partition, fingerprint)
        found = {
            number: rows for number, batch in enumerate(batches) if (rows := parts.read(batch)) is not None
        }
        missing = {number: batch for number, batch in enumerate(batches) if number not in found}
        for number, rows in self._made(stage, partition, plan, missing):
            parts.write(batches[number], rows)
            found[number] = rows
        return united(stage, [found[number] for number in range(len(batches))])

    def _made(
        self, stage: Stage, partition: str, plan: Plan, batches: Mapping[int, list[str]]
    ) -> Iterator[tuple[int, StageRows]]:
        if self._build_registry is None or self._processes == 1 or len(batches) < 2:
            for number, batch in batches.items():
                yield number, plan.make(batch)
            return
        pool = self._opened_pool(self._build_registry)
        others = set(multiprocessing.active_children())
        with without_interrupts():  # the pool starts its processes with the first batches
            futures: dict[Future[StageRows], int] = {
                pool.submit(_make_batch, stage.name, partition, batch): number
                for number, batch in batches.items()
            }
            self._workers |= set(multiprocessing.active_children()) - others
        broken = False
        try:
            for future in as_completed(futures):
                try:
                    rows = future.result()
                except BrokenProcessPool:
                    broken = True
                else:
                    yield futures[future], rows
        finally:
            for future in futures:
                future.cancel()
        if broken:
            self._pool = None
            raise WorkerDied(
                f"{stage.name}[{partition}]: a process of the pool was killed, often for lack of memory; "
                "finished batches are kept: run again, or lower execution.processes"
            )

    def _opened_pool(self, build_registry: BuildRegistry) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes,
                # A fork would inherit locks and threads of torch and of the gateway.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(self.tools.settings, build_registry),
            )
        return self._pool


_WORKER: Planner | None = None


def _start_worker(settings: Settings, build_registry: BuildRegistry) -> None:
    global _WORKER
    lake = lake_of(settings)
    _WORKER = Planner(Tools(settings, lake, build_registry(settings), _no_gateway))


def _no_gateway() -> Any:
    raise RuntimeError("a worker process cannot ask a model; leave `batch` out of the stage's needs")


def _make_batch(name: str, partition: str, units: list[str]) -> StageRows:
    assert _WORKER is not None
    return _WORKER.plan(_WORKER.registry[name], partition).make(units)


def united(stage: Stage, batches: Sequence[StageRows]) -> StageRows:
    """The batches as one: rows and outcomes in order, numbers of `info` added up."""
    info: Counter[str] = Counter()
    for batch in batches:
        info.update({name: value for name, value in batch.info.items() if isinstance(value, int | float)})
    rows = pl.concat([stage.table.frame([]), *(batch.rows for batch in batches)])
    return StageRows(rows, [outcome for batch in batches for outcome in batch.outcomes], dict(info))


def require_rows(
    stage: Stage, partition: str, rows: StageRows, *, needs_rows: bool, models: Sequence[str] = ()
) -> None:
    """Raise an error if a stage made no row although it should have.

    A stage that asks models has failed if all its units failed: its model is down, or gives unusable answers
    only. A stage whose plan says `needs_rows` has failed if it made no row.

    Args:
        models: Names of the models that the stage asked.

    Raises:
        NothingMade: With the most frequent reasons of the units, and what to do about the models.
    """
    asks_models = "unanswered" in rows.info  # set by models.teacher.spend_info
    all_failed = bool(rows.outcomes) and all(outcome == "failed" for _, outcome, _ in rows.outcomes)
    if not (asks_models and all_failed) and not (needs_rows and rows.rows.is_empty()):
        return
    most_common = Counter(reason for _, _, reason in rows.outcomes).most_common(3)
    reasons = "; ".join(f"{reason} (x{number})" for reason, number in most_common) or "it has no inputs"
    where = "" if partition == WHOLE else f" of {partition}"
    advice = _advice(models, rows) if asks_models and all_failed else ""
    raise NothingMade(
        f"{stage.name}: none of {len(rows.outcomes)} inputs{where} gave a row: {reasons}{advice}"
    )


def _model_name(model: TextModel | VideoModel) -> str:
    """The model string of a text or served model, or the name of a local checkpoint's folder."""
    if isinstance(model, TextModel):
        return model.model
    return model.path if model.served_at else PurePath(model.path).name


def _advice(models: Sequence[str], rows: StageRows) -> str:
    """What to do about models that gave no usable answer."""
    named = f" {' and '.join(models)}" if models else ""
    # The ledger holds unusable answers. Without this setting the next run would read them again.
    again = (
        ", then run with SAFEVID_MODELS__RETRY_FAILED=true to ask again" if rows.info.get("unusable") else ""
    )
    return f"; check{named or ' the model'} with `safevid doctor`{again}"
