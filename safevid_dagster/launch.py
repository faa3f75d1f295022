"""`make demo` and `make ui`: the same graph, run here stage by stage, or served.

Usage::

    python -m safevid_dagster.launch demo
    python -m safevid_dagster.launch ui --port 3000
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safevid_core.lake import Lake, LakeError
from safevid_core.settings import LOSSES, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    import dagster as dg

PROJECT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="safevid_dagster.launch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="run the whole method with the settings in force")
    ui = commands.add_parser("ui", help="serve Dagster's UI and daemon on localhost")
    ui.add_argument("--port", type=int, default=3000)
    ui.add_argument("--host", default="127.0.0.1")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        home = prepare_home(settings)
        if chosen.command == "ui":
            return serve(chosen.host, chosen.port)
        return demo(settings, home)
    except (SettingsError, LakeError, LaunchError) as error:
        print(f"safevid: {error}", file=sys.stderr)
        return 2


class LaunchError(RuntimeError):
    """A launch that cannot go on; the message names the thing and the mend."""


def prepare_home(settings: Settings) -> Path:
    """The Dagster home below the root, with this project's instance file; set for this process."""
    lake = Lake(settings.root, settings.profile)
    home = lake.root / "dagster"
    home.mkdir(exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def serve(host: str, port: int) -> int:
    """Replace this process by `dagster dev`, after making sure that the port is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise LaunchError(f"port {port} is taken; try `make ui PORT={port + 1}`") from None
    import dagster as dg

    from safevid_dagster.living import bury, working

    with dg.DagsterInstance.get() as instance:
        for line in (*bury(instance), *working(instance)):
            print(line, flush=True)
    print(f"SafeVid's assets: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    dagster = Path(sys.executable).with_name("dagster")
    workspace = PROJECT / "workspace.yaml"
    os.chdir(PROJECT)
    os.execv(dagster, [str(dagster), "dev", "-h", host, "-p", str(port), "-w", str(workspace)])


@dataclass(frozen=True)
class Step:
    """One asset over some of its partitions."""

    asset: str
    partitions: tuple[str, ...] = ()


def steps(settings: Settings) -> Iterator[Step]:
    """The whole method in order, as the assets that hold it."""
    import dagster as dg

    from safevid_dagster.defs.partitions import SCENES

    scenes = tuple(SCENES.get_partition_keys())
    for asset in ("pocket_clips", "clip_manifest", "scene_assignments", "corpus_split"):
        yield Step(asset)
    describers = [f"{name}_descriptions" for name in settings.descriptions.describers]
    for asset in ("video_corpus", *describers, "signal_descriptions", "descriptions"):
        yield Step(asset, scenes)
    for audit in ("description_fidelity_audit", "detail_loss_audit", "temporal_audit"):
        yield Step(audit)
    for asset in ("taxonomy_queries", "safevid_350k_pairs"):
        yield Step(asset, scenes)
    yield Step("video_report")
    yield Step("safevid_350k_release")
    yield Step("preference_style_audit")
    arms = {settings.alignment.policies[name].trained_on for name in settings.alignment.trained}
    if "own_style" in arms:
        yield Step("own_style_answers", scenes)
    if "without_descriptions" in arms:
        yield Step("queries_without_descriptions", scenes)
        yield Step("pairs_without_descriptions", scenes)
    for loss in sorted(arms & set(LOSSES)):
        keys = tuple(dg.MultiPartitionKey({"loss": loss, "scene": scene}) for scene in scenes)
        for asset in ("lossy_descriptions", "lossy_queries", "lossy_pairs"):
            yield Step(asset, keys)
    policies = [dg.MultiPartitionKey({"policy": p, "data_scale": "1"}) for p in settings.alignment.trained]
    yield Step("dpo_checkpoint", tuple(policies))
    for benchmark in settings.evaluation.benchmarks:
        yield Step(benchmark)
    yield Step("taxonomy_drift_audit")
    cells = [
        dg.MultiPartitionKey({"system": system, "benchmark": benchmark})
        for benchmark in settings.evaluation.benchmarks
        for system in settings.systems
    ]
    yield Step("benchmark_responses", tuple(cells))
    yield Step("benchmark_scores", tuple(cells))
    yield Step("query_robustness_audit")
    yield Step("judge_validation")
    yield Step("scorecard")
    yield Step("promotion_decision")


def demo(settings: Settings, home: Path) -> int:
    """Materialise every asset of the graph in order, with a line a stage; then say what came out."""
    started = time.monotonic()
    print(f"SafeVid, profile {settings.profile}: everything goes to {home.parent}", flush=True)
    import dagster as dg

    # Libraries tell each other of renamed and unfinished parts here; a person can do nothing about them.
    for category in (FutureWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=category)

    from safevid_dagster.definitions import defs
    from safevid_dagster.living import bury, telling_of_waits

    definitions = defs()
    recomputed, failed, notes = 0, False, Notes()
    logging.getLogger().addHandler(notes)
    with dg.DagsterInstance.get() as instance:
        plan = list(steps(settings))
        for number, step in enumerate(plan, 1):
            for line in bury(instance):
                print(line, flush=True)
            print(f"[{number:2}/{len(plan)}] {step.asset:32}", end="", flush=True)
            with telling_of_waits(instance, lambda said: print(f"\n      {said}", end="", flush=True)):
                done = run_step(definitions, instance, step)
            print("\n      ".join([done.text, *notes.taken()]), flush=True)
            recomputed += done.recomputed
            if not done.succeeded:
                failed = True
                break
    if failed:
        print("Stopped; what was finished is kept. Run it again to go on from there.", file=sys.stderr)
        return 1
    conclude(settings, home.parent, recomputed, time.monotonic() - started)
    return 0


class Notes(logging.Handler):
    """Warnings of a step, kept until its line is written."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(" ".join(record.getMessage().split()))

    def taken(self) -> list[str]:
        """Each warning once, and none of them again."""
        lines, self._lines = list(dict.fromkeys(self._lines)), []
        return lines


def conclude(settings: Settings, root: Path, recomputed: int, seconds: float) -> None:
    """The few lines that matter, and where the rest is."""
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
    print(f"Took {seconds:.0f} s. Profile {settings.profile}: made by the models that profile names.")
    print(f"  {report.with_suffix('.html')}\n  {report}")
    print(f"  {report.with_name('videos.html')} (what was said about your own videos)")
    print("See every asset with `make ui`.")


def headline(settings: Settings, card: Mapping[str, Any]) -> Iterator[str]:
    """The policies' figures as lines, benchmark by benchmark.

    Args:
        card: As `scorecard.json`.
    """
    titles = {each["benchmark"]: each["title"] for each in card["benchmarks"]}
    for benchmark, cells in groupby(card["systems"], key=lambda cell: cell["benchmark"]):
        shown = [c for c in cells if c["policy"] in settings.alignment.policies and c["value"] is not None]
        if shown:
            yield f"{titles[benchmark]}:"
        for cell in shown:
            value, low, high = (_told(cell["metric"], cell[name]) for name in ("value", "ci_low", "ci_high"))
            yield f"  {cell['system']:22} {cell['metric']:22} {value:>7}  [{low}, {high}]  n={cell['n']}"


def _told(metric: str, value: float) -> str:
    """A rate as a percentage, a gap in signed points, a score as it is."""
    if metric == "mmbench_score":
        return f"{value:.2f}"
    return f"{100 * value:+.1f}" if metric.endswith("_gap") else f"{value:.1%}"


@dataclass(frozen=True)
class StepLine:
    """What the terminal shows of a step."""

    succeeded: bool
    text: str
    recomputed: int = 0


def run_step(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step) -> StepLine:
    """Materialise one asset over its partitions, in this process and in one run."""
    import dagster as dg

    started = time.monotonic()
    tags = {}
    if step.partitions:
        tags = {
            "dagster/asset_partition_range_start": str(step.partitions[0]),
            "dagster/asset_partition_range_end": str(step.partitions[-1]),
        }
    result = dg.materialize(
        list(definitions.assets or ()),
        selection=[step.asset],
        instance=instance,
        resources=definitions.resources,
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    seconds = time.monotonic() - started
    if not result.success:
        return StepLine(False, f"failed after {seconds:.1f} s: {_failure(result)}")
    return _line(result, seconds)


def _line(result: dg.ExecuteInProcessResult, seconds: float) -> StepLine:
    """Outcomes over the step's partitions, and how many of them were recomputed."""
    from safevid_core.records import OUTCOMES

    totals = dict.fromkeys((*OUTCOMES, "recomputed"), 0)
    partitions = 0
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        partitions += 1
        for name in totals:
            if name in metadata:
                totals[name] += int(metadata[name].value)  # type: ignore[call-overload]
    counts = "  ".join(f"{totals[name]:6} {name}" for name in OUTCOMES)
    recomputed = totals["recomputed"]
    return StepLine(True, f"{counts}  {recomputed:3} of {partitions} made  {seconds:6.1f} s", recomputed)


def _failure(result: dg.ExecuteInProcessResult) -> str:
    """The first failed step's own message, on one line."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                return " ".join(error.message.split())
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            return f"check {check.check_name} failed: {dict(check.metadata)}"
    return "see `make ui` for the run's log"


if __name__ == "__main__":
    sys.exit(main())
