"""`safevid status`: the state of every partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safevid_core.contracts.errors import SafeVidError
from safevid_dagster.cli.opening import PartitionNames, Scenes, Stages, open_planner, partitions_of
from safevid_dagster.cli.printing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from safevid_core.settings import Settings
    from safevid_core.stages.planner import Planner
    from safevid_core.stages.stage import Stage

CONDITIONS = ("fresh", "incomplete", "stale", "missing", "blocked", "failed")


@dataclass(frozen=True)
class Standing:
    """The state of one partition.

    Attributes:
        condition: One of :data:`CONDITIONS`. `failed`: it is not fresh, and the last attempt failed.
        reason: Why it is not fresh, for people. Empty if it is fresh.
        rows: Number of rows of the committed partition. None if it is not committed.
    """

    stage: str
    partition: str
    condition: str
    reason: str
    rows: int | None


def status(
    stages: Stages = None,
    scene: Scenes = None,
    partition: PartitionNames = None,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Show a line for each partition that is not fresh.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --partitions: show fresh partitions too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the state of each stage, and the cost of model calls so far.

    fresh: a run would make the same. incomplete: fresh, but some questions have no answer or some files were
    not read. stale: the inputs have changed. missing: never made. blocked: inputs are missing. failed: the
    last attempt failed.
    """
    planner = open_planner()
    selected = planner.registry.select(stages or [], planner.tools.settings, partitions_of(scene, partition))
    found = [standing(planner, stage, name) for stage, names in selected for name in names]
    spend = spend_of(planner.tools.settings)
    if as_json:
        print_json(_document(planner, found, spend, partitions))
        return
    settings = planner.tools.settings
    typer.echo(f"{planner.tools.lake.url}, profile {settings.profile}")
    seen = [each for each in CONDITIONS if any(one.condition == each for one in found)]
    print_table(["stage", *seen, "rows", "USD"], _lines(found, seen, spend))
    typer.echo(_sum(found, spend))
    shown = [each for each in found if every or each.condition != "fresh"]
    if partitions and shown:
        print_table(
            ["stage", "partition", "condition", "rows", "reason"],
            [[each.stage, each.partition, each.condition, each.rows, each.reason] for each in shown],
        )
    for each in found if not partitions else ():
        if each.condition == "failed":
            typer.echo(f"{each.stage}[{each.partition}] failed: {each.reason}")


def standing(planner: Planner, stage: Stage, partition: str) -> Standing:
    """The state of a partition.

    A partition that cannot be planned is `stale` if its inputs are stale, and otherwise `failed`.
    """
    lake = planner.tools.lake
    failure = lake.read_failure(stage.name, partition)
    if lake.manifest(stage.name, partition) is None:  # planning would take long and change nothing here
        missing = planner.missing_input(stage, partition)
        if missing:
            return Standing(stage.name, partition, "blocked", f"{missing} is not made yet", None)
        condition, reason = ("failed", failure) if failure else ("missing", "never made")
        return Standing(stage.name, partition, condition, reason, None)
    try:
        state = planner.standing(stage, partition)
    except SafeVidError as error:
        return Standing(stage.name, partition, "failed", " ".join(str(error).split()), None)
    finally:
        planner.forget(stage, partition)
    rows = None if state.manifest is None else state.manifest.rows
    if failure and state.to_make:
        return Standing(stage.name, partition, "failed", failure, rows)
    return Standing(stage.name, partition, state.condition, state.reason, rows)


@dataclass(frozen=True)
class Paid:
    """Calls to models and their cost, in USD."""

    calls: int = 0
    cost_usd: float = 0.0


def spend_of(settings: Settings) -> dict[str, Paid]:
    """Stage -> the calls and cost in the ledger. Empty if there is no ledger yet."""
    if settings.models.ledger_url is None and not (settings.root / "ledger.sqlite").exists():
        return {}
    from contextlib import closing

    from safevid_core.models.bill import bill
    from safevid_core.models.ledger import Ledger

    with closing(Ledger(settings.ledger_url)) as ledger:
        rows = bill(ledger, by=("asset",)).select("asset", "calls", "cost_usd").rows()
    return {asset: Paid(calls, cost) for asset, calls, cost in rows}


def _lines(found: list[Standing], seen: list[str], spend: dict[str, Paid]) -> Iterator[list[Any]]:
    for name in dict.fromkeys(each.stage for each in found):
        some = [each for each in found if each.stage == name]
        counts = Counter(each.condition for each in some)
        paid = spend.get(name)
        usd = None if paid is None else f"{paid.cost_usd:.2f}"
        yield [name, *(counts[each] or None for each in seen), _rows(some), usd]


def _rows(some: list[Standing]) -> int:
    return sum(each.rows or 0 for each in some)


def _sum(found: list[Standing], spend: dict[str, Paid]) -> str:
    counts = Counter(each.condition for each in found)
    by_condition = ", ".join(f"{counts[each]} {each}" for each in CONDITIONS if counts[each])
    calls = sum(paid.calls for paid in spend.values())
    usd = sum(paid.cost_usd for paid in spend.values())
    return f"{len(found)} partitions: {by_condition or 'none'}. {calls:,} model calls, {usd:.2f} USD."


def _document(
    planner: Planner, found: list[Standing], spend: dict[str, Paid], partitions: bool
) -> dict[str, Any]:
    stages = []
    for name in dict.fromkeys(each.stage for each in found):
        some = [each for each in found if each.stage == name]
        counts = Counter(each.condition for each in some)
        paid = spend.get(name, Paid())
        stages.append(
            {
                "stage": name,
                "group": planner.registry[name].group,
                "partitions": len(some),
                **{each: counts[each] for each in CONDITIONS},
                "rows": _rows(some),
                "calls": paid.calls,
                "cost_usd": paid.cost_usd,
            }
        )
    document: dict[str, Any] = {
        "root": planner.tools.lake.url,
        "profile": planner.tools.settings.profile,
        "calls": sum(paid.calls for paid in spend.values()),
        "cost_usd": sum(paid.cost_usd for paid in spend.values()),
        "stages": stages,
    }
    if partitions:
        document["partitions"] = [vars(each) for each in found]
    return document
