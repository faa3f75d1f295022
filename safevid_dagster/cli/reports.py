"""`safevid compare`: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from safevid_dagster.cli.opening import open_existing
from safevid_dagster.cli.printing import AsJson, print_json


def compare(
    ours: Annotated[Path, typer.Argument(help="Root of the first run.")],
    other: Annotated[Path, typer.Argument(help="Root of the run that the first is compared with.")],
    other_settings: Annotated[
        Path | None, typer.Option(help="YAML of the other run. Defaults to the YAML of the first.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder for comparison.md and comparison.json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two runs, and the change of each figure."""
    from safevid_core.reporting.comparison import LakeRun, compare_runs
    from safevid_core.reporting.comparison import as_json as as_document
    from safevid_core.reporting.comparison.texts import as_markdown
    from safevid_core.storage.lake import write_atomically

    found = compare_runs(LakeRun(*open_existing(ours)), LakeRun(*open_existing(other, other_settings)))
    if to is not None:
        texts = {
            "comparison.md": as_markdown(found),
            "comparison.json": json.dumps(as_document(found), indent=1),
        }
        for name, text in texts.items():
            write_atomically(to / name, text.encode())
    if as_json:
        print_json(as_document(found))
    elif to is not None:
        typer.echo("\n".join(str(to / name) for name in texts))
    else:
        typer.echo(as_markdown(found), nl=False)
