"""Judging 10,000 stored answers again with a changed parser: seconds, and model calls, of which none is made.

There is no peer that keeps a judge's answers apart from what was read in them; the goal is the project's own:
30 s. Run with ``python -m benchmarks.rejudging``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import print_result
from benchmarks.scorecard import make_lake, settings_for
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES
from safevid_core.judging.judges.registry import JUDGES
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.stages import run_stage

GOAL = 30.0
BENCHMARK, SYSTEM = "safevidbench_base", "pocket@0"
ANSWERS, CLIPS, TIMES = 10_000, 1_240, 3


def rejudge(settings: Settings, lake: Lake, version: str) -> tuple[float, int, int]:
    """Seconds, new model calls and answers of one judging by that version of the rubric's parser."""
    assert isinstance(JUDGES, dict)
    JUDGES["rubric"] = replace(JUDGES["rubric"], version=version)
    gateway = Gateway(settings)
    started = time.monotonic()
    report = run_stage(settings, lake, "benchmark_scores", f"{SYSTEM}|{BENCHMARK}", gateway)
    seconds = time.monotonic() - started
    if not report.computed:
        raise SystemExit("the judging was taken for one that is done: the parser's version decides nothing")
    return seconds, gateway.spend().calls, sum(report.manifest.outcomes.values())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_for(Path(folder) / "safevid", [BENCHMARK])
        lake = make_lake(settings, items=ANSWERS, clips=CLIPS)
        answers = lake.read(BENCHMARK_RESPONSES, f"{SYSTEM}|{BENCHMARK}").height
        first, calls, judged = rejudge(settings, lake, "first")
        print(f"first judging: {first:.1f} s, {calls:,} calls, {judged:,} answers", file=sys.stderr)
        times = []
        for turn in range(TIMES):
            seconds, calls, judged = rejudge(settings, lake, f"changed {turn}")
            if calls or judged != answers:
                raise SystemExit(f"{calls:,} calls were made, {judged:,} of {answers:,} answers judged")
            times.append(seconds)
        verdicts = lake.read(BENCHMARK_SCORES, f"{SYSTEM}|{BENCHMARK}").height
        print(
            f"again: {', '.join(f'{each:.2f}' for each in times)} s; {verdicts:,} verdicts", file=sys.stderr
        )
    ours = statistics.median(times)
    case = {
        "case": f"{answers:,} answers, s",
        "ours": round(ours, 3),
        "peers": {"goal": GOAL},
        "ratio": round(GOAL / ours, 3),
    }
    print_result("rejudging", "s", TIMES, [case])


if __name__ == "__main__":
    main()
