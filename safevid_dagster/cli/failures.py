"""Turns errors of a command into one line on stderr and an exit code."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from safevid_core.contracts.errors import SafeVidError

FAILED, BAD_REQUEST, INTERRUPTED = 1, 2, 130


class BadRequest(SafeVidError, ValueError):
    """The command cannot do what was requested. The message says why and what to do."""


class Group(TyperGroup):
    """A group of commands. An error of a command is one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SafeVidError as error:
            say_error(error)
            raise typer.Exit(BAD_REQUEST) from None
        except BrokenPipeError:  # a subclass of OSError that is not a failure: `safevid show ... | head`
            raise
        except OSError as error:
            say_error(error)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            typer.echo("safevid: interrupted; finished work is kept", err=True)
            raise typer.Exit(INTERRUPTED) from None


def say_error(error: Exception | str) -> None:
    """Print an error as one line on stderr."""
    typer.echo(f"safevid: {' '.join(str(error).split())}", err=True)
