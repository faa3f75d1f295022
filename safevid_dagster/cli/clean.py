"""`safevid clean`: removes files that a lake does not need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safevid_dagster.cli.failures import BadRequest, confirm
from safevid_dagster.cli.printing import AsJson, Yes, print_json, print_table


def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Remove everything: tables, checkpoints, the ledger.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove caches, files of older generations, and scratch files of dead runs.

    Files outside the root are not touched. With --json and without --yes nothing is removed.
    """
    from safevid_core.settings import load_settings
    from safevid_core.storage.lake import Lake
    from safevid_dagster.cleaning import all_of, removable_of, remove

    settings = load_settings()
    root = settings.root.absolute()
    if not root.is_dir():
        raise BadRequest(f"{root} does not exist; there is nothing to clean")
    found = all_of(root) if everything else removable_of(Lake(root, settings.profile))
    refuse_while_runs_work(root)
    size = sum(each.size for each in found)
    kinds = [{"what": each.what, "paths": len(each.paths), "bytes": each.size} for each in found]
    if as_json:
        if yes:
            remove(root, found)
        print_json({"root": str(root), "removed": yes, "bytes": size, "kinds": kinds})
        return
    if not found:
        typer.echo(f"{root} holds nothing to remove.")
        return
    print_table(["what", "files or folders", "MB"], [[e["what"], e["paths"], _mb(e["bytes"])] for e in kinds])
    if not yes:
        question = f"Remove all of this from {root}?"
        if everything:
            question = (
                f"Remove all tables, checkpoints and paid answers in {root}? They cannot be brought back"
            )
        confirm(question, "nothing removed; --yes removes it without asking")
    remove(root, found)
    typer.echo(f"{_mb(size)} MB removed from {root}.")
    if everything and not any(root.iterdir()):
        root.rmdir()


def _mb(size: object) -> str:
    return f"{int(str(size)) / 1e6:,.1f}"


def refuse_while_runs_work(root: Path) -> None:
    """Raise an error if a run is under way.

    Raises:
        BadRequest: The message names the run.
    """
    if not (root / "dagster" / "dagster.yaml").exists():
        return
    import os

    os.environ["DAGSTER_HOME"] = str(root / "dagster")
    from safevid_dagster.liveness import active_runs
    from safevid_dagster.running import opened_instance

    with opened_instance(lambda line: typer.echo(line, err=True)) as instance:
        for line in active_runs(instance):
            raise BadRequest(f"{line}; wait until it has ended, or end it in `safevid ui`")
