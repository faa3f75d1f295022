"""Benchmarks that others made: found among the files here, read from their layout, committed as items.

A release is known by the hash of its items, not by where the files lie. Fewer or more rows than published
are told in the record; they do not stop the run, since small parts are in use everywhere.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from safevid_core.benchmarks import outside
from safevid_core.benchmarks.definition import Benchmark, Media, Refused, SourceItem, SourceRow
from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.official_files import FilesError, archives_in
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import benchmark_table
from safevid_core.datasets.decontamination import NO_BENCHMARK_ITEMS
from safevid_core.settings import BenchmarkFiles, Settings
from safevid_core.stages.stage import Forecast, Plan, Stage, Tools, all_partitions
from safevid_core.storage.file_hashes import FileHashes
from safevid_core.storage.lake import frame_hash, settings_hash
from safevid_core.storage.media import MediaIndex
from safevid_core.video.decoding import VideoError, decode_uniform, probe, quoted
from safevid_core.video.pictures import read_picture

_LOG = logging.getLogger(__name__)

# Which line a row stood in does not make another release.
_NOT_IN_RELEASE = ("release", "source_row", "plan_id")
# The last part of a clip that must decode: a truncated file opens, and ends too soon.
_TAIL_S = 1.0


def find_benchmarks() -> dict[str, Benchmark]:
    """Benchmarks by name: those of each file under `outside/` that holds `BENCHMARKS`."""
    names = sorted(module.name for module in pkgutil.iter_modules(outside.__path__))
    modules = [importlib.import_module(f"{outside.__name__}.{name}") for name in names]
    return {each.name: each for module in modules for each in getattr(module, "BENCHMARKS", ())}


OUTSIDE: Mapping[str, Benchmark] = find_benchmarks()


def outside_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        BenchmarkError: If there is none.
    """
    if name not in OUTSIDE:
        raise BenchmarkError(f"benchmark {name!r} is none that is known; known: {', '.join(sorted(OUTSIDE))}")
    return OUTSIDE[name]


def judge_of(name: str) -> str | None:
    """The judge that a benchmark names for its items; None for ours, which name none."""
    found = OUTSIDE.get(name)
    return None if found is None else found.judge


def plan_outside_benchmark(name: str, tools: Tools, partition: str) -> Plan:
    """Plan to read a benchmark's files and check every picture and clip that is asked.

    Raises:
        BenchmarkError: If the benchmark is unknown, the settings name no files for it, or a file or column
            is missing; the message says which, and where to get the files.
    """
    benchmark = outside_benchmark(name)
    files = _files_of(tools.settings, benchmark)
    rows = read_source(benchmark, files)
    selection = select_rows(benchmark, rows, files)
    paths = [item.path for item in selection.items if item.path is not None]
    media = {path: _hashed(path, tools.lake.file_hashes) for path in dict.fromkeys(paths)}
    tools.lake.media.record((sha256, path, path.stat().st_size) for path, sha256 in media.items() if sha256)

    def make(source_rows: Sequence[str]) -> StageRows:
        items, outcomes = _checked(benchmark, files, selection, media)
        release = _release_of(name, items)
        frame = benchmark_table(name).frame({**item, "release": release} for item in items)
        info = _info(benchmark, files, rows, items)
        return StageRows(frame, outcomes, info | {"release": release if items else ""})

    inputs = {
        "rows": settings_hash(
            [{**asdict(item), "path": None} for item in selection.items], selection.outcomes
        ),
        "media": settings_hash([media.get(item.path) for item in selection.items if item.path]),
        "files": settings_hash(files.revision, files.max_items, files.options),
    }
    return Plan(inputs, [row.source_row for row in rows], make)


def _stage(benchmark: Benchmark) -> Stage:
    return Stage(
        benchmark_table(benchmark.name),
        "benchmarks",
        f"{benchmark.title}, read from its official files: {benchmark.source}.",
        partial(plan_outside_benchmark, benchmark.name),
        reads=("pocket_clips",),
        wanted=if_measured,
        forecast=lambda tools, partition, rows: Forecast(tools.settings.evaluation.max_items),
        watches=partial(_watched, benchmark.name),
        checks=(NO_BENCHMARK_ITEMS,),
    )


