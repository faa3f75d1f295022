"""Makes the clip manifest: one row for each usable clip, with its id, measured properties and source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safevid_core.contracts.errors import READ_AGAIN
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import CLIP_MANIFEST
from safevid_core.corpus.sources import Candidate, SourceError, expand_sources
from safevid_core.corpus.withdrawn import Withdrawn, read_withdrawn
from safevid_core.settings import CorpusSettings, Settings
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.file_hashes import FileHashes
from safevid_core.storage.lake import settings_hash, write_atomically
from safevid_core.storage.media import MediaIndex
from safevid_core.video.decoding import DECODING_REVISION, VideoError, VideoInfo, probe, quoted
from safevid_core.video.errors import is_transient
from safevid_core.video.identity import clip_id, clip_id_of_file

# A file that cannot be opened is a broken video if it has one of these suffixes, and not a video otherwise.
_VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".obu", ".ogg", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob",
    ".webm", ".wmv", ".y4m",
})  # fmt: skip
# Published spans are rounded. An end at most this far past the end of the file counts as the file's end.
_SPAN_SLACK_S = 0.5


@dataclass(frozen=True)
class Measured:
    """The measured properties of a file: hash, video and size in bytes, or why they are not known.

    Attributes:
        unread: Size, times and inode of a file that was not read yet, or not because of a transient error.
            Empty if the content is known.
    """

    sha256: str | None
    info: VideoInfo | None
    error: str = ""
    size: int = 0
    unread: str = ""


Listed = tuple[Candidate, Measured]


def plan_clip_manifest(tools: Tools, partition: str) -> Plan:
    """Plan to read every source. Each file and manifest line gets one outcome.

    A clip's id comes from its source id and span if a manifest gives both, and otherwise from the bytes of
    the file. The second row of the same clip is `filtered`, and its reason names the first.

    Planning lists the files and records the paths of known files in the media index. So moved files with the
    same names change no row. Unknown files are read when the table is made (:class:`_MeasuredFiles`).

    Raises:
        SourceError: If a source is missing or empty.
    """
    settings, lake = tools.settings, tools.lake
    expansion = expand_sources(settings)
    if expansion.missing:
        raise SourceError("; ".join(expansion.missing))
    withdrawn = read_withdrawn(lake)
    files = _MeasuredFiles(lake.cache_folder() / "measured_files.json", lake.file_hashes)
    listed = files.look_up(expansion.candidates)
    lake.media.record(_places(listed, withdrawn))

    def make(source_rows: Sequence[str]) -> StageRows:
        nonlocal listed
        listed = files.measure(expansion.candidates)
        lake.media.record(_places(listed, withdrawn))
        stage = _stage_rows(listed, settings.corpus, withdrawn)
        stage.info = {"warnings": expansion.warnings, "files_read": files.read}
        return stage

    def inputs() -> Mapping[str, str]:
        return {
            "candidates": settings_hash([_without_place(each, measured) for each, measured in listed]),
            "decoding": str(DECODING_REVISION),
            "filters": settings_hash(_filters(settings.corpus)),
            "warnings": settings_hash(expansion.warnings),
            **({"withdrawn": withdrawn.identity} if withdrawn.identity else {}),
        }

    ids = [row.source_row for row in expansion.candidates]
    return Plan(inputs(), ids, make, needs_rows=True, inputs_after_make=inputs)


def _places(listed: Sequence[Listed], withdrawn: Withdrawn) -> Iterator[tuple[str, Path, int]]:
    """Hash, path and size in bytes of each video that is not withdrawn."""
    for candidate, measured in listed:
        if candidate.path is None or measured.info is None or measured.sha256 is None:
            continue
        if not withdrawn.whole_file(measured.sha256):
            yield measured.sha256, candidate.path, measured.size


def _without_place(candidate: Candidate, measured: Measured) -> list[Any]:
    """What a candidate's row depends on: its other fields, the file's name, and the file's content."""
    written = {**asdict(candidate), "path": candidate.path.name if candidate.path is not None else None}
    return [written, measured.sha256, measured.unread or measured.error]


def _stage_rows(listed: Sequence[Listed], corpus: CorpusSettings, withdrawn: Withdrawn) -> StageRows:
    rows: list[dict[str, Any]] = []
    outcomes: list[tuple[str, Outcome, str]] = []
    first_with: dict[Any, str] = {}
    for candidate, measured in listed:
        row, outcome, reason = _judge(candidate, measured, corpus, withdrawn)
        if row is not None:
            keys = (row["clip_id"], (row["media_sha256"], row["start_s"], row["end_s"]))
            first = next((first_with[key] for key in keys if key in first_with), None)
            if first is None:
                rows.append(row)
                first_with.update(dict.fromkeys(keys, candidate.source_row))
            else:
                outcome, reason = "filtered", f"the same clip as {first!r}"
        outcomes.append((candidate.source_row, outcome, reason))
    return StageRows(CLIP_MANIFEST.frame(rows), outcomes)


