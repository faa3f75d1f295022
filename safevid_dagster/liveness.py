"""Finds Dagster runs whose processes are gone, sets their status and frees their slots of pools.

A run has two heartbeats while a process of it lives:

- Each of its processes holds a lock on a file of the run, below the Dagster home. The kernel releases the
  lock when the process ends in any way. Every PID namespace that sees the file sees the lock.
- Dagster's storage holds a time, renewed every `BEAT_S` seconds. Machines that share the database and not the
  file read it.

If the file exists and was written under this kernel, the lock alone decides. Otherwise (another machine,
another home, a reboot, a run without heartbeats) a run is dead after :data:`LEASE_S` seconds without a
heartbeat or event. Process ids are not used.
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
START_S = 600.0  # from the launch to the first heartbeat: a busy machine loads a code location slowly
WATCH_S = 2.0
_KERNEL = Path("/proc/sys/kernel/random/boot_id")

_UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_LAUNCHED = _UNDER_WAY[:2]


class _Heartbeat:
    """The heartbeat of a run from this process, from the creation of the object until :meth:`end`."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance, self._run_id = instance, run_id
        self._path = _heartbeat_file(instance, run_id)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_SH)
        os.pwrite(self._handle, _kernel().encode(), 0)
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._renew, daemon=True)
        self._beat.start()

    def _renew(self) -> None:
        while True:
            _record_heartbeat(self._instance, self._run_id, time.time())
            if self._over.wait(BEAT_S):
                return

    def end(self) -> None:
        self._over.set()
        self._beat.join()
        with suppress(OSError):
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while another process lives
            self._path.unlink(missing_ok=True)
            _record_heartbeat(self._instance, self._run_id, 0.0)
        os.close(self._handle)


_here: dict[str, _Heartbeat] = {}
_here_lock = threading.Lock()


def start_heartbeat(instance: dg.DagsterInstance, run_id: str) -> None:
    """Start the heartbeat of a run that works in this process.

    It lasts until :func:`stop_heartbeats` or the end of the process. An instance in memory needs none.
    """
    with _here_lock:
        if instance.is_persistent and run_id not in _here:
            _here[run_id] = _Heartbeat(instance, run_id)


def stop_heartbeats(instance: dg.DagsterInstance) -> None:
    """Stop the heartbeats of the runs of this process that have finished."""
    with _here_lock:
        for run_id in list(_here):
            run = instance.get_run_by_id(run_id)
            if run is not None and run.is_finished:
                _here.pop(run_id).end()


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Set the status of dead runs, and free the slots of dead and finished runs.

    A dead run is marked as cancelled if that was requested, and as failed otherwise.

    Returns:
        One line for each run that was changed, with its name.
    """
    stop_heartbeats(instance)
    lines, held = [], _held(instance)
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY)):
        run = record.dagster_run
        if _seconds_until_dead(instance, run.run_id, record) > 0:
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
        if _seconds_until_dead(instance, run_id, record) == 0:
            name = f"run {run_id}" if record is None else named(instance, record.dagster_run)
            lines.append(f"{name} is over{_free(instance, run_id, pools)}")
    _remove_old_files(instance)
    return lines


def active_runs(instance: dg.DagsterInstance) -> list[str]:
    """One line for each run that is under way in another process, or may be."""
    return [
        f"{named(instance, record.dagster_run)} is at work"
        for record in instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY))
        if record.dagster_run.run_id not in _here
    ]


@contextmanager
def reporting_waits(instance: dg.DagsterInstance, say: Callable[[str], None]) -> Iterator[None]:
    """While the block lasts, report the runs that hold a slot that a run here waits for, and end dead runs.

    Args:
        say: Called from another thread with one line for each such run.
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
    """A run and the assets that it makes: `run 3f2a... (dpo_checkpoint)`."""
    made = sorted(key.to_user_string() for key in run.asset_selection or ())
    if not made and run.execution_plan_snapshot_id is not None:
        made = list(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute)
    what = ", ".join(made[:3]) + (" ..." if len(made) > 3 else "")
    return f"run {run.run_id} ({what or run.job_name})"


