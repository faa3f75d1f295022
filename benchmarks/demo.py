"""The demo from an empty root, and again with nothing changed: seconds and peak memory over its processes.

There is no peer that runs this method; the goals are the project's own: 600 s, 6 GB, and 60 s for a
second run. Run with ``python -m benchmarks.demo``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import print_result

PROJECT = Path(__file__).resolve().parent.parent
GOALS = {"first run, s": 600.0, "peak memory, GB": 6.0, "second run, s": 60.0}


def run_demo(root: Path) -> tuple[float, float]:
    """Wall seconds and the peak of the summed resident memory, in GB, over the demo's processes."""
    started, peak = time.monotonic(), 0
    environment = {**os.environ, "SAFEVID_ROOT": str(root), "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "safevid_dagster.cli", "demo"],
        cwd=PROJECT,
        env=environment,
        stdout=sys.stderr,
    )
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the demo failed with exit status {process.returncode}")
    return time.monotonic() - started, peak / 1e9


def resident(pid: int) -> int:
    """Bytes resident in a process and its descendants; pages they share are counted once for each."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "safevid"
        first, peak = run_demo(root)
        second, _ = run_demo(root)
    measured = {"first run, s": first, "peak memory, GB": peak, "second run, s": second}
    cases = [
        {"case": case, "ours": round(value, 2), "peers": {"goal": goal}, "ratio": round(goal / value, 3)}
        for (case, value), goal in zip(measured.items(), GOALS.values(), strict=True)
    ]
    print_result("demo", "as named in each case", 1, cases, cases[0]["ratio"])


if __name__ == "__main__":
    main()
