"""The entry point of the command `safevid`.

Its commands are in `commands.py`, which :func:`main` imports: Ctrl-C while they load is one line too.
"""

from __future__ import annotations

import os
import signal
import sys

# litellm fetches its price list and huggingface_hub sends usage figures unless told otherwise.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_DISABLE_TELEMETRY": "1"}
INTERRUPTED = 130
LINE = "safevid: interrupted; finished work is kept"


def main() -> None:
    """Run the command and end the process with its exit code."""
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    # The settings may name modules of the working folder, which an installed command does not search.
    sys.path.append(os.getcwd())
    try:
        code = _run()
    except KeyboardInterrupt:
        print(LINE, file=sys.stderr, flush=True)
        code = INTERRUPTED
    # A second Ctrl-C while Python ends its threads ends the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _run() -> int | str | None:
    """The exit code of the command.

    Raises:
        KeyboardInterrupt: If Ctrl-C came, also if a library lost it.
    """
    from safevid_dagster.interrupts import noted_interrupts, was_interrupted

    with noted_interrupts():
        from safevid_dagster.cli.commands import app

        try:
            app()
        except SystemExit as ended:
            if was_interrupted() and ended.code != INTERRUPTED:
                raise KeyboardInterrupt from None
            return ended.code
        except Exception:  # Python makes a RuntimeError of an interrupt while it makes a class
            if was_interrupted():
                raise KeyboardInterrupt from None
            raise
    return 0
