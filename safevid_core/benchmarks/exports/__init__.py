"""The items of a benchmark as a task of another tool. A format is one file and its name in `EXPORTS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.exports.lmms_eval import write_lmms_eval
from safevid_core.contracts.rows import BenchmarkItem, rows_of
from safevid_core.contracts.tables import SAFEVIDBENCH_BASE, SAFEVIDBENCH_CHALLENGE, benchmark_table
from safevid_core.datasets.exports import new_folder, refuse_used
from safevid_core.datasets.exports.clip_media import clips_of, cut_clips, parts_of_files
from safevid_core.storage.lake import Lake

# Writes items, each with the path of its video, into a folder that will have the given name.
Write = Callable[[str, Sequence[BenchmarkItem], Mapping[str, str], Path, Path], None]
EXPORTS: dict[str, Write] = {"lmms-eval": write_lmms_eval}
BENCHMARKS = (SAFEVIDBENCH_BASE.name, SAFEVIDBENCH_CHALLENGE.name)


@dataclass(frozen=True)
class WrittenBenchmark:
    """What an export of a benchmark wrote."""

    folder: Path
    benchmark: str
    release: str
    items: int


def export_benchmark(
    lake: Lake, format: str, to: Path, benchmark: str = SAFEVIDBENCH_BASE.name, *, cut: bool = False
) -> WrittenBenchmark:
    """Write the items of the release in use as a task of another tool, into a new folder.

    The folder appears when it is complete: an export that fails leaves nothing.

    Args:
        format: A name in :data:`EXPORTS`.
        to: The folder. It must be absent or empty.
        benchmark: A name in :data:`BENCHMARKS`.
        cut: Whether each clip is written as a video file of its own.

    Raises:
        BenchmarkError: If the format or the benchmark is unknown, the benchmark has no items, or clips are
            parts of longer files and `cut` is not set.
        ExportError: If the folder holds something or cannot be written.
        VideoError: If a video is gone or cannot be decoded.
    """
    if format not in EXPORTS:
        raise BenchmarkError(f"no format {format!r} for a benchmark; there are: {', '.join(EXPORTS)}")
    if benchmark not in BENCHMARKS:
        raise BenchmarkError(f"{benchmark!r} cannot be exported; these can: {', '.join(BENCHMARKS)}")
    refuse_used(to)
    frame = _items(lake, benchmark)
    clips = clips_of(lake, frame.with_columns(split=pl.lit("")))
    parts = [] if cut else parts_of_files(clips)
    if parts:
        raise BenchmarkError(
            f"{len(parts)} of {len(clips)} clips are parts of longer files (the first: {parts[0].clip_id} of "
            f"{parts[0].path.name!r}), and {format} reads files whole; give --cut, which writes each clip as "
            "a file of its own"
        )
    items = rows_of(frame, BenchmarkItem)
    with new_folder(to) as folder:
        places = cut_clips(clips, folder) if cut else {clip.clip_id: str(clip.path) for clip in clips}
        videos = {item.item_id: places[item.clip_id] for item in items if item.clip_id}
        EXPORTS[format](benchmark, items, videos, folder, to.absolute())
    return WrittenBenchmark(to, benchmark, str(frame["release"][0]), len(items))


def _items(lake: Lake, benchmark: str) -> pl.DataFrame:
    if lake.manifest(benchmark) is None:
        raise BenchmarkError(f"benchmark {benchmark} has no items in this lake; run {benchmark} first")
    items = lake.read(benchmark_table(benchmark)).sort("item_id")
    if items.is_empty():
        raise BenchmarkError(f"benchmark {benchmark} holds no item; see its outcomes for the reasons")
    return items
