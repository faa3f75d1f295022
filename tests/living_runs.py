"""Definitions and processes for tests of runs that die: a toy asset for every pool of the project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

PROJECT = Path(__file__).parents[1]

# Starts a run of one asset of the project with a pool, whose body only says that it is there and sleeps, in
# the way of `safevid demo`: a real instance, the real resource, the real pool.
SLEEPER = """
import sys, time
from pathlib import Path
import dagster as dg
from safevid_dagster.defs.resources import SafeVid
from safevid_dagster.liveness import end_dead_runs, reporting_waits

name, pool, ready, seconds = sys.argv[1:]

@dg.asset(name=name, pool=pool)
def slow(context: dg.AssetExecutionContext, safevid: SafeVid) -> None:
    Path(ready).write_text(context.run_id)
    time.sleep(float(seconds))

with dg.DagsterInstance.get() as instance:
    for line in end_dead_runs(instance):
        print(line, flush=True)
    with reporting_waits(instance, lambda line: print(line, flush=True)):
        done = dg.materialize([slow], instance=instance, resources={"safevid": SafeVid()},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
    print("made", done.run_id, flush=True)
"""


def make_home(folder: Path) -> Path:
    """A Dagster home with the project's own instance file."""
    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    return folder


def start(
    home: Path, asset: str, pool: str, seconds: float, *, before: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[str], Path]:
    """A process that runs the asset, and the file that it writes its run's id to when it holds the slot."""
    ready = home / f"ready-{asset}-{time.time_ns()}"
    process = subprocess.Popen(
        [*before, sys.executable, "-W", "ignore", "-c", SLEEPER, asset, pool, str(ready), str(seconds)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "DAGSTER_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, ready


def wait_for(ready: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)


def kill(process: subprocess.Popen[str]) -> None:
    """`kill -9` to it and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def pools() -> dict[str, set[str]]:
    """The assets of the project that have a pool, by pool."""
    from safevid_dagster.definitions import defs

    found: dict[str, set[str]] = {}
    for asset in defs().assets or ():
        assert isinstance(asset, dg.AssetsDefinition)
        if asset.op.pool:
            found.setdefault(asset.op.pool, set()).add(asset.key.to_user_string())
    return found