class HeartbeatExecutor(Executor):
    """Dagster's executor, with a heartbeat from the process that starts the run's steps."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    @property
    def retries(self):  # type: ignore[no-untyped-def]
        return self._inner.retries

    @property
    def step_dependency_config(self):  # type: ignore[no-untyped-def]
        return self._inner.step_dependency_config

    def execute(self, plan_context, execution_plan):  # type: ignore[no-untyped-def]
        start_heartbeat(plan_context.instance, plan_context.run_id)
        yield from self._inner.execute(plan_context, execution_plan)


def _with_heartbeat(inner: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    def create(context: dg.InitExecutorContext) -> Executor:
        made = inner.executor_creation_fn
        assert made is not None
        return HeartbeatExecutor(made(context))

    return dg.ExecutorDefinition(
        name=inner.name,
        config_schema=inner.config_schema,
        requirements=inner.get_requirements,
        executor_creation_fn=create,
    )


heartbeat_executor = _with_heartbeat(dg.multi_or_in_process_executor)


# ---------------------------------------------------------------------------------------- the heartbeats


def _heartbeat_file(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.root_directory) / "alive" / run_id


def _remove_old_files(instance: dg.DagsterInstance) -> None:
    """Remove the heartbeat files of finished runs. A killed process leaves its file behind."""
    for path in _heartbeat_file(instance, "").glob("*"):
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


def _record_heartbeat(instance: dg.DagsterInstance, run_id: str, at: float) -> None:
    # A full disk or an unreachable database must not end a run. One heartbeat is lost.
    with suppress(Exception):
        instance.run_storage.set_cursor_values({_key(run_id): str(at)})


def _seconds_until_dead(instance: dg.DagsterInstance, run_id: str, record: dg.RunRecord | None) -> float:
    """Seconds until the run counts as dead if no heartbeat follows. 0 if it is dead, infinite if it lives."""
    if run_id in _here:
        return math.inf
    locked = _locked(_heartbeat_file(instance, run_id))
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
    """Whether a process holds the lock on a heartbeat file. None if this kernel cannot tell."""
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
    """Run id -> the pools in which it holds a slot or waits for one."""
    storage, found = instance.event_log_storage, dict[str, set[str]]()
    if not storage.supports_global_concurrency_limits:
        return found
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        for each in (*info.claimed_slots, *info.pending_steps):
            found.setdefault(each.run_id, set()).add(pool)
    return found


def _free(instance: dg.DagsterInstance, run_id: str, pools: set[str]) -> str:
    _heartbeat_file(instance, run_id).unlink(missing_ok=True)
    if not pools:
        return ""
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return f"; its slot of pool {' and '.join(sorted(pools))} is free again"


def _watch(instance: dg.DagsterInstance, say: Callable[[str], None], over: threading.Event) -> None:
    reported: set[str] = set()
    while not over.wait(WATCH_S):
        # An error must not end the run. The next round reads again.
        with suppress(Exception):
            for pool, holder in _in_the_way(instance):
                for line in end_dead_runs(instance):
                    say(line)
                if holder in reported or holder not in _held(instance):
                    continue
                reported.add(holder)
                run = instance.get_run_by_id(holder)
                name = f"run {holder}" if run is None else named(instance, run)
                say(f"waits for {name}, which holds pool {pool}; `safevid ui` shows it and can end it")


def _in_the_way(instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
    """Pools in which a run of this process waits, each with the ids of the runs that hold a slot in it."""
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        holders = info.active_run_ids | info.assigned_run_ids
        if any(run_id in _here for run_id in info.pending_run_ids):
            yield from ((pool, run_id) for run_id in sorted(holders) if run_id not in _here)
