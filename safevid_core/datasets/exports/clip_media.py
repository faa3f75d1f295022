"""Videos and frames of an export's clips: paths of whole files, clips cut out of longer ones, JPEG frames."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from safevid_core.contracts.errors import VideoError
from safevid_core.contracts.ids import content_id
from safevid_core.storage.lake import Lake
from safevid_core.video.decoding import iterate_frames, probe, quoted
from safevid_core.video.uniform_frames import uniform_frames

VIDEOS, FRAMES = "videos", "frames"
# A clip whose ends are this near to those of its file is the whole file.
_SLACK_S = 0.5
_QUALITY = 95
_TICK = Fraction(1, 90_000)
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True)
class Clip:
    """A clip of the export, with the place of its bytes."""

    clip_id: str
    split: str
    path: Path
    media_sha256: str
    start_s: float
    end_s: float | None

    @property
    def name(self) -> str:
        """The clip's id as a part of a path."""
        return safe_name(self.clip_id)


def safe_name(name: str) -> str:
    """A name without dots, separators and spaces: the name itself, or its content id."""
    return name if name and _SAFE.issuperset(name) else content_id(name)


def clips_of(lake: Lake, pairs: pl.DataFrame) -> list[Clip]:
    """The clips of the pairs, each with its file.

    Raises:
        VideoError: If a clip's file is gone or the pairs name none; names the first.
    """
    columns = ("clip_id", "split", "media_sha256", "start_s", "end_s")
    rows = pairs.select(columns).unique("clip_id", keep="first", maintain_order=True).rows()
    places = lake.media.paths(sha256 for _, _, sha256, _, _ in rows if sha256)
    clips = []
    for clip_id, split, sha256, start_s, end_s in rows:
        if sha256 is None:
            raise VideoError(f"clip {clip_id}: its pairs name no video file; make the pairs again")
        # `path` says why a place is missing.
        path = places.get(sha256) or lake.media.path(sha256)
        clips.append(Clip(clip_id, split, path.absolute(), sha256, start_s or 0.0, end_s))
    return clips


def parts_of_files(clips: list[Clip]) -> list[Clip]:
    """The clips that are a part of a longer file.

    Raises:
        VideoError: If a file cannot be read.
    """
    lengths: dict[Path, float] = {}
    parts = []
    for clip in clips:
        if clip.start_s > _SLACK_S:
            parts.append(clip)
        elif clip.end_s is not None:
            if clip.path not in lengths:
                lengths[clip.path] = _length(clip.path)
            if clip.end_s < lengths[clip.path] - _SLACK_S:
                parts.append(clip)
    return parts


def cut_clips(clips: list[Clip], folder: Path) -> dict[str, str]:
    """Write each clip as `videos/<clip>.mp4`; clip id -> path relative to the folder."""
    (folder / VIDEOS).mkdir()
    places = {clip.clip_id: f"{VIDEOS}/{clip.name}.mp4" for clip in clips}
    _on_threads(lambda clip: _write_mp4(clip, folder / places[clip.clip_id]), clips)
    return places


def write_frames(lake: Lake, clips: list[Clip], n: int, folder: Path) -> dict[str, tuple[str, ...]]:
    """Write `n` uniform frames of each clip as JPEG files below `<split>/frames/<clip>`.

    Returns:
        Clip id -> paths relative to the folder of the split.
    """
    from PIL import Image

    names = [f"{number:03}.jpg" for number in range(n)]
    stored = lake.frames

    def write(clip: Clip) -> None:
        frames = uniform_frames(
            clip.path, n, clip.start_s, clip.end_s, media_sha256=clip.media_sha256, stored=stored
        )
        below = folder / clip.split / FRAMES / clip.name
        below.mkdir(parents=True)
        for name, pixels in zip(names, frames.pixels, strict=True):
            data = io.BytesIO()  # an encoder that writes to a full disk does not say that it is full
            Image.fromarray(pixels).save(data, "JPEG", quality=_QUALITY)
            (below / name).write_bytes(data.getvalue())

    _on_threads(write, clips)
    return {clip.clip_id: tuple(f"{FRAMES}/{clip.name}/{name}" for name in names) for clip in clips}


def _on_threads(work: Callable[[Clip], None], clips: list[Clip]) -> None:
    """Work on clips on all cores; the decoders and encoders let other threads run.

    The first error is raised, and clips that are not begun are left.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        done = [threads.submit(work, clip) for clip in clips]
        try:
            for each in done:
                each.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def whole_files(clips: list[Clip]) -> Mapping[str, str]:
    """Clip id -> absolute path of its file."""
    return {clip.clip_id: os.fspath(clip.path) for clip in clips}


def _length(path: Path) -> float:
    """Seconds by the file's header, which costs no pass over its packets; by :func:`probe` if it has none."""
    import av

    try:
        with av.open(str(path)) as container:
            length = container.duration
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{quoted(path)} cannot be read ({error}); fetch it again") from None
    return length / 1e6 if length else probe(path).duration_s


def _write_mp4(clip: Clip, path: Path) -> None:
    """The clip as H.264 with the times of its frames, without sound."""
    import av

    frames = iterate_frames(clip.path, start_s=clip.start_s, end_s=clip.end_s)
    rate = Fraction(probe(clip.path).fps).limit_denominator(1001)
    data = io.BytesIO()  # PyAV 18.1 does not say that a disk is full when it closes a file
    with av.open(data, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "18", "flags": "+bitexact"})
        stream.codec_context.time_base = _TICK
        for number, (time_s, pixels) in enumerate(frames):
            # yuv420p needs even sides: an odd last row or column is left out.
            height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
            if number == 0:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            picture = np.ascontiguousarray(pixels[:height, :width])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round((time_s - clip.start_s) / _TICK), _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(data.getvalue())
