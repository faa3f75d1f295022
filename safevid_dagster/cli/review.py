"""`safevid review`: exports sheets in which people refine SafeVidBench-Challenge and label pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safevid_dagster.cli.failures import FAILED, say_error
from safevid_dagster.cli.opening import FolderBelow, open_existing
from safevid_dagster.cli.printing import AsJson, print_result

if TYPE_CHECKING:
    from safevid_core.review.challenge.edits import Imported

app = typer.Typer(help="Have people refine SafeVidBench-Challenge and label pairs.", no_args_is_help=True)
Release = Annotated[
    str | None, typer.Option(help="The release that is reviewed. Defaults to the one in use.")
]


@app.command("export")
def export_sheet(
    to: FolderBelow,
    release: Release = None,
    as_json: AsJson = False,
) -> None:
    """Write the sheet to fill in, and a page with frames."""
    from safevid_core.review.challenge.export import export_review

    _, lake = open_existing()
    paths = [str(path) for path in export_review(lake, to, release)]
    print_result({"files": paths}, paths, as_json=as_json)


@app.command("import")
def import_sheet(
    sheet: Annotated[Path, typer.Argument(help="The CSV, filled in.")],
    release: Release = None,
    as_json: AsJson = False,
) -> None:
    """Make a release from a filled sheet."""
    from safevid_core.review.challenge.edits import import_review

    settings, lake = open_existing()
    imported = import_review(settings, lake, sheet, release)
    print_result(vars(imported), [_summary(imported)], as_json=as_json)
    for problem in imported.problems:
        say_error(problem)
    if imported.problems:
        raise typer.Exit(FAILED)


@app.command("pairs")
def export_pairs(
    to: FolderBelow,
    size: Annotated[int, typer.Option(min=1, help="Number of pairs in the sheet.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Write a sheet with a random sample of pairs. People label them in the columns `sound` and `swapped`.

    Set `preferences.labels` to the filled sheet. The stage `pair_validation` then counts the labels.
    """
    from safevid_core.review import pairs

    _, lake = open_existing()
    path = str(pairs.export_pairs(lake, to, size))
    print_result({"files": [path]}, [path], as_json=as_json)


def _summary(imported: Imported) -> str:
    from safevid_core.benchmarks.safevidbench_challenge import NAME

    counts = imported.counts
    done = (
        f"{counts['keep']} kept, {counts['edit']} edited, {counts['drop']} dropped, {counts['open']} rows "
        f"without a verdict"
    )
    if imported.release is None:
        return f"release {imported.parent} stays: {done}"
    used = "now in use" if imported.in_use else f"to use it set evaluation.releases.{NAME} to it"
    return f"release {imported.release} made from {imported.parent}: {done}; {used}"
