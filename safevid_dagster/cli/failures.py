"""What the command prints and returns if a person's request cannot be met: one line, and an exit code."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from safevid_core.contracts.errors import SafeVidError

FAILED, BAD_REQUEST, INTERRUPTED = 1, 2, 130


class BadRequest(SafeVidError, ValueError):
    """A request that the command cannot meet."""


class Group(TyperGroup):
    """Commands whose errors are one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SafeVidError as error:
            say_error(error)
            raise typer.Exit(BAD_REQUEST) from None
        except BrokenPipeError:  # `safevid show ... | head`; a subclass of OSError that is no failure
            raise
        except OSError as error:
            say_error(error)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            typer.echo("safevid: interrupted; what was finished is kept", err=True)
            raise typer.Exit(INTERRUPTED) from None


def say_error(error: Exception | str) -> None:
    """Print an error as one line on stderr."""
    typer.echo(f"safevid: {' '.join(str(error).split())}", err=True)
