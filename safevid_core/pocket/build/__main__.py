"""Build the pocket checkpoints."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from safevid_core.pocket.build.architectures import FAMILIES
from safevid_core.pocket.build.builder import build
from safevid_core.pocket.build.embedder import NAME as EMBEDDER


def main() -> None:
    """Build the checkpoints named by the arguments."""
    parser = argparse.ArgumentParser(prog="python -m safevid_core.pocket.build", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the checkpoints")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*FAMILIES, EMBEDDER),
        default=(*FAMILIES, EMBEDDER),
        help="build these only; two calls with different ones may run at once",
    )
    arguments = parser.parse_args()
    build(arguments.out, parts=tuple(arguments.only), report=partial(print, flush=True))


if __name__ == "__main__":
    main()
