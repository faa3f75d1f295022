"""`safevid diff`: what a release adds, drops and changes against another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from safevid_dagster.cli.opening import open_existing
from safevid_dagster.cli.printing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from safevid_core.datasets.release_diff import ReleaseDiff
    from safevid_core.datasets.release_folder import ReleaseRecord

Release = Annotated[
    str,
    typer.Argument(
        metavar="RELEASE", help="A version, the id of a release or its beginning, or the path of its folder."
    ),
]


def diff(
    before: Release,
    after: Release,
    most: Annotated[int, typer.Option("-n", min=0, help="Pairs of a reason at most; --json has all.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What the second release adds, drops and changes against the first, and why."""
    from safevid_core.datasets.release_diff import diff_releases

    _, lake = open_existing()
    found = diff_releases(lake, before, after)
    if as_json:
        print_json(found.as_dict())
        return
    typer.echo("\n".join(_head(found)))
    if found.reasons:
        pairs = found.rows
        print_table(
            ("change", "pairs", "reason", "such as"),
            (
                (
                    change,
                    f"{count:,}",
                    reason,
                    " ".join(pairs.filter(change=change, reason=reason)["pair_id"].head(most)),
                )
                for change, reason, count in found.reasons
            ),
        )


def _head(found: ReleaseDiff) -> Iterator[str]:
    counts = ", ".join(f"{number:,} {change}" for change, number in found.counts.items())
    yield f"{_name(found.before)} -> {_name(found.after)}: {counts}, {found.same:,} unchanged"
    for name, (old, new) in found.settings.items():
        yield f"  {name}: {old} -> {new}"


def _name(record: ReleaseRecord) -> str:
    return f"{record.version} ({record.release})" if record.version else record.release
