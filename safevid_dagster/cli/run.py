"""`safevid run`: makes stages as Dagster runs in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from safevid_dagster.cli.failures import FAILED, BadRequest, say_error
from safevid_dagster.cli.opening import PartitionNames, Scenes, open_planner, partitions_of
from safevid_dagster.cli.printing import AsJson, is_terminal, print_json

if TYPE_CHECKING:
    from safevid_core.settings import Settings
    from safevid_core.stages.selection import Selection
    from safevid_dagster.running import StepReport


def run(
    stages: Annotated[
        list[str], typer.Argument(metavar="STAGE...", help="Names of stages, as `safevid status` lists them.")
    ],
    scene: Scenes = None,
    partition: PartitionNames = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="First make the upstream stages that are not fresh.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Also make the stages from these up to this one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the partitions of stages that are not fresh.

    Each run is a Dagster run, which `safevid ui` shows with its log. The first stage that fails ends the
    command. Finished work is kept.
    """
    from safevid_core.stages.selection import select
    from safevid_dagster.home import prepare_home

    planner = open_planner(only_reads=False)
    chosen = select(planner, stages, partitions_of(scene, partition), upstream=upstream, to=to)
    refuse_blocked(chosen)
    prepare_home(planner.tools.settings)
    done = _run(planner.tools.settings, chosen, quiet=as_json)
    if as_json:
        print_json({"succeeded": all(each.succeeded for each in done), "steps": [_as_json(e) for e in done]})
    if not all(each.succeeded for each in done):
        raise typer.Exit(FAILED)


def refuse_blocked(chosen: Selection) -> None:
    """Raise an error if a run would fail at once: inputs are missing, or another run makes a partition.

    Raises:
        BadRequest: The message names the first missing inputs.
        SafeVidError: The message names the run that holds a partition.
    """
    missing = chosen.missing()
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise BadRequest(
            f"{chosen.steps[-1][0].name} is made from {shown}, not made yet; --upstream makes it first"
        )
    for stage, partitions in chosen.steps:
        for partition in partitions:
            with chosen.planner.tools.lake.hold(
                stage.name, partition, "safevid run, which checks whether it is free"
            ):
                pass


def _run(settings: Settings, chosen: Selection, *, quiet: bool) -> list[StepReport]:
    from safevid_dagster.running import Steps, noted_warnings, opened_instance

    done: list[StepReport] = []
    with _Terminal(quiet) as terminal, opened_instance(terminal.say) as instance, noted_warnings() as notes:
        say = terminal.say
        steps = Steps(
            settings,
            instance,
            on_wait=say,
            on_start=lambda run: say(f"run {run}; `safevid ui` shows it under Runs, {run[:8]}"),
            on_partition=terminal.show,
        )
        for stage, _ in chosen.steps:
            partitions = chosen.to_make(stage)
            if not partitions:
                continue
            say(f"{stage.name}: {_partition_names(partitions)}")
            report = steps.run(stage, partitions)
            done.append(report)
            for line in notes.taken():
                say(f"      {line}")
            if not report.succeeded:
                break
            say(f"{stage.name}: {' '.join(report.text.split())}")
        if not done:
            say("Nothing to make: everything is fresh.")
    for report in done:
        if not report.succeeded:
            say_error(f"{report.stage} {report.text}")
    return done


class _Terminal:
    """Prints the lines of a run. On a terminal the partition that is being made is shown below them.

    Args:
        quiet: Whether lines go to stderr, so that stdout holds JSON only.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._status = None
        if is_terminal() and not quiet:
            from rich.console import Console

            self._status = Console(highlight=False).status("")

    def __enter__(self) -> _Terminal:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, line: str) -> None:
        """Print one line."""
        if self._status is None:
            typer.echo(line, err=self._quiet)
        else:
            self._status.console.print(line, markup=False, soft_wrap=True)

    def show(self, partition: str, number: int, of: int) -> None:
        """Show a partition, its number from 1, and the number of partitions."""
        if self._status is not None:
            self._status.update(f"{partition} ({number} of {of})")


def _partition_names(partitions: list[str]) -> str:
    if len(partitions) > 3:
        return f"{len(partitions)} partitions"
    return ", ".join(partitions)


def _as_json(report: StepReport) -> dict[str, Any]:
    return {
        "stage": report.stage,
        "runs": list(report.runs),
        "failure": report.failure or None,
        "outcomes": report.outcomes,
        "partitions": report.partitions,
        "recomputed": report.recomputed,
        "seconds": round(report.seconds, 2),
    }