def _judge(
    candidate: Candidate, measured: Measured, corpus: CorpusSettings, withdrawn: Withdrawn
) -> tuple[dict[str, Any] | None, Outcome, str]:
    """A candidate's row, outcome and reason. The row is None unless the outcome is `ok`."""
    if candidate.problem or candidate.path is None:
        return None, "failed", candidate.problem
    spanned = candidate.start_s is not None or candidate.end_s is not None
    if not spanned and (refused := withdrawn.why_unread(candidate.source_id)):
        return None, "filtered", refused
    if measured.info is None or measured.sha256 is None:
        if candidate.origin == "folder" and candidate.path.suffix.lower() not in _VIDEO_SUFFIXES:
            return None, "filtered", f"{quoted(candidate.name)} is not a video"
        return None, "failed", measured.error
    span = _span_in_file(candidate, measured.info)
    if span is None:
        return None, "failed", _outside(candidate, measured.info)
    row = _row(candidate, measured.sha256, measured.info, span)
    reason = withdrawn.why(row) or _why_filtered(row, corpus)
    return (None, "filtered", reason) if reason else (row, "ok", "")


def _row(candidate: Candidate, sha256: str, info: VideoInfo, span: tuple[float, float]) -> dict[str, Any]:
    start, end = span
    source_id = candidate.source_id or f"sha256-{sha256}"
    given = candidate.start_s is not None or candidate.end_s is not None
    identity = (
        clip_id(source_id, candidate.start_s or 0.0, end if candidate.end_s is None else candidate.end_s)
        if given
        else clip_id_of_file(sha256)
    )
    assert candidate.path is not None
    return {
        "clip_id": identity,
        "source_row": candidate.source_row,
        "source_id": source_id,
        "media_sha256": sha256,
        "start_s": start,
        "end_s": end,
        "duration_s": round(end - start, 6),
        "fps": info.fps,
        "width": info.width,
        "height": info.height,
        "frames": max(1, min(info.frames, round((end - start) * info.fps))),
        "codec": info.codec,
        "origin": candidate.origin,
        "file_name": candidate.path.name,
        "licence": candidate.licence,
        "caption": candidate.caption,
        "scene_hint": candidate.scene_hint,
        "twin_group": candidate.twin_group,
        "use": candidate.use,
    }


def _span_in_file(candidate: Candidate, info: VideoInfo) -> tuple[float, float] | None:
    """Start and end of the clip in its file, in seconds. None if the span lies outside the file.

    If the span ends past the file and is as long as the file, the file is the clip itself. Example: the span
    10 to 15 s and a file of 5 s give 0 to 5 s.
    """
    start, end = candidate.start_s or 0.0, candidate.end_s
    if end is None:
        return (start, info.duration_s) if start < info.duration_s else None
    if end > info.duration_s + _SPAN_SLACK_S and abs(end - start - info.duration_s) <= _SPAN_SLACK_S:
        return 0.0, info.duration_s
    if start >= info.duration_s or end > info.duration_s + _SPAN_SLACK_S:
        return None
    return start, min(end, info.duration_s)


def _outside(candidate: Candidate, info: VideoInfo) -> str:
    end = "its end" if candidate.end_s is None else f"{candidate.end_s:g} s"
    return (
        f"{quoted(candidate.name)} lasts {info.duration_s:.2f} s and the span is "
        f"{candidate.start_s or 0:g} s to {end}; fix the span"
    )


def _filters(corpus: CorpusSettings) -> dict[str, float]:
    return {"min_s": corpus.min_seconds, "max_s": corpus.max_seconds, "min_side": corpus.min_side}


def _why_filtered(row: dict[str, Any], corpus: CorpusSettings) -> str:
    """The filter that a clip fails, in words. Empty if it passes all."""
    name, seconds, side = quoted(row["file_name"]), row["duration_s"], min(row["width"], row["height"])
    if seconds < corpus.min_seconds:
        return f"{name} lasts {seconds:.2f} s; corpus.min_seconds is {corpus.min_seconds:g}"
    if seconds > corpus.max_seconds:
        return f"{name} lasts {seconds:.2f} s; corpus.max_seconds is {corpus.max_seconds:g}"
    if side < corpus.min_side:
        return f"{name} has a side of {side} pixels; corpus.min_side is {corpus.min_side}"
    return ""


# Keys of the stored entry of a file. `row` is the `source_row` of the first candidate that names the file.
_ENTRY = {"sha256", "info", "error", "size", "stat", "row"}


