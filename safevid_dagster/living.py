"""Which runs live, and the end of those that do not: slots of pools freed, statuses set right.

A run of this project gives two signs of life while it is at work:

- a lock on a file of its own below the Dagster home, held by each of its processes. The kernel takes it back
  when they are gone, however they died, and shows it in every PID namespace that sees the file;
- a time in Dagster's storage, renewed every few seconds, for whoever shares the database and not the file.

Where the file is there and was written under this kernel, the lock decides at once. Elsewhere (another
machine, another home, a restart, a run of other origin) a run is dead when nothing was heard of it for
:data:`LEASE_S` seconds. No process id is ever looked at.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from dagster._core.executor.base import Executor

BEAT_S = 15.0
LEASE_S = 120.0
START_S = 600.0  # from being launched to the first sign: loading a code location on a busy machine is slow
WATCH_S = 2.0
_KERNEL = Path("/proc/sys/kernel/random/boot_id")

_UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_LAUNCHED = _UNDER_WAY[:2]


class _Sign:
    """A run's signs of life from this process, from its making to :meth:`end`."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance, self._run_id = instance, run_id
        self._path = _sign_of(instance, run_id)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_SH)
        os.pwrite(self._handle, _kernel().encode(), 0)
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._renew, daemon=True)
        self._beat.start()

    def _renew(self) -> None:
        while True:
            _say_heard(self._instance, self._run_id, time.time())
            if self._over.wait(BEAT_S):
                return

    def end(self) -> None:
        self._over.set()
        self._beat.join()
        with suppress(OSError):
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused: another process works on
            self._path.unlink(missing_ok=True)
            _say_heard(self._instance, self._run_id, 0.0)
        os.close(self._handle)


_here: dict[str, _Sign] = {}
_here_lock = threading.Lock()


def give_signs(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give signs of life for a run that works in this process, until :func:`end_signs` or the process's end.

    An instance in memory needs none.
    """
    with _here_lock:
        if instance.is_persistent and run_id not in _here:
            _here[run_id] = _Sign(instance, run_id)


def end_signs(instance: dg.DagsterInstance) -> None:
    """Give no more signs for runs of this process that are over."""
    with _here_lock:
        for run_id in list(_here):
            run = instance.get_run_by_id(run_id)
            if run is not None and run.is_finished:
                _here.pop(run_id).end()


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark dead runs as failed (or cancelled, where that was asked) and free the slots of all that ended.

    Returns:
        A line for each run that was touched, which names it.
    """
    end_signs(instance)
    lines, held = [], _held(instance)
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY)):
        run = record.dagster_run
        if _dead_in(instance, run.run_id, record) > 0:
            continue
        fresh = instance.get_run_by_id(run.run_id)
        if fresh is None or fresh.status != run.status:
            continue
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, "Its process is gone.")
            became = "cancelled"
        else:
            instance.report_run_failed(run, "Its process is gone: killed, or its machine stopped.")
            became = "failed"
        freed = _free(instance, run.run_id, held.pop(run.run_id, set()))
        lines.append(f"{named(instance, run)} has no process any more: marked as {became}{freed}")
    for run_id, pools in held.items():
        record = instance.get_run_record_by_id(run_id)
        if record is not None and not record.dagster_run.is_finished:
            continue
        if _dead_in(instance, run_id, record) == 0:
            name = f"run {run_id}" if record is None else named(instance, record.dagster_run)
            lines.append(f"{name} is over{_free(instance, run_id, pools)}")
    _sweep(instance)
    return lines


def working(instance: dg.DagsterInstance) -> list[str]:
    """A line for each run that is, or may be, at work elsewhere."""
    return [
        f"{named(instance, record.dagster_run)} is at work"
        for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY))
        if record.dagster_run.run_id not in _here
    ]