def _watched(name: str, settings: Settings) -> list[Path]:
    """The files, and the media index: if it was deleted, planning records the places again."""
    files = settings.evaluation.files.get(name)
    return [] if files is None else [files.path, MediaIndex(settings.root).database]


def if_measured(stage: Stage, settings: Settings) -> Sequence[str]:
    """All partitions if the settings measure on this benchmark, else none."""
    return all_partitions(stage, settings) if stage.name in settings.evaluation.benchmarks else ()


STAGES = tuple(_stage(benchmark) for benchmark in OUTSIDE.values())


def read_source(benchmark: Benchmark, files: BenchmarkFiles) -> list[SourceRow]:
    """Every row of the files, each with a `source_row` of its own.

    Raises:
        FilesError: If a file or column is missing, or an option is unknown; says where to get the files.
    """
    try:
        unknown = sorted(set(files.options) - set(benchmark.options))
        if unknown:
            known = ", ".join(sorted(benchmark.options)) or "none"
            raise FilesError(f"option {unknown[0]!r} is none of its own (it has: {known})")
        rows = list(_numbered(benchmark.read(files)))
        if not rows:
            raise FilesError(f"{quoted(files.path)} holds no row")
    except FilesError as error:
        raise FilesError(f"{benchmark.name}: {error}; its files: {benchmark.source}") from None
    return rows


@dataclass
class Selection:
    """The rows that are to be asked, and what became of the others."""

    items: list[SourceItem] = field(default_factory=list)
    outcomes: list[tuple[str, Outcome, str]] = field(default_factory=list)


def select_rows(benchmark: Benchmark, rows: Sequence[SourceRow], files: BenchmarkFiles) -> Selection:
    """The rows that can be asked: each once, with its picture or clip there; of these the ones drawn.

    The draw is by content id and looks at no file, so that fixing one picture moves no other item.

    Raises:
        FilesError: If rows need pictures or clips and not one is there.
    """
    selection = Selection()
    first: dict[str, SourceItem] = {}
    for row in rows:
        if isinstance(row, Refused):
            selection.outcomes.append((row.source_row, row.outcome, row.reason))
        elif row.identity in first:
            reason = f"the same as {first[row.identity].source_row}, which stands before it"
            selection.outcomes.append((row.source_row, "filtered", reason))
        else:
            first[row.identity] = row
    drawn = set(sorted(first, key=lambda each: content_id("draw", benchmark.name, each))[: files.max_items])
    missing: list[Path] = []
    for identity, item in first.items():
        if identity not in drawn:
            reason = f"not drawn: max_items is {files.max_items}"
            selection.outcomes.append((item.source_row, "filtered", reason))
        elif item.path is not None and not os.path.isfile(item.path):
            missing.append(item.path)
            reason = f"{quoted(_below(item.path, files))} is missing; fetch it"
            selection.outcomes.append((item.source_row, "failed", reason))
        else:
            selection.items.append(item)
    if missing and not any(item.path for item in selection.items):
        raise FilesError(
            f"{benchmark.name}: of {len(missing)} pictures or clips to be shown not one is there, the "
            f"first {quoted(missing[0])}{archives_in(files.path)}; its files: {benchmark.source}"
        )
    return selection


def _files_of(settings: Settings, benchmark: Benchmark) -> BenchmarkFiles:
    files = settings.evaluation.files.get(benchmark.name)
    if files is None:
        raise BenchmarkError(
            f"benchmark {benchmark.name} has no files; set evaluation.files.{benchmark.name}.path to "
            f"them: {benchmark.source}"
        )
    return files


