"""Lists the files and manifest lines of the corpus sources.

A source is a folder of videos or a manifest of JSON lines. Every file and every line becomes one candidate,
usable or not, so each has an outcome. No file is copied.

A manifest line holds `file` (relative to the manifest) or `path`. It may hold `source_id`, `start_s`,
`end_s`, `licence`, `caption`, `scene` and `twin_group`. Example: `{"file": "a.mp4", "start_s": 0, "end_s":
9}`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safevid_core.contracts.errors import SafeVidError
from safevid_core.settings import CorpusSettings, Settings, Source
from safevid_core.video.decoding import quoted

POCKET_MANIFEST = Path("pocket") / "clips" / "manifest.jsonl"

# The text between the source and the file or line in a `source_row`.
BELOW = "::"

_TEXTS = ("source_id", "licence", "caption", "scene", "twin_group")
_TIMES = ("start_s", "end_s")
_KEYS = ("file", "path", *_TEXTS, *_TIMES)


class SourceError(SafeVidError, ValueError):
    """Sources are missing or empty. The message names each."""


@dataclass(frozen=True)
class Candidate:
    """One file or manifest line that may become a clip.

    Attributes:
        source_row: The file or line relative to its source, unique among all candidates. Examples:
            `sources[0]::park/a.mp4` and `sources[1]::manifest.jsonl:12`.
        path: The present absolute path of the file. None if the row names no file. No table stores it.
        start_s: Start of the span in the source video. None if it is not given.
        origin: The kind of source: pocket, folder or manifest.
        problem: Why the row cannot be used. Empty if it can.
        use: What the clip is used for. See `settings.Source`.
    """

    source_row: str
    path: Path | None
    origin: str
    licence: str
    source_id: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    caption: str | None = None
    scene_hint: str | None = None
    twin_group: str | None = None
    problem: str = ""
    use: str = "method"

    @property
    def name(self) -> str:
        """The file's name in messages: its path below the folder of the source, or its file name."""
        if self.origin == "folder":
            return self.source_row.partition(BELOW)[2]
        return self.path.name if self.path is not None else self.source_row


@dataclass
class Expansion:
    """The candidates of all sources.

    Attributes:
        candidates: The candidates in the order of the sources.
        missing: One line for each source that is missing or empty, such as a share that is not mounted.
        warnings: One line for each other problem.
    """

    candidates: list[Candidate] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def expand_sources(settings: Settings) -> Expansion:
    """List every file and manifest line of every source."""
    found = Expansion()
    if not settings.corpus.sources:
        found.missing.append("corpus.sources names no source; add a folder or a manifest of videos")
    seen: set[tuple[str, Path]] = set()
    for index, source in enumerate(settings.corpus.sources):
        path = settings.root / POCKET_MANIFEST if source.kind == "pocket" else source.path
        if path is None:
            found.missing.append(f"corpus.sources[{index}] of kind {source.kind} has no path; set its `path`")
            continue
        place = Path(path).absolute()
        kind = "folder" if source.kind == "folder" else "manifest"
        if (kind, place) in seen:
            found.warnings.append(f"corpus.sources[{index}] is listed twice; it is read once")
            continue
        seen.add((kind, place))
        before, missing_before = len(found.candidates), len(found.missing)
        label = "pocket" if source.kind == "pocket" else f"sources[{index}]"
        if kind == "folder":
            _expand_folder(place, label, source, settings.root.absolute(), found)
        else:
            _expand_manifest(place, label, source, found)
        found.missing[missing_before:] = [
            f"corpus.sources[{index}]: {each}" for each in found.missing[missing_before:]
        ]
        use = use_of(source, settings.corpus)
        found.candidates[before:] = [replace(each, use=use) for each in found.candidates[before:]]
    return found


def use_of(source: Source, corpus: CorpusSettings) -> str:
    """What a source's clips are used for: `use` of the source, or else `corpus.own_clips`.

    Without `use`, rendered clips of the pocket world are used for the method.
    """
    if source.use is not None:
        return source.use
    return "method" if source.kind == "pocket" else corpus.own_clips