@contextmanager
def telling_of_waits(instance: dg.DagsterInstance, say: Callable[[str], None]) -> Iterator[None]:
    """While the block lasts, tell which run holds a slot that a run here waits for, and end dead runs.

    Args:
        say: Called with one line, from another thread, once for each holder.
    """
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(instance, say, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def named(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """A run with what it makes: `run 3f2a... (dpo_checkpoint)`."""
    made = sorted(key.to_user_string() for key in run.asset_selection or ())
    if not made and run.execution_plan_snapshot_id is not None:
        made = list(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute)
    what = ", ".join(made[:3]) + (" ..." if len(made) > 3 else "")
    return f"run {run.run_id} ({what or run.job_name})"


class SigningExecutor(Executor):
    """Dagster's own executor, with signs of life from the process that leads the run's steps."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    @property
    def retries(self):  # type: ignore[no-untyped-def]
        return self._inner.retries

    @property
    def step_dependency_config(self):  # type: ignore[no-untyped-def]
        return self._inner.step_dependency_config

    def execute(self, plan_context, execution_plan):  # type: ignore[no-untyped-def]
        give_signs(plan_context.instance, plan_context.run_id)
        yield from self._inner.execute(plan_context, execution_plan)


def _signing(inner: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    def create(context: dg.InitExecutorContext) -> Executor:
        made = inner.executor_creation_fn
        assert made is not None
        return SigningExecutor(made(context))

    return dg.ExecutorDefinition(
        name=inner.name,
        config_schema=inner.config_schema,
        requirements=inner.get_requirements,
        executor_creation_fn=create,
    )


signing_executor = _signing(dg.multi_or_in_process_executor)


# --------------------------------------------------------------------------------------------- the signs


def _sign_of(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.root_directory) / "alive" / run_id


def _sweep(instance: dg.DagsterInstance) -> None:
    """Remove the signs that ended runs left behind, as each does whose process ended with it."""
    for path in _sign_of(instance, "").glob("*"):
        run = instance.get_run_by_id(path.name)
        if (run is None or run.is_finished) and not _locked(path):
            path.unlink(missing_ok=True)


def _kernel() -> str:
    try:
        return _KERNEL.read_text().strip()
    except OSError:
        return ""  # no Linux: the lease decides


def _key(run_id: str) -> str:
    return f"safevid/heard_of/{run_id}"


def _say_heard(instance: dg.DagsterInstance, run_id: str, at: float) -> None:
    # A full disk or a database that is away must not end a run; what it would have said is missed only.
    with suppress(Exception):
        instance.run_storage.set_cursor_values({_key(run_id): str(at)})


def _dead_in(instance: dg.DagsterInstance, run_id: str, record: dg.RunRecord | None) -> float:
    """Seconds until the run counts as dead if nothing is heard of it: 0 if it is, infinite if it lives."""
    if run_id in _here:
        return math.inf
    locked = _locked(_sign_of(instance, run_id))
    if locked is not None:
        return math.inf if locked else 0.0
    heard, lease = (
        float(instance.run_storage.get_cursor_values({_key(run_id)}).get(_key(run_id)) or 0),
        LEASE_S,
    )
    if record is not None and not record.dagster_run.is_finished:
        last = instance.event_log_storage.get_logs_for_run(run_id, limit=1, ascending=False)
        heard = max(heard, record.update_timestamp.timestamp(), *(event.timestamp for event in last))
        if record.dagster_run.status in _LAUNCHED:
            lease = START_S
    return max(0.0, heard + lease - time.time())


def _locked(path: Path) -> bool | None:
    """Whether a process holds the sign; None where this kernel cannot tell."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if not _kernel() or os.pread(handle, 64, 0).decode() != _kernel():
            return None
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None  # a file system without locks
    finally:
        os.close(handle)


# --------------------------------------------------------------------------------------------- the slots


def _held(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    """The pools in which a run holds a slot or waits for one, by run."""
    storage, found = instance.event_log_storage, dict[str, set[str]]()
    if not storage.supports_global_concurrency_limits:
        return found
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        for each in (*info.claimed_slots, *info.pending_steps):
            found.setdefault(each.run_id, set()).add(pool)
    return found


def _free(instance: dg.DagsterInstance, run_id: str, pools: set[str]) -> str:
    _sign_of(instance, run_id).unlink(missing_ok=True)
    if not pools:
        return ""
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return f"; its slot of pool {' and '.join(sorted(pools))} is free again"


def _watch(instance: dg.DagsterInstance, say: Callable[[str], None], over: threading.Event) -> None:
    told: set[str] = set()
    while not over.wait(WATCH_S):
        # Never the end of a run: what cannot be read in this round may be in the next.
        with suppress(Exception):
            for pool, holder in _in_the_way(instance):
                for line in end_dead_runs(instance):
                    say(line)
                if holder in told or holder not in _held(instance):
                    continue
                told.add(holder)
                run = instance.get_run_by_id(holder)
                name = f"run {holder}" if run is None else named(instance, run)
                say(f"waits for {name}, which holds pool {pool}; `safevid ui` shows it and can end it")


def _in_the_way(instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
    """Pools in which a run of this process waits, with each run that holds a slot there."""
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        holders = info.active_run_ids | info.assigned_run_ids
        if any(run_id in _here for run_id in info.pending_run_ids):
            yield from ((pool, run_id) for run_id in sorted(holders) if run_id not in _here)
