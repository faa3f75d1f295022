"""Killed runs are marked as failed and give their slots back; living ones are waited for by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from safevid_dagster import liveness
from safevid_dagster.liveness import active_runs, end_dead_runs, start_heartbeat
from tests.living_runs import kill, make_home, start, wait_for

POOL = "training"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "dagster")


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


def begun(instance: dg.DagsterInstance, *, pool: str | None = POOL) -> dg.DagsterRun:
    """A run that has started and, given a pool, holds its only slot; nobody gives signs of life for it."""

    @dg.op
    def nothing() -> None: ...

    @dg.job
    def slow() -> None:
        nothing()

    run = instance.create_run_for_job(slow)
    instance.report_dagster_event(
        dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="slow"), run.run_id
    )
    if pool is not None:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(pool)
        assert storage.claim_concurrency_slot(pool, run.run_id, "slow").is_claimed
    return run


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status.value


def holders(instance: dg.DagsterInstance) -> set[str]:
    return instance.event_log_storage.get_concurrency_info(POOL).active_run_ids


def test_a_killed_run_fails_and_the_next_one_runs(home: Path, instance: dg.DagsterInstance) -> None:
    process, ready = start(home, "dpo_checkpoint", POOL, 600)
    wait_for(ready.exists)
    assert end_dead_runs(instance) == [], "it lives"
    kill(process)
    assert holders(instance) == {ready.read_text()}
    assert [run.status.value for run in instance.get_runs()] == ["STARTED"]
    following, _ = start(home, "dpo_checkpoint", POOL, 0)
    said = following.communicate(timeout=60)[0].splitlines()
    assert said[0] == (
        f"run {ready.read_text()} (dpo_checkpoint) has no process any more: marked as failed; "
        f"its slot of pool {POOL} is free again"
    )
    assert said[1].startswith("made ")
    assert sorted(run.status.value for run in instance.get_runs()) == ["FAILURE", "SUCCESS"]
    assert end_dead_runs(instance) == []
    assert not list((home / "alive").iterdir())


def test_a_living_run_is_waited_for_by_name(home: Path, instance: dg.DagsterInstance) -> None:
    first, ready = start(home, "dpo_checkpoint", POOL, 600)
    wait_for(ready.exists)
    assert active_runs(instance) == [f"run {ready.read_text()} (dpo_checkpoint) is at work"]
    second, _ = start(home, "benchmark_responses", POOL, 0)
    assert second.stdout is not None
    said = second.stdout.readline()
    assert said.startswith(f"waits for run {ready.read_text()} (dpo_checkpoint), which holds pool {POOL}")
    kill(first)  # while the other waits
    said = second.communicate(timeout=60)[0]
    assert "marked as failed" in said
    assert "made " in said


def test_signs_of_this_process_end_with_the_run(home: Path, instance: dg.DagsterInstance) -> None:
    run = begun(instance, pool=None)
    start_heartbeat(instance, run.run_id)
    start_heartbeat(instance, run.run_id)
    assert end_dead_runs(instance) == []
    assert status(instance, run) == "STARTED"
    assert [path.name for path in (home / "alive").iterdir()] == [run.run_id]
    instance.report_run_failed(run)
    assert end_dead_runs(instance) == []
    assert list((home / "alive").iterdir()) == []


def test_without_a_lock_to_see_a_run_is_dead_when_its_lease_is_over(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(instance)
    assert end_dead_runs(instance) == [], "it was heard of a moment ago"
    later = time.time() + liveness.LEASE_S + 1
    monkeypatch.setattr(liveness.time, "time", lambda: later)
    liveness._record_heartbeat(instance, run.run_id, later - liveness.LEASE_S / 2)  # from another machine
    assert end_dead_runs(instance) == []
    liveness._record_heartbeat(instance, run.run_id, later - liveness.LEASE_S - 1)
    (line,) = end_dead_runs(instance)
    assert run.run_id in line
    assert (status(instance, run), holders(instance)) == ("FAILURE", set())


def test_a_sign_under_another_kernel_leaves_it_to_the_lease(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(instance)
    sign = liveness._heartbeat_file(instance, run.run_id)
    sign.parent.mkdir()
    sign.write_text("another kernel")
    assert end_dead_runs(instance) == []
    sign.write_text(liveness._kernel())
    assert len(end_dead_runs(instance)) == 1


@pytest.mark.parametrize("end", ["deleted", "failed"])
def test_slots_of_runs_that_are_over_or_unknown_are_freed(instance: dg.DagsterInstance, end: str) -> None:
    run = begun(instance)
    if end == "deleted":
        storage = instance.event_log_storage
        instance.run_storage.delete_run(run.run_id)
        assert storage.get_concurrency_info(POOL).active_run_ids == {run.run_id}
    else:
        instance.report_run_failed(run)
    (line,) = end_dead_runs(instance)
    assert line.endswith(f"is over; its slot of pool {POOL} is free again")
    assert holders(instance) == set()
    assert end_dead_runs(instance) == []


def test_a_run_that_was_being_cancelled_ends_cancelled(instance: dg.DagsterInstance) -> None:
    run = begun(instance)
    instance.report_run_canceling(run)
    liveness._heartbeat_file(instance, run.run_id).parent.mkdir()
    liveness._heartbeat_file(instance, run.run_id).write_text(liveness._kernel())
    assert "marked as cancelled" in end_dead_runs(instance)[0]
    assert status(instance, run) == "CANCELED"
