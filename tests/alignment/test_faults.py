"""Trainings that are killed, starved or fed nonsense: what is whole stays whole, and the reason is said."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job, RunResult
from safevid_core.alignment.progress import PROGRESS_NAME
from safevid_core.alignment.train import Listener, _run, prepare, train
from safevid_core.settings import Settings
from safevid_core.storage.lake import directory_hash
from tests.alignment.progress_log import logged, steps_logged

# A server that has the libraries loaded forks the runs: a fresh process would spend 20 seconds on that for
# each kill, and this one may have threads, which a fork does not survive.
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["safevid_core.alignment.trainer", "tests.alignment.test_faults"])
EPOCHS, STEPS, KILLS_A_RUN = 3, 18, 5


@pytest.fixture
def make_job(settings: Settings, release: pl.DataFrame, tmp_path: Path) -> Callable[..., Job]:
    """Jobs over one set of pairs, packed by video; six steps an epoch, a checkpoint every four."""
    release.write_parquet(tmp_path / "pairs.parquet")

    def make(name: str, **changes: Any) -> Job:
        update = {"packing": "video", "pairs_a_tree": 2, "epochs": EPOCHS, "save_steps": 4, **changes}
        job = Job(
            tmp_path / name,
            tmp_path / "pairs.parquet",
            7,
            settings.alignment.model_copy(update=update),
            features=tmp_path / "features",
        )
        job.folder.mkdir()
        job.write()
        return job

    return make


def in_a_process(job: Job, listener: Listener | None = None) -> Any:
    process = server.Process(target=train, args=(job, listener))
    process.start()
    return process


def steps_begun(job: Job) -> int:
    """The last step that was logged, over all attempts; 0 before the first."""
    return max((entry["step"] for entry in logged(job)), default=0)


def kill_at(job: Job, step: int, delay_s: float) -> None:
    """Run until a step is logged and a while longer, then kill without warning."""
    process = in_a_process(job)
    while process.is_alive() and steps_begun(job) < step:
        time.sleep(0.002)
    time.sleep(delay_s)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def assert_kills_change_nothing(make_job: Callable[..., Job], runs: int, kills: int, seed: int) -> None:
    """Each run is killed at rising random steps, some of them while it writes a checkpoint, then finished."""
    unbroken = make_job("unbroken")
    in_a_process(unbroken).join()
    true = directory_hash(unbroken.adapter)
    rng = random.Random(seed)
    for number in range(runs):
        job = make_job(f"run-{number}")
        for step in sorted(rng.choices(range(STEPS), k=kills)):
            kill_at(job, step, rng.uniform(0, 0.15))
        process = in_a_process(job)
        process.join()
        assert process.exitcode == 0
        assert directory_hash(job.adapter) == true, f"run {number} of seed {seed}"


@pytest.mark.slow
def test_five_kills_change_nothing(make_job: Callable[..., Job]) -> None:
    assert_kills_change_nothing(make_job, runs=1, kills=KILLS_A_RUN, seed=0)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_hundred_kills_change_nothing(seed: int, make_job: Callable[..., Job]) -> None:
    """In four parts of 25."""
    assert_kills_change_nothing(make_job, runs=25 // KILLS_A_RUN, kills=KILLS_A_RUN, seed=seed)


def die_at_the_tenth_step(job: Job, step: Mapping[str, Any]) -> None:
    if step["step"] == 10:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_ends_between_checkpoints_resumes_to_the_same_bits(make_job: Callable[..., Job]) -> None:
    """The quick form of the kills: one, within an epoch and between two checkpoints."""
    unbroken, killed = make_job("unbroken"), make_job("killed")
    in_a_process(unbroken).join()
    in_a_process(killed, die_at_the_tenth_step).join()
    assert RunResult.read(killed.folder) is None
    progress = killed.folder / PROGRESS_NAME
    os.truncate(progress, progress.stat().st_size - 5)  # as if it had died while it wrote this line
    in_a_process(killed).join()
    assert directory_hash(killed.adapter) == directory_hash(unbroken.adapter)
    assert steps_logged(killed)[-1] == STEPS


def fill_the_disk(job: Job, step: Mapping[str, Any]) -> None:
    """After the first complete checkpoint, let no file of this process grow as large as the optimizer's."""
    if list(job.folder.glob("checkpoint-*/whole")):
        size = min(file.stat().st_size for file in job.folder.glob("checkpoint-*/optimizer.pt"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, resource.RLIM_INFINITY))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(make_job: Callable[..., Job]) -> None:
    job, unbroken = make_job("full"), make_job("unbroken")
    process = server.Process(target=_run, args=(job.file, fill_the_disk))
    process.start()
    process.join()
    assert process.exitcode == 1
    reason = (job.folder / "error.txt").read_text().splitlines()[0]
    assert "cannot be written" in reason
    assert "make room and run again" in reason
    assert [path.parent.name for path in job.folder.glob("checkpoint-*/whole")] != []
    in_a_process(job).join()
    in_a_process(unbroken).join()
    assert directory_hash(job.adapter) == directory_hash(unbroken.adapter)


@pytest.mark.parametrize("packing", ["none", "pair", "video"])
def test_a_loss_that_is_not_finite_names_the_pairs_of_its_pass(
    packing: str, make_job: Callable[..., Job]
) -> None:
    job = make_job("nan", packing=packing, micro_batch_size=1, pass_tokens=1)
    trainer = prepare(job).trainer
    trainer.data_collator.pairs[7].reference = (float("nan"), 0.0)
    with pytest.raises(AlignmentError, match=r"not finite at step \d+ for the pairs pair-07; check"):
        trainer.train()


def starve(job: Job, answer: Any) -> None:
    """Train with 8 MB more than the trainer has taken."""
    trainer = prepare(job).trainer
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, limits[1]))
    reason = "it did not run out"
    try:
        trainer.train()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_AS, limits)
    answer.send(reason)


@pytest.mark.parametrize(("packing", "setting"), [("none", "micro_batch_size"), ("video", "pass_tokens")])
def test_memory_that_runs_out_names_the_shape_and_the_setting(
    packing: str, setting: str, make_job: Callable[..., Job], release: pl.DataFrame, tmp_path: Path
) -> None:
    long_answers = release.with_columns(chosen=pl.lit("No. " * 80), rejected=pl.lit("Yes. " * 60))
    job = make_job("starved", packing=packing, batch_size=24, micro_batch_size=24, pass_tokens=10**6)
    long_answers.write_parquet(tmp_path / "pairs.parquet")
    receiver, sender = server.Pipe(duplex=False)
    process = server.Process(target=starve, args=(job, sender))
    process.start()
    assert receiver.poll(120)
    reason = receiver.recv()
    process.join()
    assert "AlignmentError: out of memory in a pass over 24 pairs" in reason
    assert f"lower alignment.{setting}" in reason


def test_a_checkpoint_is_written_when_minutes_have_passed(make_job: Callable[..., Job]) -> None:
    job = make_job("by-time", save_steps=10_000, save_minutes=1e-6)
    kill_at(job, 3, 0.3)
    assert list(job.folder.glob("checkpoint-*/whole"))
