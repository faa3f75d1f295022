"""The clip manifest: one row a usable clip, with its identity, its measure and where it came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safevid_core.corpus.sources import Candidate, SourceError, expand_sources
from safevid_core.lake import WHOLE, Lake, StageReport, run_stage, settings_hash, write_atomically
from safevid_core.records import CLIP_MANIFEST, READ_AGAIN, Outcome, StageRows
from safevid_core.settings import CorpusSettings, Settings
from safevid_core.video.decoding import DECODING_REVISION, VideoError, VideoInfo, probe, quoted
from safevid_core.video.errors import passes
from safevid_core.video.identity import clip_id, clip_id_of_file, file_sha256

# A file of a folder without such a suffix that does not open is no broken video: it is no video.
_VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".obu", ".ogg", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob",
    ".webm", ".wmv", ".y4m",
})  # fmt: skip
# Published spans are rounded; an end this far past the file's is the file's end.
_SPAN_SLACK_S = 0.5


@dataclass(frozen=True)
class Measured:
    """What was read from a file's bytes: the hash and the video, or why there is none."""

    sha256: str | None
    info: VideoInfo | None
    error: str = ""


def make_clip_manifest(settings: Settings, lake: Lake) -> StageReport:
    """Read every source into `clip_manifest`: one outcome for each file and manifest line.

    A clip's id comes from its source id and span where a manifest gives both, else from the bytes. The
    second row with the same clip is `filtered` and names the first. Files that have not changed since
    the last run (size, times and inode) are not read again.

    Raises:
        SourceError: If a source is missing or empty.
        NothingMade: If not one clip can be used.
    """
    expansion = expand_sources(settings)
    if expansion.missing:
        raise SourceError("; ".join(expansion.missing))
    stats = {row.source_row: _stat_of(row.path) for row in expansion.candidates}

    def compute() -> StageRows:
        files = _MeasuredFiles(lake.root / "cache" / "measured_files.json")
        stage = _stage_rows(expansion.candidates, settings.corpus, files)
        files.save()
        stage.info = {"warnings": expansion.warnings, "files_read": files.read}
        return stage

    inputs = {
        "candidates": settings_hash([[asdict(row), stats[row.source_row]] for row in expansion.candidates]),
        "filters": settings_hash(_filters(settings.corpus)),
        "warnings": settings_hash(expansion.warnings),
    }
    ids = [row.source_row for row in expansion.candidates]
    return run_stage(lake, CLIP_MANIFEST, WHOLE, inputs, ids, compute, needs_rows=True)


def _stage_rows(candidates: list[Candidate], corpus: CorpusSettings, files: _MeasuredFiles) -> StageRows:
    rows: list[dict[str, Any]] = []
    outcomes: list[tuple[str, Outcome, str]] = []
    first_with: dict[Any, str] = {}
    for candidate in candidates:
        row, outcome, reason = _judge(candidate, corpus, files)
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
    candidate: Candidate, corpus: CorpusSettings, files: _MeasuredFiles
) -> tuple[dict[str, Any] | None, Outcome, str]:
    """A candidate's row, or None, with its outcome and reason."""
    if candidate.problem or candidate.path is None:
        return None, "failed", candidate.problem
    measured = files.measure(candidate.path)
    if measured.info is None or measured.sha256 is None:
        if candidate.origin == "folder" and candidate.path.suffix.lower() not in _VIDEO_SUFFIXES:
            return None, "filtered", f"{quoted(candidate.path)} is not a video"
        return None, "failed", measured.error
    span = _span_in_file(candidate, measured.info)
    if span is None:
        return None, "failed", _outside(candidate, measured.info)
    row = _row(candidate, measured.sha256, measured.info, span)
    reason = _why_filtered(row, corpus)
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
        "path": str(candidate.path),
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
    """Where the clip lies in its file, in seconds; None where it lies outside.

    A file as long as its span, which ends past the file, was cut from the source already.
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
        f"{quoted(candidate.path or '')} lasts {info.duration_s:.2f} s and the span is "
        f"{candidate.start_s or 0:g} s to {end}; mend the span"
    )


def _filters(corpus: CorpusSettings) -> dict[str, float]:
    return {"min_s": corpus.min_seconds, "max_s": corpus.max_seconds, "min_side": corpus.min_side}


def _why_filtered(row: dict[str, Any], corpus: CorpusSettings) -> str:
    """Which filter a clip fails, or nothing."""
    name, seconds, side = quoted(row["file_name"]), row["duration_s"], min(row["width"], row["height"])
    if seconds < corpus.min_seconds:
        return f"{name} lasts {seconds:.2f} s; corpus.min_seconds is {corpus.min_seconds:g}"
    if seconds > corpus.max_seconds:
        return f"{name} lasts {seconds:.2f} s; corpus.max_seconds is {corpus.max_seconds:g}"
    if side < corpus.min_side:
        return f"{name} has a side of {side} pixels; corpus.min_side is {corpus.min_side}"
    return ""


class _MeasuredFiles:
    """Hash and probe of files, remembered between runs by path, size, times and inode."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.read = 0
        self.used: dict[str, dict[str, Any]] = {}
        try:
            self.known: dict[str, dict[str, Any]] = json.loads(store.read_text())
        except (OSError, ValueError):
            self.known = {}

    def measure(self, path: Path) -> Measured:
        stat, key = _stat_of(path), str(path)
        entry = self.known.get(key)
        if entry is None or entry["stat"] != stat or stat is None:
            self.read += 1
            measured = _measure(path)
            if measured.error.endswith(READ_AGAIN):
                return measured
            entry = {"stat": stat, **asdict(measured)}
        self.known[key] = self.used[key] = entry
        info = None if entry["info"] is None else VideoInfo(**entry["info"])
        return Measured(entry["sha256"], info, entry["error"])

    def save(self) -> None:
        write_atomically(self.store, json.dumps(self.used).encode())


def _measure(path: Path) -> Measured:
    try:
        info = probe(path)
        return Measured(file_sha256(path), info)
    except VideoError as error:
        return Measured(None, None, str(error))
    except OSError as error:
        line = f"{quoted(path)} cannot be read: {error.strerror}; check the file"
        return Measured(None, None, str(VideoError(line, of_the_moment=passes(error))))


def _stat_of(path: Path | None) -> list[int] | None:
    try:
        stat = path.stat() if path is not None else None
    except (OSError, ValueError):
        return None
    if stat is None:
        return None
    return [DECODING_REVISION, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
