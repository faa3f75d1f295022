"""`safevid demo` and `safevid ui`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from safevid_dagster.cli.failures import FAILED


def demo(
    profile: Annotated[
        str | None, typer.Option(help="The profile, such as `small`. Defaults to SAFEVID_PROFILE or pocket.")
    ] = None,
) -> None:
    """Make every stage of the settings' flow. The default profile is pocket."""
    if profile is not None:
        # Each stage runs in a process that reads the settings again.
        os.environ["SAFEVID_PROFILE"] = profile
    from safevid_core.settings import load_settings
    from safevid_dagster.demo import demo as make_all
    from safevid_dagster.home import prepare_home

    settings = load_settings()
    prepare_home(settings)
    if not make_all(settings):
        raise typer.Exit(FAILED)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web server.")] = 3000,
    host: Annotated[str, typer.Option(help="Address that the web server binds to.")] = "127.0.0.1",
) -> None:
    """Serve Dagster's UI and its daemon."""
    from safevid_core.settings import load_settings
    from safevid_dagster.home import prepare_home
    from safevid_dagster.serving import serve

    prepare_home(load_settings())
    serve(host, port)
