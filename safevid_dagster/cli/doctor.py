"""`safevid doctor`: checks whether this machine and these settings can run the method."""

from __future__ import annotations

import typer

from safevid_dagster.cli.failures import FAILED
from safevid_dagster.cli.printing import AsJson, is_terminal, print_json


def doctor(as_json: AsJson = False) -> None:
    """Check Python, disk, decoders, settings, lake, keys, models, servers and GPU, and say what to do."""
    from safevid_dagster.checkup import check_up

    found = []
    for each in check_up():
        found.append(each)
        if not as_json:
            advice = f"; {each.advice}" if each.advice else ""
            colours = {"ok": "green", "warn": "yellow", "fail": "red"}
            level = (
                typer.style(f"{each.level:4}", fg=colours[each.level]) if is_terminal() else f"{each.level:4}"
            )
            typer.echo(f"{level}  {each.subject}: {each.text}{advice}")
    failed = any(each.level == "fail" for each in found)
    if as_json:
        print_json({"ok": not failed, "checks": [vars(each) for each in found]})
    if failed:
        raise typer.Exit(FAILED)
