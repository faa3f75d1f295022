"""The pairs of a release in the formats of other tools. A format is one file and its name in `EXPORTS`."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from safevid_core.datasets.exports import (
    hugging_face,
    inspect_samples,
    llama_factory,
    llava_next,
    ms_swift,
    trl,
    webdataset,
)
from safevid_core.datasets.exports.clip_media import (
    Clip,
    clips_of,
    cut_clips,
    parts_of_files,
    whole_files,
    write_frames,
)
from safevid_core.datasets.exports.export import Export, ExportError, Written
from safevid_core.datasets.exports.release_rows import ReleaseRows, read_release
from safevid_core.storage.files import make_folder, move_folder
from safevid_core.storage.lake import Lake

EXPORTS: dict[str, Export] = {
    each.EXPORT.name: each.EXPORT
    for each in (
        hugging_face,
        inspect_samples,
        llama_factory,
        llava_next,
        ms_swift,
        trl,
        webdataset,
    )
}
# Errors of a disk, a quota or a file system that takes no more.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def export_pairs(
    lake: Lake,
    format: str,
    to: Path,
    release: str | None = None,
    *,
    frames: int | None = None,
    cut: bool = False,
    validation: float | None = None,
    seed: int = 0,
) -> Written:
    """Write the pairs of a release into a new folder; the texts are whole, harmful ones too.

    The folder appears when it is complete: an export that fails leaves nothing.

    Args:
        format: A name in :data:`EXPORTS`.
        to: The folder. It must be absent or empty.
        release: Id of the release. Defaults to the one in the table `safevid_350k_release`.
        frames: Frames of each clip, for the formats that hold frames.
        cut: Whether each clip is written as a video file of its own.
        validation: Share of the source videos whose pairs are for validation, from 0 to below 1. None keeps
            the split of a release that has one, and is 0.05 for others.
        seed: Of the draw of these source videos.

    Raises:
        ExportError: If the format is unknown, the folder is not empty or cannot be written, the disk is full,
            an option does not suit the format, or clips are parts of longer files and `cut` is not set.
        ReleaseMissing: If the lake does not hold the release.
        VideoError: If a video that the export needs is gone or cannot be decoded.
    """
    export = _export(format)
    _check_options(export, frames, cut, validation)
    refuse_used(to)
    rows = read_release(lake, release, validation=validation, seed=seed, placeholders=export.placeholders)
    rows, left_out = _without_placeholders(rows, export)
    with new_folder(to) as folder:
        rows = _with_media(lake, rows, export, folder, frames, cut)
        export.write(rows, folder)
    counts = {split: part.height for split, part in rows.splits.items()}
    return Written(to, rows.release, counts, left_out)


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder beside `to` that takes its name when the block ends, and is removed if the block fails.

    Raises:
        ExportError: If `to` holds something or cannot be written, or the disk is full.
    """
    refuse_used(to)
    to = to.absolute()
    try:
        make_folder(to.parent)
        scratch = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    except OSError as error:
        raise ExportError(f"{to} cannot be written ({error.strerror}); name another folder") from None
    try:
        yield scratch
        if not move_folder(scratch, to):
            raise ExportError(f"{to} was filled meanwhile; choose another folder")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        told = os.strerror(error.errno)
        raise ExportError(f"{to} cannot be written ({told}); make room, or name another folder") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_used(to: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ExportError: Names it.
    """
    if to.is_dir() and any(to.iterdir()):
        raise ExportError(f"{to} is not empty; name a new folder, or empty this one")
    if to.exists() and not to.is_dir():
        raise ExportError(f"{to} is a file; name a folder")


def _export(format: str) -> Export:
    if format not in EXPORTS:
        raise ExportError(f"no format {format!r} for pairs; there are: {', '.join(EXPORTS)}")
    return EXPORTS[format]


def _check_options(export: Export, frames: int | None, cut: bool, validation: float | None) -> None:
    if export.media == "frames" and frames is None:
        raise ExportError(f"{export.reader} gets frames and no videos; say how many with --frames, such as 8")
    if export.media != "frames" and frames is not None:
        raise ExportError(f"{export.name} holds no frames; leave --frames out")
    if frames is not None and not 1 <= frames <= 999:
        raise ExportError(f"--frames is {frames}; it must be from 1 to 999")
    if cut and export.media != "videos":
        raise ExportError(f"{export.name} holds no video files; leave --cut out")
    if validation is not None and not 0 <= validation < 1:
        raise ExportError(f"--validation is {validation:g}; it must be 0 or more and below 1")


def _without_placeholders(rows: ReleaseRows, export: Export) -> tuple[ReleaseRows, dict[str, int]]:
    """The rows whose texts the reader takes as they are, and how many others there are by reason."""
    kept = rows.pairs.filter(pl.col("placeholder").is_null())
    counts = dict(rows.pairs["placeholder"].drop_nulls().value_counts().iter_rows())
    left_out = {
        f"a text holds {word}, which {export.reader} replaces by media": counts[word]
        for word in export.placeholders
        if word in counts
    }
    if kept.is_empty():
        raise ExportError(f"no pair of release {rows.release} can be exported: {', '.join(left_out)}")
    return replace(rows, pairs=kept), left_out


def _with_media(
    lake: Lake, rows: ReleaseRows, export: Export, folder: Path, frames: int | None, cut: bool
) -> ReleaseRows:
    """The rows with paths of what the reader opens."""
    if export.media == "none":
        return rows
    clips = clips_of(lake, rows.pairs)
    if frames is not None:
        return replace(rows, frames=write_frames(lake, clips, frames, folder))
    if cut:
        return replace(rows, videos=cut_clips(clips, folder))
    _refuse_parts(clips, export)
    _refuse_endings(clips, export)
    return replace(rows, videos=whole_files(clips))


def _refuse_parts(clips: list[Clip], export: Export) -> None:
    parts = parts_of_files(clips)
    if parts:
        first = parts[0]
        end = "the end" if first.end_s is None else f"{first.end_s:g} s"
        raise ExportError(
            f"{len(parts)} of {len(clips)} clips are parts of longer files (clip {first.clip_id}: "
            f"{first.start_s:g} s to {end} of {first.path.name!r}), and {export.reader} reads files whole; "
            "give --cut, which writes each clip as a file of its own"
        )


def _refuse_endings(clips: list[Clip], export: Export) -> None:
    """Refuse files of a kind that the reader does not take."""
    if not export.suffixes:
        return
    other = [clip for clip in clips if clip.path.suffix.lower() not in export.suffixes]
    if other:
        raise ExportError(
            f"{export.reader} takes {', '.join(export.suffixes)}, and {len(other)} of {len(clips)} clips lie "
            f"in other files (the first: {other[0].path.name!r}); give --cut, which writes MP4 files"
        )


__all__ = ["EXPORTS", "Export", "ExportError", "ReleaseRows", "Written", "export_pairs", "new_folder"]
