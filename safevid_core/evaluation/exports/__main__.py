"""`python -m safevid_core.evaluation.exports --root .safevid --to FOLDER`: runs for other tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from safevid_core.evaluation.exports import FORMATS, export_runs
from safevid_core.evaluation.lakes import open_lake
from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import LakeError
from safevid_core.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Export and print the paths; 1 with one line on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m safevid_core.evaluation.exports", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(".safevid"), help="the lake's folder")
    parser.add_argument("--to", type=Path, required=True, help="folder to write below")
    parser.add_argument("--format", choices=FORMATS, default="inspect")
    parser.add_argument("--system", action="append", help="may be given several times; default all")
    parser.add_argument("--benchmark", action="append", help="may be given several times; default all")
    parser.add_argument("--settings", type=Path, help="YAML of the run; default SAFEVID_SETTINGS")
    given = parser.parse_args(arguments)
    try:
        settings, lake = open_lake(given.root, given.settings)
        paths = export_runs(settings, lake, given.to, given.system, given.benchmark, given.format)
    except (EvaluationError, LakeError, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
