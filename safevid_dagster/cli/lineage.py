"""`safevid trace` and `safevid withdraw`: what a thing came from and led to, and removing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safevid_dagster.cli.failures import BadRequest, confirm
from safevid_dagster.cli.opening import open_planner
from safevid_dagster.cli.printing import AsJson, Yes, print_result

if TYPE_CHECKING:
    from safevid_core.datasets.trace import Step, Trace


def trace(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A clip or its file's name; a source video, query, pair, item, response, "
            "release (or its version), checkpoint or request key.",
        ),
    ],
    most: Annotated[int, typer.Option("-n", min=1, help="Ids of a stage at most; --json has all.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What a thing came from, and everything made from it."""
    from contextlib import closing

    from safevid_core.datasets.trace import trace as trace_of
    from safevid_core.models.ledger import Ledger

    tools = open_planner().tools
    with closing(Ledger(tools.settings.ledger_url)) as ledger:
        found = trace_of(tools.registry, tools.lake, ledger, thing)
    print_result(found.as_dict(), _tree(found, most), as_json=as_json)


def _tree(found: Trace, most: int) -> Iterator[str]:
    yield f"{found.kind} {found.id}"
    yield from (f"  {_line(step, most)}" for step in found.itself)
    if found.came_from:
        yield "came from"
        yield from _branches(
            list(reversed(found.came_from)), [*found.itself, *found.came_from], most, up=True
        )
    if found.made_from_it:
        yield "made from it"
        yield from _branches(found.made_from_it, found.made_from_it, most, up=False)
    if found.releases:
        yield "release folders"
        yield from (
            f"  {each.address}: {each.pairs.height:,} pairs, release {', '.join(each.releases)}"
            for each in found.releases
        )
    if found.call_keys:
        yield f"model calls: {len(found.call_keys):,}"
        nearest = "" if len(found.call_keys) <= len(found.calls) else f"the nearest {len(found.calls):,}: "
        usd = sum(call.cost_usd for call in found.calls)
        assets = sorted({call.asset for call in found.calls})
        counts = (f"{asset} {sum(call.asset == asset for call in found.calls):,}" for asset in assets)
        yield f"  {nearest}{usd:.4f} USD; {', '.join(counts) or 'none is in the ledger'}"
    if found.files:
        yield "files"
        yield from (f"  {file.what}: {file.path}" for file in found.files)


def _branches(steps: Sequence[Step], known: Sequence[Step], most: int, *, up: bool) -> Iterator[str]:
    """Each stage below the stage that is nearest to it on the way to the thing."""
    below: dict[str | None, list[Step]] = {}
    names = {step.stage for step in steps}
    for step in steps:
        nearest = (
            [other.stage for other in known if step.stage in other.after]
            if up
            else [name for name in step.after if name in names]
        )
        nearest = [name for name in nearest if name in names]
        parent = nearest[-1] if nearest else None
        below.setdefault(parent, []).append(step)
    yield from _below(None, below, most, 1)


def _below(parent: str | None, below: dict[str | None, list[Step]], most: int, depth: int) -> Iterator[str]:
    for step in below.get(parent, ()):
        yield f"{'  ' * depth}{_line(step, most)}"
        yield from _below(step.stage, below, most, depth + 1)


def _line(step: Step, most: int) -> str:
    if step.whole:
        return f"{step.stage}: whole partitions"
    ids = step.ids
    return f"{step.stage}: {len(ids):,}  {' '.join(ids[:most])}{' ...' if len(ids) > most else ''}"


def withdraw(
    thing: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="A clip or its file's name, a source video, or the hash of a file."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, in one line; shown wherever the clip is refused.")] = "",
    purge: Annotated[
        bool, typer.Option("--purge", help="Replace releases by successors, and destroy the old ones.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--listed", help="Every id of the setting corpus.withdrawn.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove what is about a clip, and refuse it from now on.

    Without an ID, withdrawals that were killed are finished.
    """
    from safevid_core.datasets import withdraw as withdrawals
    from safevid_dagster.cli.clean import refuse_while_runs_work

    tools = open_planner(only_reads=False).tools
    if thing is not None and listed:
        raise BadRequest("an ID and --listed exclude each other; give one of them")
    wanted = [thing] if thing is not None else []
    if listed:
        wanted = withdrawals.not_withdrawn(tools, withdrawals.listed_ids(tools.settings))
        reason = reason or "listed in corpus.withdrawn"
    if wanted and not reason.strip():
        raise BadRequest("a withdrawal needs its reason; give it with --reason '...'")
    for each in wanted:
        withdrawals.known(tools, each, unknown=listed)  # before anything is asked or done
    refuse_while_runs_work(tools.settings.root.absolute())
    if wanted and not yes and not as_json:
        _confirm(wanted, purge=purge)
    done = withdrawals.finish_all(tools)
    for each in wanted:
        done.append(withdrawals.withdraw(tools, each, reason, purge=purge, unknown=listed))
    reports = list({report["withdrawal"]: report for report in done}.values())
    lines = [line for report in reports for line in _summary(report)]
    nothing = "Nothing to withdraw, and no withdrawal is unfinished."
    print_result({"withdrawals": reports}, lines or [nothing], as_json=as_json)


def _confirm(wanted: Sequence[str], *, purge: bool) -> None:
    question = f"Withdraw {', '.join(wanted)}? Its media, rows and texts cannot be brought back"
    if purge:
        question = f"Withdraw {', '.join(wanted)}, and destroy the releases that hold it?"
    confirm(question, "nothing withdrawn; --yes withdraws without asking")


def _summary(report: Mapping[str, Any]) -> Iterator[str]:
    clips = ", ".join(report["clips"]) or f"{report['asked']}, not in this lake yet"
    yield f"withdrawn: {clips} ({report['date'][:10]}: {report['reason']})"
    rows = report["rows_removed"]
    if rows:
        counts = ", ".join(f"{count:,} {asset}" for asset, count in rows.items())
        yield f"rows removed: {sum(rows.values()):,} ({counts})"
    if report["calls_blanked"]:
        usd = report["calls_cost_usd"]
        yield f"model calls without text: {report['calls_blanked']:,}; their {usd:.4f} USD stay on the bill"
    if report["files_removed"]:
        yield "files removed: " + ", ".join(
            f"{count} {what}" for what, count in report["files_removed"].items()
        )
    for name in report["releases"]:
        yield f"sealed: {name}"
    for each in report["purged"]:
        destroyed, successor = each["address"] or each["partition"], each["successor"] or "nothing"
        yield f"destroyed: {destroyed}, succeeded by {successor}"
    if report["checkpoints"]:
        resting = len(report["resting_on_them"])
        yield f"marked: {len(report['checkpoints'])} checkpoints, {resting} partitions made with them"
    for line in report["cannot_be_undone"]:
        yield f"cannot be undone: {line}"