def _numbered(rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
    """The rows, a repeated `source_row` told apart by a number."""
    used: set[str] = set()
    times: Counter[str] = Counter()
    for row in rows:
        name = row.source_row
        while name in used:
            times[row.source_row] += 1
            name = f"{row.source_row} #{times[row.source_row] + 1}"
        used.add(name)
        yield row if name == row.source_row else replace(row, source_row=name)


def _hashed(path: Path, hashes: FileHashes) -> str:
    """SHA-256 of a picture or clip; empty where it cannot be read, which the check then tells."""
    try:
        return hashes.sha256(path)
    except OSError:
        return ""


def _checked(
    benchmark: Benchmark, files: BenchmarkFiles, selection: Selection, media: Mapping[Path, str]
) -> tuple[list[dict[str, Any]], list[tuple[str, Outcome, str]]]:
    """The items whose picture or clip opens, by item id, and the outcome of every row."""
    outcomes = list(selection.outcomes)
    problems: dict[Path, str] = {}
    items = []
    for row in selection.items:
        if row.path is not None and row.path not in problems:
            problem = problem_of(row.media, row.path)
            problems[row.path] = problem.replace(str(row.path.absolute()), _below(row.path, files))
        problem = problems.get(row.path, "") if row.path is not None else ""
        outcomes.append((row.source_row, "failed", problem) if problem else (row.source_row, "ok", ""))
        if not problem:
            items.append(_item(benchmark, row, media[row.path] if row.path is not None else None))
    return sorted(items, key=lambda item: str(item["item_id"])), outcomes


def _below(path: Path, files: BenchmarkFiles) -> str:
    """A file as messages name it: below the benchmark's folder, wherever that lies now."""
    return path.relative_to(files.path).as_posix() if path.is_relative_to(files.path) else path.name


def problem_of(media: Media, path: Path) -> str:
    """Why a picture does not open or a clip's start or end does not decode; empty where they do."""
    try:
        if media == "image":
            read_picture(path)
        else:
            decode_uniform(path, 1, start_s=max(0.0, probe(path).duration_s - _TAIL_S))
    except VideoError as error:
        return str(error)
    return ""


def _item(benchmark: Benchmark, row: SourceItem, sha256: str | None) -> dict[str, Any]:
    return {
        "item_id": content_id(benchmark.name, row.identity, row.query, sha256 or ""),
        "benchmark": benchmark.name,
        "clip_id": sha256,
        "plan_id": row.source_row,
        "twin_group": row.twin_group,
        "media_sha256": sha256,
        "principle": row.principle,
        "dimension": row.dimension,
        "subcategory": row.subcategory,
        "style": row.style,
        "query": row.query,
        **row.intent.columns,
        "policy": list(benchmark.policy),
        "explicit": row.explicit,
        "media": row.media,
        "reference": row.reference,
        "source_row": row.source_row,
        "options": json.dumps(row.options, ensure_ascii=False, sort_keys=True),
    }


def _release_of(name: str, items: Sequence[dict[str, Any]]) -> str:
    return frame_hash(benchmark_table(name).frame(items).drop(_NOT_IN_RELEASE))[:16]


def _info(
    benchmark: Benchmark,
    files: BenchmarkFiles,
    rows: Sequence[SourceRow],
    items: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What the benchmark is and what was read of it, for the stage's metadata and the card."""
    warning = row_count_warning(benchmark, files, len(rows))
    if warning:
        _LOG.warning("%s", warning)
    return {
        "title": benchmark.title,
        "measures": benchmark.measures,
        "success": benchmark.success,
        "judge": benchmark.judge,
        "source": benchmark.source,
        "revision": files.revision,
        "options": dict(files.options),
        "max_items": files.max_items,
        "rows_in_files": len(rows),
        "rows_published": " or ".join(f"{number:,}" for number in benchmark.expected_rows(files)),
        "warning": warning,
        "items": len(items),
        "by_dimension": dict(Counter(item["dimension"] for item in items)),
        "by_expectation": dict(Counter(item["expectation"] for item in items)),
        "by_media": dict(Counter(item["media"] for item in items)),
    }


def row_count_warning(benchmark: Benchmark, files: BenchmarkFiles, rows: int) -> str:
    """One line where the files hold another number of rows than was published; empty where not."""
    expected = benchmark.expected_rows(files)
    if not expected or rows in expected:
        return ""
    published = " or ".join(f"{number:,}" for number in expected)
    return (
        f"{benchmark.title}: the files hold {rows:,} rows, the published release {published}; figures are of "
        "these rows and do not compare with published ones"
    )


__all__ = [
    "OUTSIDE",
    "Benchmark",
    "FilesError",
    "Selection",
    "find_benchmarks",
    "outside_benchmark",
    "plan_outside_benchmark",
    "problem_of",
    "read_source",
    "row_count_warning",
    "select_rows",
]
