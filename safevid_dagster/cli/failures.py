"""Turns errors of a command into one line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from safevid_core.contracts.errors import SafeVidError
from safevid_dagster.cli import INTERRUPTED, LINE
from safevid_dagster.interrupts import was_interrupted

FAILED, BAD_REQUEST = 1, 2
COMMAND = "safevid"

# Some releases of typer raise the errors of click, others those of a copy of click.
_UsageError: Any = typer.BadParameter.__base__
_CommandError: Any = _UsageError.__base__


class BadRequest(SafeVidError, ValueError):
    """The command cannot do what was requested. The message says why and what to do."""


class Group(TyperGroup):
    """A group of commands. An error of a command is one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SafeVidError as error:
            if was_interrupted():  # an error that an interrupt was taken for
                raise typer.Exit(INTERRUPTED) from None
            say_error(error)
            raise typer.Exit(BAD_REQUEST) from None
        except BrokenPipeError:  # a subclass of OSError that is not a failure: `safevid show ... | head`
            raise
        except OSError as error:
            say_error(error)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command; an error of usage, such as an unknown option, is one line and not a box."""
        given = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            return super(Group, self).main(
                given, COMMAND, complete_var, standalone_mode=False,
                windows_expand_args=windows_expand_args, **extra,
            )  # fmt: skip

        if not standalone_mode:
            return run()
        try:
            code = run()
        except _CommandError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(error.format_message(), err=True)
            else:
                say_error(_line_of(error, self._path(error, given)))
            sys.exit(error.exit_code)
        except typer.Abort:
            say_error("stopped; nothing was answered")
            sys.exit(FAILED)
        if code == INTERRUPTED:
            typer.echo(LINE, err=True)
        sys.exit(code if isinstance(code, int) else 0)

    def _path(self, error: Any, given: Sequence[str]) -> str:
        """The command that an error is about, such as `safevid review export`."""
        if getattr(error, "ctx", None) is not None:
            return str(error.ctx.command_path)
        return " ".join([COMMAND, *[each for each in given if each in self.commands][:1]])


def _line_of(error: Any, command: str) -> str:
    """An error of usage in the words of this command: what is wrong, and what to do."""
    param = getattr(error, "param", None)
    name = "" if param is None else param.get_error_hint().strip("'")
    message, _, guess = error.message.strip().rstrip(".?").partition(". Did you mean ")
    message = message[:1].lower() + message[1:] + (f" (did you mean {guess}?)" if guess else "")
    if hasattr(error, "possibilities"):
        near = sorted(error.possibilities or ())
        what = f"no option {error.option_name!r}" + (f" (did you mean {', '.join(near)}?)" if near else "")
    elif hasattr(error, "param_type"):
        what = f"{param.param_type_name if param is not None else 'argument'} {name} is missing"
    elif hasattr(error, "option_name"):
        what = f"option {error.option_name} needs a value"
    else:
        what = f"{name}: {message}" if name else message
    place = command.removeprefix(COMMAND).strip()
    return f"{place}: {what}; see `{command} --help`" if place else f"{what}; see `{command} --help`"


def say_error(error: Exception | str) -> None:
    """Print an error as one line on stderr."""
    typer.echo(f"{COMMAND}: {' '.join(str(error).split())}", err=True)


def confirm(question: str, refused: str) -> None:
    """Ask for consent on the terminal.

    Args:
        refused: The error of a command without consent.

    Raises:
        typer.Exit: Without consent.
    """
    try:
        typer.confirm(question, abort=True)
    except typer.Abort:
        say_error(refused)
        raise typer.Exit(FAILED) from None
