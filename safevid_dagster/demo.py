"""`safevid demo`: makes all stages of the method in order and prints the main figures."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from safevid_core.settings import Settings, SettingsError
from safevid_dagster.cli.opening import open_planner
from safevid_dagster.home import home_of


def demo(settings: Settings) -> bool:
    """Make every stage of the settings' flow in order, print one line for each, and print the main figures.

    The first stage that fails ends the demo.

    Returns:
        Whether all stages succeeded.
    """
    started = time.monotonic()
    root = home_of(settings).parent
    print(f"SafeVid, profile {settings.profile}, writes to {root}", flush=True)
    from safevid_dagster.liveness import end_dead_runs
    from safevid_dagster.running import Steps, fresh_report, noted_warnings, opened_instance

    def say(line: str) -> None:
        print(f"\n      {line}", end="", flush=True)

    build_checkpoints(settings, lambda line: print(f"      {line}", flush=True))
    planner = open_planner(only_reads=False)
    flow, recomputed = planner.registry.flow(settings), 0
    with opened_instance(lambda line: print(line, flush=True)) as instance, noted_warnings() as notes:
        steps = Steps(settings, instance, on_wait=say)
        for number, (stage, partitions) in enumerate(flow, 1):
            for line in end_dead_runs(instance):
                print(line, flush=True)
            print(f"[{number:2}/{len(flow)}] {stage.name:32}", end="", flush=True)
            # Fresh partitions are reported without a Dagster run, which would take a second or two.
            done = fresh_report(planner, stage, partitions) or steps.run(stage, partitions)
            print("\n      ".join([done.text, *notes.taken()]), flush=True)
            recomputed += done.recomputed
            if not done.succeeded:
                print("Stopped. Finished work is kept; run the demo again to continue.", file=sys.stderr)
                return False
    conclude(settings, root, recomputed, time.monotonic() - started)
    return True


def build_checkpoints(settings: Settings, report: Callable[[str], None]) -> None:
    """Build the checkpoints of `models.builders` that do not exist.

    Raises:
        SettingsError: If a module cannot be imported or has no function `prepare`.
        SafeVidError: If a builder fails. Example: a package is missing.
    """
    for module in settings.models.builders:
        try:
            prepare = importlib.import_module(module).prepare
        except (ImportError, AttributeError) as error:
            raise SettingsError(
                f"models.builders: {module} cannot be used ({error}); name a module with a function `prepare`"
            ) from None
        prepare(settings.root, report)


def conclude(settings: Settings, root: Path, recomputed: int, seconds: float) -> None:
    """Print what was computed and paid, the main figures, and the paths of the reports."""
    from safevid_dagster.defs.resources import shared_gateway

    spend = shared_gateway().spend()
    if recomputed == 0:
        print(f"\nNothing changed: no partition was recomputed, {spend.calls} model calls.")
    else:
        print(
            f"\n{recomputed} partitions recomputed, {spend.calls} model calls "
            f"({spend.cached} answered from the ledger), {spend.cost_usd:.2f} USD."
        )
    report = root / "reports" / "scorecard.json"
    for line in headline(settings, json.loads(report.read_text())):
        print(line)
    print(f"Took {seconds:.0f} s with the models of profile {settings.profile}.")
    print(f"  {report.with_suffix('.html')}\n  {report}")
    print(f"  {report.with_name('videos.html')} (descriptions and responses for your own videos)")
    print("`safevid ui` shows every asset.")


def headline(settings: Settings, card: Mapping[str, Any]) -> Iterator[str]:
    """The figures of the policies as lines, grouped by benchmark.

    Args:
        card: The content of `scorecard.json`.
    """
    titles = {each["benchmark"]: each["title"] for each in card["benchmarks"]}
    for benchmark, cells in groupby(card["systems"], key=lambda cell: cell["benchmark"]):
        shown = [c for c in cells if c["policy"] in settings.alignment.policies and c["value"] is not None]
        if shown:
            yield f"{titles[benchmark]}:"
        for cell in shown:
            value, low, high = (
                _figure(cell["metric"], cell[name]) for name in ("value", "ci_low", "ci_high")
            )
            yield f"  {cell['system']:22} {cell['metric']:22} {value:>7}  [{low}, {high}]  n={cell['n']}"


def _figure(metric: str, value: float) -> str:
    """A figure as text: a rate in percent, a gap in points with its sign, a score unchanged."""
    if metric == "mmbench_score":
        return f"{value:.2f}"
    return f"{100 * value:+.1f}" if metric.endswith("_gap") else f"{value:.1%}"
