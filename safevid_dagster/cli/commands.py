"""The commands of `safevid`.

Exit codes: 0 for success, 1 if something failed, 2 for a bad request, such as an unknown stage or a setting
that cannot be used, and 130 after Ctrl-C. Commands import what they need inside their functions, so that
`safevid --help` loads typer alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from safevid_dagster.cli import (
    clean,
    doctor,
    exports,
    launching,
    lineage,
    money,
    releases,
    reports,
    review,
    run,
    show,
    status,
)
from safevid_dagster.cli.failures import Group

app = typer.Typer(
    name="safevid",
    help="Safety alignment of video language models: the SafeVid method as a Dagster project.",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def choose_settings(
    root: Annotated[
        Path | None, typer.Option(help="Folder of the lake. Defaults to SAFEVID_ROOT, or .safevid.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Settings profile. Defaults to SAFEVID_PROFILE, or pocket.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML with the keys to change. Defaults to SAFEVID_SETTINGS.")
    ] = None,
) -> None:
    # Dagster and the processes of a pool read the settings from the environment too.
    chosen = {"SAFEVID_ROOT": root, "SAFEVID_PROFILE": profile, "SAFEVID_SETTINGS": settings}
    os.environ.update({name: str(value) for name, value in chosen.items() if value is not None})


for command in (
    launching.demo, launching.ui, run.run, status.status, show.show, money.estimate, money.bill,
    doctor.doctor, reports.compare, lineage.trace, lineage.withdraw, releases.diff, clean.clean,
):  # fmt: skip
    app.command()(command)
app.add_typer(exports.app, name="export")
app.add_typer(review.app, name="review")
