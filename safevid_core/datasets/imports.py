"""Pairs that others made: each row of their files becomes a pair about a clip of the corpus, or a reason.

A map in `datasets.imports` says where a row holds the query, both responses and the video. The rows have the
schema of `safevid_350k_pairs` and enter the release beside them. A pair has the licence of its clip.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import IMPORTED_PAIRS, PAIRS, VIDEO_CORPUS, Table
from safevid_core.settings import ImportColumn, PairImport, Settings
from safevid_core.stages.stage import Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash
from safevid_core.storage.media import MediaMissing
from safevid_core.taxonomy.taxonomy import load_taxonomy

_SUFFIXES = (".json", ".jsonl", ".parquet")
# What stands for a label that the rows do not have.
UNLABELLED = "unlabelled"
# The pair judge of a pair that no judge has seen.
NOT_JUDGED = "none"
_CLIP_COLUMNS = (
    "clip_id", "source_id", "file_name", "media_sha256", "start_s", "end_s", "scene", "split", "twin_group",
)  # fmt: skip


class ImportFilesError(SafeVidError, ValueError):
    """An import whose files cannot be read at all; the message names the import and the file."""


class _RowError(SafeVidError):
    """Why a row becomes no pair."""

    def __init__(self, reason: str, outcome: Outcome = "failed") -> None:
        super().__init__(reason)
        self.outcome = outcome


def tables_of_release(settings: Settings) -> tuple[Table, ...]:
    """The tables whose pairs a release unites."""
    imported = (IMPORTED_PAIRS,) if settings.datasets.imports else ()
    return imported if settings.datasets.only_imports else (PAIRS, *imported)


def plan_imported_pairs(tools: Tools, partition: str) -> Plan:
    """Plan to read all rows of all imports.

    Raises:
        ImportFilesError: If an import has no file, or one that cannot be read as what its name says.
    """
    imports, lake = tools.settings.datasets.imports, tools.lake
    files = [(name, path) for name, each in imports.items() for path in _files(name, each.path)]
    units = [unit for name, path in files for unit in _units(name, path)]
    clips = lake.scan(VIDEO_CORPUS).select(_CLIP_COLUMNS).sort("clip_id").collect()
    taxonomy = load_taxonomy(tools.settings)
    principles = {each.id: each.principle for each in taxonomy.subcategories}

    def make(_: Sequence[str]) -> StageRows:
        corpus = _Corpus.of(lake, clips)
        pairs: dict[str, dict[str, Any]] = {}
        outcomes: list[tuple[str, Outcome, str]] = []
        for name, path in files:
            for unit, row in zip(_units(name, path), _rows(name, path), strict=True):
                try:
                    pair = _pair(unit, row, imports[name], name, corpus, principles)
                    if pair["pair_id"] in pairs:
                        first = pairs[pair["pair_id"]]["query_id"]
                        raise _RowError(f"repeats {first}", "filtered")
                except _RowError as error:
                    outcomes.append((unit, error.outcome, str(error)))
                else:
                    pairs[pair["pair_id"]] = pair
                    outcomes.append((unit, "ok", ""))
        return StageRows(IMPORTED_PAIRS.frame(pairs.values()), outcomes)

    inputs = {
        "files": settings_hash([(name, path.name, lake.file_hashes.sha256(path)) for name, path in files]),
        "maps": settings_hash({name: each.model_dump(exclude={"path"}) for name, each in imports.items()}),
        "clips": frame_hash(clips),
        "taxonomy": taxonomy.hash,
    }
    return Plan(inputs, units, make, needs_rows=True)


def stages(settings: Settings) -> list[Stage]:
    """The stage `imported_pairs`, if the settings name a data set."""
    if not settings.datasets.imports:
        return []
    return [
        Stage(
            IMPORTED_PAIRS,
            "preferences",
            "Preference pairs that others made, about clips of the corpus.",
            plan_imported_pairs,
            reads=(VIDEO_CORPUS.name,),
            forecast=lambda tools, partition, rows: Forecast(0),
            watches=lambda settings: [each.path for each in settings.datasets.imports.values()],
        )
    ]


# ---------------------------------------------------------------------------------------------- files


def _files(name: str, path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [each for each in found if each.suffix in _SUFFIXES and each.is_file()]
    if not files:
        raise ImportFilesError(f"import {name}: {path} is no {', '.join(_SUFFIXES)} file and holds none")
    return files


def _units(name: str, path: Path) -> list[str]:
    """Ids of the rows of one file, such as `published/part.jsonl:12`, counted from 1."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        count = _read(name, path, lambda: pq.read_metadata(path).num_rows)
    elif path.suffix == ".jsonl":
        with path.open("rb") as file:
            count = sum(1 for _ in file)
    else:
        count = sum(1 for _ in _rows(name, path))
    return [f"{name}/{path.name}:{number}" for number in range(1, count + 1)]


def _rows(name: str, path: Path) -> Iterator[Any]:
    """The rows of one file; a line that is not JSON is given as the error."""
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            for line in file:
                yield _line(line)
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        batches = _read(name, path, lambda: pq.ParquetFile(path)).iter_batches(1_000)
        while (batch := _read(name, path, lambda: next(batches, None))) is not None:
            yield from batch.to_pylist()
    else:
        rows = _read(name, path, lambda: json.loads(path.read_bytes()))
        if not isinstance(rows, list):
            raise ImportFilesError(f"import {name}: {path} holds no list of rows")
        yield from rows


