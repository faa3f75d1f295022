"""Build the checkpoint of the small profile."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from safevid_core.contracts.errors import SafeVidError
from safevid_core.small.builder import REDUCED, Plan, build


def main() -> int:
    """Build into the folder of the argument. Returns 1 after an error that the user can correct."""
    parser = argparse.ArgumentParser(prog="python -m safevid_core.small", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the checkpoint and its record, vision.json")
    parser.add_argument("--reduced", action="store_true", help="a build of about a minute, with poor vision")
    arguments = parser.parse_args()
    try:
        build(arguments.out, REDUCED if arguments.reduced else Plan(), partial(print, flush=True))
    except SafeVidError as error:
        print(f"safevid: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