class _MeasuredFiles:
    """A cache of measured files that lasts between runs.

    A file is recognised by its size, times and inode, at its path or, if its folder was renamed, by its
    `source_row`. If times or inode differ, as after a copy, it is recognised by the hash of its bytes. So a
    copy changes nothing, and other bytes of the same size and time are read.

    Args:
        store: The JSON file of the cache.

    Attributes:
        read: Number of files that were read.
    """

    def __init__(self, store: Path, hashes: FileHashes) -> None:
        self._store, self._hashes = store, hashes
        self.read = 0
        self._known: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            entries = json.loads(store.read_text()).items()
            self._known = {path: entry for path, entry in entries if entry.keys() >= _ENTRY}
        self._used: dict[str, dict[str, Any]] = {}
        self._by_row: dict[str, list[dict[str, Any]]] = {}
        for each in self._known.values():
            self._by_row.setdefault(each["row"], []).append(each)

    def look_up(self, candidates: Sequence[Candidate]) -> list[Listed]:
        """Each candidate with its file's cached properties. Possible copies of a known file are hashed."""
        return [(each, self._measure(each, may_read=False)) for each in candidates]

    def measure(self, candidates: Sequence[Candidate]) -> list[Listed]:
        """Each candidate with the properties of its file. Files that are not in the cache are read.

        The cache is also written if reading a file raises an error.
        """
        try:
            listed = [(each, self._measure(each, may_read=True)) for each in candidates]
        except BaseException:
            self._used = {**self._known, **self._used}
            raise
        finally:
            if self._used != self._known:
                write_atomically(self._store, json.dumps(self._used).encode())
        return listed

    def _measure(self, candidate: Candidate, *, may_read: bool) -> Measured:
        if candidate.problem or candidate.path is None:
            return Measured(None, None)
        stat, key = _stat_of(candidate.path), str(candidate.path)
        entry = self._entry(candidate, key, stat)
        if entry is None:
            if not may_read:
                return Measured(None, None, unread=str(stat))
            self.read += 1
            measured = _measure(candidate.path, candidate.name, self._hashes)
            if stat is None or measured.error.endswith(READ_AGAIN):
                return replace(measured, unread=str(stat))
            entry = {**asdict(measured), "content": measured.sha256 or self._content(candidate.path)}
        if key not in self._used or self._used[key]["stat"] != stat:
            self._used[key] = {**entry, "stat": stat, "row": candidate.source_row}
        info = None if entry["info"] is None else VideoInfo(**entry["info"])
        return Measured(entry["sha256"], info, entry["error"], entry["size"])

    def _entry(self, candidate: Candidate, key: str, stat: list[int] | None) -> dict[str, Any] | None:
        """The cached entry of a file in its present state. None if there is none."""
        if stat is None or candidate.path is None:
            return None
        here = self._used.get(key) or self._known.get(key)
        known = self._by_row.get(candidate.source_row, []) if here is None else [here]
        same = next((each for each in known if each["stat"] == stat), None)
        if same is not None:
            return same
        as_long = [each for each in known if each["stat"][:2] == stat[:2]]  # revision of decoding, and size
        content = self._content(candidate.path) if as_long else None
        return next((each for each in as_long if content and content == _content_of(each)), None)

    def _content(self, path: Path) -> str | None:
        """The hash of a file's bytes, a video or not. None if it cannot be read."""
        try:
            return self._hashes.sha256(path)
        except OSError:
            return None


def _content_of(entry: Mapping[str, Any]) -> str | None:
    """The hash of the bytes that an entry is of. Stores of earlier versions have that of videos only."""
    return entry.get("content") or entry["sha256"]


def _measure(path: Path, name: str, hashes: FileHashes) -> Measured:
    """Read a file. Messages name it by `name` and not by its path, because the path may change."""
    try:
        info = probe(path)
        return Measured(hashes.sha256(path), info, size=path.stat().st_size)
    except VideoError as error:
        return Measured(None, None, str(error).replace(quoted(path.absolute()), quoted(name)))
    except OSError as error:
        line = f"{quoted(name)} cannot be read: {error.strerror}; check the file"
        return Measured(None, None, str(VideoError(line, transient=is_transient(error))))


def _stat_of(path: Path | None) -> list[int] | None:
    try:
        stat = path.stat() if path is not None else None
    except (OSError, ValueError):
        return None
    if stat is None:
        return None
    return [DECODING_REVISION, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _watched(settings: Settings) -> list[Path]:
    """The folders and manifests of the sources, the files that the manifests name, and the media index.

    If the index was deleted, the stage is planned again, and planning records the paths.
    """
    corpus, sources = settings.corpus, settings.corpus.sources
    manifests = [source for source in sources if source.kind != "folder"]
    only = settings.model_copy(update={"corpus": corpus.model_copy(update={"sources": manifests})})
    named = dict.fromkeys(each.path for each in expand_sources(only).candidates)
    places = (*(source.path for source in sources), *named, MediaIndex(settings.root).database)
    return [path for path in places if path is not None]


STAGE = Stage(
    CLIP_MANIFEST,
    "corpus",
    "Every clip of every source: id, span, length, frame rate, size, codec, licence.",
    plan_clip_manifest,
    reads=("pocket_clips",),
    watches=_watched,
)
