"""From 350,000 pairs to a release and its exports: seconds, processor time and memory, at four sizes.

Each size has a lake of its own with generated texts (`benchmarks/inputs/factory_lake.py`): queries of 18
words, responses of 120, 30 to 40 planted near-copies in 10,000 pairs, 30,000 benchmark items, rendered clips.
The real stages run on it: the release with its screening, decontamination, card and checks, then every export
through the function of `safevid export`. Models are not asked. One process measures one size, on two cores;
the peak of a part is the most memory of the process while the part runs.

`trl` and `webdataset` hold frames. The decoding of every clip is in the time of `trl`. `webdataset` is timed
apart, because it writes the frames once for each pair.

The goals at 350,000: 300 s and 3,000 MB without `webdataset`, at least 99% of the planted pairs kept out, and
at most 1.15 times the processor seconds of 35,000 for each pair. A ratio is goal by figure, so that above 1
is better.

Run with ``python -m benchmarks.pair_factory [--rows N ...] [--work FOLDER] [--without-webdataset]``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import print_result

SIZES = (35_000, 88_000, 175_000, 350_000)
CORES = 2
GOAL_S, GOAL_MB, GOAL_FOUND, GOAL_GROWTH = 300.0, 3_000.0, 0.99, 1.15
FRAMES = 8
APART = "webdataset"
TOTAL = "total"
# The folder in which the measured process leaves its exports.
OUT = "out"


def measure(root: Path, rows: int, webdataset: bool) -> dict[str, Any]:
    """Run the stages and exports over a lake; part -> seconds, processor seconds and peak MB."""
    from benchmarks.inputs.factory_lake import planted, settings_for
    from safevid_core.benchmarks.exports import export_benchmark
    from safevid_core.contracts.tables import PAIR_ALLOCATION, PAIR_YIELD, RELEASE
    from safevid_core.datasets.exports import EXPORTS, export_pairs
    from safevid_core.execution.local import LocalRunner
    from safevid_core.pipeline import build_registry
    from safevid_core.stages.gates import checks_of
    from safevid_core.stages.planner import Planner
    from safevid_core.stages.stage import Tools
    from safevid_core.storage.opening import lake_of

    def no_gateway() -> Any:
        raise RuntimeError("the benchmark asks no model")

    made = (PAIR_ALLOCATION.name, RELEASE.name, PAIR_YIELD.name)
    for name in (OUT, "blobs/release", "cache/frames", *(f"tables/{table}" for table in made)):
        shutil.rmtree(root / name, ignore_errors=True)  # of an earlier measurement
    settings = settings_for(root, rows)
    lake = lake_of(settings)
    tools = Tools(settings, lake, build_registry(settings), no_gateway)
    parts: dict[str, dict[str, float]] = {}

    def make(name: str) -> None:
        with LocalRunner(Planner(tools)) as runner:
            report = runner.make(tools.registry[name], ["all"])
        for error in report.failures.values():
            raise error

    def check(name: str) -> None:
        for each in checks_of(tools.registry[name]):
            problems = each.run(tools, tools.registry[name], ["all"]).problems
            if problems:
                raise SystemExit(f"{each.name}: {problems[0]}")

    def part(name: str, work: Callable[[], Any]) -> None:
        reset_peak()
        started, used = time.monotonic(), processor_seconds()
        work()
        figures = {"s": time.monotonic() - started, "cpu_s": processor_seconds() - used, "mb": peak_mb()}
        parts[name] = {key: round(value, 2) for key, value in figures.items()}
        say(f"  {name}: " + ", ".join(f"{key} {value:,.1f}" for key, value in figures.items()))

    part("plan", lambda: make(PAIR_ALLOCATION.name))
    part("release", lambda: make(RELEASE.name))
    part("release's checks", lambda: check(RELEASE.name))
    part("planned against made", lambda: make(PAIR_YIELD.name))
    for name, export in EXPORTS.items():
        if name == APART and not webdataset:
            continue
        to = root / OUT / name
        frames = FRAMES if export.media == "frames" else None
        part(name, lambda name=name, to=to, frames=frames: export_pairs(lake, name, to, frames=frames))
        parts[name]["written_mb"] = round(size_mb(to), 1)
        if name != "hugging-face":
            shutil.rmtree(to)
    part("lmms-eval", lambda: export_benchmark(lake, "lmms-eval", root / OUT / "lmms-eval"))

    kept = set(lake.scan(RELEASE).select("pair_id").collect()["pair_id"])
    found: dict[str, list[bool]] = {}
    for kind, pair, other in planted(root):
        found.setdefault(kind, []).append(pair not in kept or (other is not None and other not in kept))
    manifest = lake.manifest(RELEASE.name)
    assert manifest is not None
    return {
        "parts": parts,
        "planted": {kind: [sum(some), len(some)] for kind, some in found.items()},
        "outcomes": manifest.outcomes,
        "kept_out": manifest.info.get("kept_out"),
        "load": os.getloadavg()[0],
    }


def processor_seconds() -> float:
    """Processor time of this process and of its ended children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def reset_peak() -> None:
    """Let :func:`peak_mb` count from now on, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """The most memory of this process since :func:`reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def in_process(*arguments: str) -> str:
    """Run this module in a process of its own; its standard output."""
    command = [sys.executable, "-m", "benchmarks.pair_factory", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


def measure_size(rows: int, work: Path, webdataset: bool) -> dict[str, Any]:
    """The figures of one size, in processes of their own."""
    root = work / str(rows)
    say(f"{rows:,} pairs")
    in_process("--make", str(rows), "--work", str(root))
    told = in_process(
        "--measure", str(rows), "--work", str(root), *([] if webdataset else ["--without-webdataset"])
    )
    figures: dict[str, Any] = json.loads(told.splitlines()[-1])
    found = totalled(rows, figures)
    say(f"  {TOTAL}: {found[TOTAL]}, planted {found['planted']}, load {found['load']:.1f}")
    return found


def totalled(rows: int, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of a size with their sum, in which `webdataset` is not."""
    counted = [each for name, each in figures["parts"].items() if name != APART]
    total = {key: round(sum(each[key] for each in counted), 1) for key in ("s", "cpu_s")}
    return {"rows": rows, **figures, TOTAL: {**total, "mb": max(each["mb"] for each in counted)}}


def cases_of(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first, last = sizes[0], sizes[-1]
    goal_s = GOAL_S * last["rows"] / SIZES[-1]
    cases = [
        case(f"seconds, {last['rows']:,} pairs", last[TOTAL]["s"], goal_s),
        case(f"MB, {last['rows']:,} pairs", last[TOTAL]["mb"], GOAL_MB),
    ]
    growth = last[TOTAL]["cpu_s"] / last["rows"] / (first[TOTAL]["cpu_s"] / first["rows"])
    cases.append(case("processor seconds a pair, largest size by smallest", growth, GOAL_GROWTH))
    found, of = (sum(each[place] for each in last["planted"].values()) for place in (0, 1))
    cases.append({"case": "planted pairs kept out", "ours": found / of, "peers": {"goal": GOAL_FOUND},
                  "ratio": round(found / of / GOAL_FOUND, 3)})  # fmt: skip
    return cases


def case(name: str, ours: float, goal: float) -> dict[str, Any]:
    return {
        "case": name,
        "ours": round(ours, 3),
        "peers": {"goal": round(goal, 2)},
        "ratio": round(goal / ours, 3),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A release and its exports at four sizes.")
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--work", type=Path, help="folder that keeps the lakes; they are removed without it")
    parser.add_argument("--without-webdataset", action="store_true")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    webdataset = not chosen.without_webdataset
    if chosen.make:
        from benchmarks.inputs.factory_lake import make_lake

        make_lake(chosen.make, chosen.work)
    elif chosen.measure:
        print(json.dumps(measure(chosen.work, chosen.measure, webdataset)))
    else:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
        with tempfile.TemporaryDirectory() as folder:
            sizes = [measure_size(rows, chosen.work or Path(folder), webdataset) for rows in chosen.rows]
        print_result("pair_factory", "as named in each case", sizes[-1]["rows"], cases_of(sizes), sizes=sizes)


if __name__ == "__main__":
    main()
