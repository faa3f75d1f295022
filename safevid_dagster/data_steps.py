"""The last part of `safevid demo`: the release is exported, one pair is traced, and one clip is withdrawn.

The withdrawal runs on a copy of the lake in a temporary folder. The demo's own lake keeps the clip, so that
its figures stay and a second demo finds nothing to make.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.exports.export import ExportError

if TYPE_CHECKING:
    from safevid_core.datasets.trace import Trace
    from safevid_core.settings import Settings
    from safevid_core.stages.stage import Tools

EXPORTS_FOLDER = "exports"
# A rehearsal needs none of these. The frames and films of a copy would cost more than the withdrawal.
_NOT_COPIED = ("dagster", "locks", EXPORTS_FOLDER)
_SUMMARY = "data_steps.txt"
_REASON = "rehearsal of a withdrawal at the end of the demo"


def data_steps(tools: Tools, *, again: bool) -> Iterator[str]:
    """Export the latest release, trace its first pair, and withdraw the pair's clip from a copy of the lake.

    Args:
        again: Whether anything was made since the last demo. If not, the summary of that one is printed.

    Yields:
        What was done, in lines for people.

    Raises:
        SafeVidError: If a step fails for another reason than that a format does not suit the clips.
    """
    lake = tools.lake
    pairs = lake.scan(RELEASE).select("pair_id", "clip_id", "release").sort("pair_id").collect()
    if pairs.is_empty():
        yield "There is no released pair: nothing to export, to trace or to withdraw."
        return
    pair, clip, release = pairs.row(0)
    folder = lake.local_path(EXPORTS_FOLDER)
    summary = folder / f"pairs-{release}" / _SUMMARY
    if not again and summary.is_file():
        yield from summary.read_text(encoding="utf-8").splitlines()
        return
    started, lines = time.monotonic(), []
    for line in _steps(tools, folder, release, pairs.height, pair, clip):
        lines.append(line)
        yield line
    summary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    yield f"  These steps took {time.monotonic() - started:.0f} s."


def _steps(tools: Tools, folder: Path, release: str, pairs: int, pair: str, clip: str) -> Iterator[str]:
    yield f"Release {release}, {pairs:,} pairs:"
    yield from (f"  {line}" for line in write_exports(tools, folder, release))
    yield f"Pair {pair}:"
    yield from (f"  {line}" for line in _traced(tools, pair))
    yield f"Clip {clip}, withdrawn from a copy of the lake (this lake keeps it):"
    with copied_lake(tools.settings) as copy:
        yield from (f"  {line}" for line in _withdrawn(tools, copy, clip))


def write_exports(tools: Tools, folder: Path, release: str) -> Iterator[str]:
    """Write the release in every format but WebDataset, and SafeVidBench-Base for lmms-eval.

    A folder that exists is left as it is: it is complete, and a release never changes.

    Yields:
        The folders, and why a format does not suit the clips.
    """
    from safevid_core.benchmarks.exports import export_benchmark
    from safevid_core.contracts.tables import SAFEVIDBENCH_BASE
    from safevid_core.datasets.exports import EXPORTS, export_pairs

    lake, written = tools.lake, []
    below = folder / f"pairs-{release}"
    for name, export in EXPORTS.items():
        if name == "webdataset":  # eight times the bytes of all others together
            continue
        frames = tools.settings.alignment.base.frames if export.media == "frames" else None
        try:
            if not (below / name).exists():
                export_pairs(lake, name, below / name, release, frames=frames)
            written.append(name)
        except ExportError as error:
            yield f"not exported as {name}: {' '.join(str(error).split())}"
    yield f"exported to {below}: {', '.join(written)}"
    manifest = lake.manifest(SAFEVIDBENCH_BASE.name)
    if manifest is None or not manifest.rows:
        return
    to = folder / f"{SAFEVIDBENCH_BASE.name}-{manifest.info['release']}" / "lmms-eval"
    try:
        if not to.exists():
            export_benchmark(lake, "lmms-eval", to)
        yield f"SafeVidBench-Base exported to {to}"
    except (BenchmarkError, ExportError) as error:
        yield f"SafeVidBench-Base not exported: {' '.join(str(error).split())}"


def _traced(tools: Tools, pair: str) -> Iterator[str]:
    from safevid_core.datasets.trace import trace
    from safevid_core.models.ledger import Ledger

    with closing(Ledger(tools.settings.ledger_url)) as ledger:
        found = trace(tools.registry, tools.lake, ledger, pair)
    yield f"came from {_counts(found, up=True)}"
    yield f"led to {_counts(found, up=False)}"
    yield f"model calls: {len(found.call_keys):,}; files about its clip: {len(found.files):,}"
    yield f"`safevid trace {pair}` shows every id"


def _counts(found: Trace, *, up: bool) -> str:
    steps = found.came_from if up else found.made_from_it
    counts = [f"{len(step.ids):,} {step.stage}" for step in steps if not step.whole]
    return ", ".join(counts) or "nothing"


def _withdrawn(tools: Tools, copy: Tools, clip: str) -> Iterator[str]:
    from safevid_core.datasets.marks import read_marks
    from safevid_core.datasets.withdraw import withdraw

    report = withdraw(copy, clip, _REASON)
    yield from _lines_of(report)
    marks = read_marks(copy.registry, copy.lake, copy.settings)
    yield f"{len(marks.seals):,} partitions would be marked as resting on it until they are made again"
    yield f"`safevid withdraw {clip} --reason ...` does this to {tools.lake.url}"


def _lines_of(report: Mapping[str, Any]) -> Iterator[str]:
    rows, files = report["rows_removed"], report["files_removed"]
    counts = ", ".join(f"{count:,} {what}" for what, count in files.items())
    yield f"removed: {sum(rows.values()):,} rows of {len(rows)} tables; files: {counts or 'none'}"
    yield f"model calls without text: {report['calls_blanked']:,}; their cost stays on the bill"
    yield f"sealed: {', '.join(report['releases']) or 'nothing'}"
    yield f"checkpoints that were trained on it: {len(report['checkpoints'])}"
    yield from (f"cannot be undone: {line}" for line in report["cannot_be_undone"])


@contextmanager
def copied_lake(settings: Settings) -> Iterator[Tools]:
    """A copy of the lake in a temporary folder below the root, which is removed when the block ends.

    Files are hard links where the disk allows it: SafeVid replaces files and never writes into them. SQLite
    databases are written in place, so they are copied. A ledger that is not in the root is not used: the copy
    has an empty one.
    """
    from safevid_core.models.llm import Gateway
    from safevid_core.pipeline import build_registry
    from safevid_core.stages.stage import Tools
    from safevid_core.storage.opening import lake_of

    root = settings.root.absolute()
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=root) as scratch, ExitStack() as opened:
        place = Path(scratch) / "safevid"
        _copy(root, place)
        models = settings.models.model_copy(update={"ledger_url": None})
        mine = settings.model_copy(update={"root": place, "models": models})

        def open_gateway() -> Gateway:
            return opened.enter_context(closing(Gateway(mine)))

        yield Tools(mine, lake_of(mine), build_registry(mine), open_gateway)


def _copy(root: Path, to: Path) -> None:
    def left_out(folder: str, names: list[str]) -> set[str]:
        top = _NOT_COPIED if Path(folder) == root else ()
        return {name for name in names if name in top or name.endswith(("-wal", "-shm"))} | {
            name for name in names if name.startswith(".rehearsal-")
        }

    shutil.copytree(root, to, ignore=left_out, copy_function=_link_or_copy, symlinks=True)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".sqlite"):
        with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy)
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