def _expand_folder(folder: Path, label: str, source: Source, root: Path, found: Expansion) -> None:
    if not folder.is_dir():
        if folder.exists():
            words = "is a file; name its folder, or set kind `manifest`"
        else:
            words = "does not exist; check its `path` or SAFEVID_CLIPS, and that its disk is mounted"
        found.missing.append(f"folder {quoted(folder)} {words}")
        return
    before = len(found.candidates)
    for path in _files_below(folder, root, found.warnings):
        below = path.relative_to(folder)
        row = f"{label}{BELOW}{below.as_posix()}"
        problem = ""
        if not _is_utf8(row):
            row = row.encode("utf-8", "backslashreplace").decode()
            problem = f"{quoted(below)} has a name that is not valid UTF-8; rename it"
        found.candidates.append(Candidate(row, path, source.kind, source.licence, problem=problem))
    if len(found.candidates) == before:
        found.missing.append(f"folder {quoted(folder)} holds no files; put videos into it, or name another")


def _files_below(folder: Path, root: Path, warnings: list[str]) -> Iterator[Path]:
    """Regular files below a folder in a fixed order, without hidden files and without SafeVid's folder."""

    def cannot_list(error: OSError) -> None:
        below = os.path.relpath(error.filename, folder)
        warnings.append(f"folder {quoted(below)} of a source cannot be listed: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=cannot_list):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and here / name != root)
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path


def _expand_manifest(manifest: Path, label: str, source: Source, found: Expansion) -> None:
    name = quoted(manifest)
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        fix = "render the clips first (`safevid demo` does)" if source.kind == "pocket" else "check the path"
        found.missing.append(f"manifest {name} does not exist; {fix}")
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        found.missing.append(f"manifest {name} cannot be read: {reason}; fix the file")
        return
    unknown: set[str] = set()
    before = len(found.candidates)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = f"{label}{BELOW}{manifest.name}:{number}"
            blank = Candidate(row, None, source.kind, source.licence)
            found.candidates.append(_read_line(line, blank, manifest, unknown))
    if unknown:
        found.warnings.append(
            f"manifest {quoted(manifest.name)} has unknown keys: "
            f"{', '.join(map(repr, sorted(unknown)))}; known: {', '.join(_KEYS)}"
        )
    if len(found.candidates) == before:
        found.missing.append(f"manifest {name} has no lines; add one for each clip")


def _read_line(line: str, blank: Candidate, manifest: Path, unknown: set[str]) -> Candidate:
    where = f"line {blank.source_row.rpartition(':')[2]} of {quoted(manifest.name)}"
    try:
        row = json.loads(line)
    except ValueError as error:
        return replace(blank, problem=f"{where} is not JSON ({str(error).splitlines()[0]}); fix the line")
    if not isinstance(row, dict):
        return replace(blank, problem=f"{where} must be a JSON object; fix the line")
    unknown |= set(map(str, row)) - set(_KEYS)
    problem = _problem_of(row)
    if problem:
        return replace(blank, problem=f"{where}: {problem}")
    values: dict[str, Any] = {key: _text(row.get(key)) for key in _TEXTS}
    times: dict[str, Any] = {key: None if row.get(key) is None else float(row[key]) for key in _TIMES}
    return replace(
        blank,
        path=manifest.parent / str(row.get("file") or row.get("path")),
        scene_hint=values.pop("scene"),
        licence=values.pop("licence") or blank.licence,
        **values,
        **times,
    )


def _problem_of(row: dict[str, Any]) -> str:
    media = row.get("file") or row.get("path")
    if not isinstance(media, str) or not media or "\0" in media:
        return "`file` or `path` must name a video; add it"
    for key in ("file", "path", *_TEXTS):
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            if not _is_utf8(str(value)):
                return f"`{key}` holds characters that are not valid Unicode; fix it"
        elif value is not None:
            return f"`{key}` must be text; found {value!r}"
    for key in _TIMES:
        value = row.get(key)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or value < 0
        ):
            return f"`{key}` must be seconds, 0 or more; found {value!r}"
    start, end = row.get("start_s") or 0.0, row.get("end_s")
    if end is not None and end <= start:
        return f"the span ends at {end:g} s, not after its start at {start:g} s; fix `end_s`"
    return ""


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
