"""`python -m safevid_core.evaluation.comparison --root A --against B`: what changed, and what moved."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from safevid_core.evaluation.comparison import Run, as_json, as_markdown, compare_runs
from safevid_core.evaluation.lakes import open_lake
from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import LakeError, write_atomically
from safevid_core.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print, or write below a folder; 1 with one line on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m safevid_core.evaluation.comparison", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(".safevid"), help="the lake's folder of our run")
    parser.add_argument("--against", type=Path, required=True, help="the lake's folder of the other run")
    parser.add_argument("--settings", type=Path, help="YAML of our run; default SAFEVID_SETTINGS")
    parser.add_argument("--against-settings", type=Path, help="YAML of the other run; default that of ours")
    parser.add_argument(
        "--to", type=Path, help="folder for comparison.md and .json; default prints the former"
    )
    given = parser.parse_args(arguments)
    try:
        ours = Run(*open_lake(given.root, given.settings))
        found = compare_runs(ours, Run(*open_lake(given.against, given.against_settings or given.settings)))
        if given.to is None:
            print(as_markdown(found), end="")
            return 0
        texts = {"comparison.md": as_markdown(found), "comparison.json": json.dumps(as_json(found), indent=1)}
        for name, text in texts.items():
            write_atomically(given.to / name, text.encode())
            print(given.to / name)
    except (EvaluationError, LakeError, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
