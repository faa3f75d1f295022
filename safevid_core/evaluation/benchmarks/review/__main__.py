"""`python -m safevid_core.evaluation.benchmarks.review export|import --root .safevid ...`: people refine it.

`export --to FOLDER` writes the sheet of SafeVidBench-Challenge and a page with frames; `import SHEET` makes a
new release of the filled sheet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from safevid_core.evaluation.benchmarks.review.edits import Imported, import_review
from safevid_core.evaluation.benchmarks.review.export import export_review
from safevid_core.evaluation.benchmarks.safevidbench_challenge import NAME
from safevid_core.evaluation.lakes import open_lake
from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import LakeError
from safevid_core.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Export or import; 1 with one line on each thing that is wrong."""
    given = _parser().parse_args(arguments)
    try:
        settings, lake = open_lake(given.root, given.settings)
        if given.command == "export":
            print("\n".join(str(path) for path in export_review(lake, given.to, given.release)))
            return 0
        imported = import_review(settings, lake, given.sheet, given.release)
    except (EvaluationError, LakeError, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in imported.problems:
        print(f"error: {problem}", file=sys.stderr)
    print(_told(imported))
    return 1 if imported.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m safevid_core.evaluation.benchmarks.review", description=__doc__
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--root", type=Path, default=Path(".safevid"), help="the lake's folder")
    shared.add_argument("--release", help="the release that is reviewed; default the one in use")
    shared.add_argument("--settings", type=Path, help="YAML of the run; default SAFEVID_SETTINGS")
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("export", parents=[shared], help="write the sheet and the page")
    out.add_argument("--to", type=Path, required=True, help="folder to write below")
    back = commands.add_parser("import", parents=[shared], help="make a release of a filled sheet")
    back.add_argument("sheet", type=Path, help="the CSV, filled in")
    return parser


def _told(imported: Imported) -> str:
    counts = imported.counts
    done = (
        f"{counts['keep']} kept, {counts['edit']} edited, {counts['drop']} dropped, {counts['open']} rows "
        f"without a verdict"
    )
    if imported.release is None:
        return f"release {imported.parent} stays: {done}"
    used = "now in use" if imported.in_use else f"to use it set evaluation.releases.{NAME} to it"
    return f"release {imported.release} made of {imported.parent}: {done}; {used}"


if __name__ == "__main__":
    sys.exit(main())