def _line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        return error
    except RecursionError:
        return ValueError("it is nested too deeply")


def _read(name: str, path: Path, read: Any) -> Any:
    try:
        return read()
    except (OSError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())[:200]
        raise ImportFilesError(f"import {name}: {path} cannot be read ({words}); fetch it again") from None


# ----------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class _Corpus:
    """Clips by what a row may call them, and the reasons why the bytes of some are missing."""

    clips: Mapping[str, Mapping[str, Any]]
    by_name: Mapping[str, list[str]]
    missing: Mapping[str, str]

    @classmethod
    def of(cls, lake: Lake, frame: pl.DataFrame) -> _Corpus:
        clips = {clip["clip_id"]: clip for clip in frame.iter_rows(named=True)}
        hashes = {clip["media_sha256"] for clip in clips.values()} - {None}
        places = lake.media.paths(hashes)
        names: dict[str, list[str]] = defaultdict(list)
        for clip_id, clip in clips.items():
            file = PurePosixPath(clip["file_name"] or "")
            called = {clip["media_sha256"], clip["source_id"], file.name, file.stem}
            if place := places.get(clip["media_sha256"] or ""):
                called |= {str(place.absolute()), place.name}
            for name in called - {None, ""}:
                names[name].append(clip_id)
        missing = {}
        for sha256 in hashes - set(places):
            try:
                lake.media.path(sha256)
            except MediaMissing as error:
                missing[sha256] = str(error)
        return cls(clips, names, missing)

    def find(self, video: str) -> Mapping[str, Any]:
        """The clip that a row calls by an id, a hash, a path or a file name."""
        if video in self.clips:
            return self.clips[video]
        file = PurePosixPath(video)
        for name in (video, file.name, file.stem):
            found = self.by_name.get(name, [])
            if len(found) > 1:
                raise _RowError(f"video {video!r} has {len(found)} clips in the corpus; name the clip id")
            if found:
                return self.clips[found[0]]
        raise _RowError(f"unknown clip: the corpus holds no video {video!r}; add it to corpus.sources")


def _pair(
    unit: str, row: Any, of: PairImport, name: str, corpus: _Corpus, principles: Mapping[str, str]
) -> dict[str, Any]:
    """The row of the table that a row of a file becomes."""
    if isinstance(row, ValueError):
        raise _RowError(f"the line is not JSON ({row})")
    query = _text(row, of, "query")
    for placeholder in of.placeholders:
        query = query.replace(placeholder, "")
    query = query.strip()
    chosen, rejected = _text(row, of, "chosen"), _text(row, of, "rejected")
    for part, text in (("query", query), ("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise _RowError(f"the {part} is empty")
        if len(text) > of.max_characters:
            raise _RowError(
                f"the {part} has {len(text):,} characters; the most is {of.max_characters:,}", "filtered"
            )
    if chosen.strip() == rejected.strip():
        raise _RowError("chosen and rejected are equal", "filtered")
    clip = corpus.find(_text(row, of, "video"))
    if clip["split"] != "train":
        raise _RowError(f"clip {clip['clip_id']} is on the side {clip['split']}", "filtered")
    if clip["media_sha256"] in corpus.missing:
        raise _RowError(corpus.missing[clip["media_sha256"]])
    subcategory = _label(row, of, "subcategory")
    return {
        **{column: clip[column] for column in _CLIP_COLUMNS if column in PAIRS.schema},
        "pair_id": content_id("imported pair", clip["clip_id"], query, chosen, rejected),
        "query_id": unit,
        "principle": principles.get(subcategory or "", UNLABELLED),
        "subcategory": subcategory or UNLABELLED,
        "style": _label(row, of, "style"),
        "expectation": _label(row, of, "expectation") or UNLABELLED,
        "prompt": query,
        "chosen": chosen,
        "rejected": rejected,
        "criteria": [],
        "policy": [],
        "satisfies": [],
        "flags": [],
        "pair_judge": NOT_JUDGED,
        "chosen_model": f"import {name}",
        "rejected_model": f"import {name}",
    }


def _text(row: Any, of: PairImport, column: ImportColumn) -> str:
    """A text that every row must have."""
    place = of.columns[column]
    value = _at(row, place)
    if value is None:
        raise _RowError(f"{column}: the row has no {place!r}")
    if not isinstance(value, str):
        raise _RowError(f"{column}: {place!r} is of type {type(value).__name__}, not text")
    return value


def _label(row: Any, of: PairImport, column: ImportColumn) -> str | None:
    place = of.columns.get(column)
    value = None if place is None else _at(row, place)
    return None if value is None else str(value)


def _at(row: Any, place: str) -> Any:
    """What lies at a dotted place, None if nothing does."""
    for step in place.split("."):
        if isinstance(row, Mapping):
            row = row.get(step)
        elif isinstance(row, list) and step.lstrip("-").isdigit():
            number = int(step)
            row = row[number] if -len(row) <= number < len(row) else None
        else:
            return None
    return row
