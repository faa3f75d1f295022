"""The command `safevid`, called in this process or as one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

PROJECT = Path(__file__).parents[1]
_CHOSEN = ("SAFEVID_ROOT", "SAFEVID_PROFILE", "SAFEVID_SETTINGS", "DAGSTER_HOME")


def safevid(*arguments: str | Path, root: Path | None = None, said: str | None = None) -> Result:
    """What the command prints and returns, called in this process.

    Args:
        root: Of the lake. Defaults to that of the environment.
        said: What a person types.
    """
    from safevid_dagster.cli.commands import app

    given = [] if root is None else ["--root", str(root)]
    # The command sets these for its process; the runner brings the values of before back.
    environment = {name: os.environ.get(name) for name in _CHOSEN}
    return CliRunner().invoke(
        app, [*given, *map(str, arguments)], input=said, env=environment, catch_exceptions=False
    )


def safevid_process(
    *arguments: str | Path, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, as a user calls it."""
    return subprocess.run(
        command_line(*arguments),
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def command_line(*arguments: str | Path) -> list[str]:
    """The command in a process of its own."""
    return [sys.executable, "-m", "safevid_dagster.cli", *map(str, arguments)]


def takes_interrupts() -> None:
    """Let a process take SIGINT. A shell ignores it in its background jobs, such as a run of tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def all_gone(group: int, within_s: float = 20.0) -> bool:
    """Whether every process of a group ends soon: the tracker of multiprocessing does so after its parent."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def is_one_line(result: Result, code: int, says: str) -> bool:
    """Whether the command ended with this code, one line on stderr that says this, and nothing on stdout."""
    return (
        result.exit_code == code
        and result.stdout == ""
        and result.stderr.startswith("safevid: ")
        and result.stderr.count("\n") == 1
        and says in result.stderr
    )
