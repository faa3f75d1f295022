"""Uniform frames of a clip with a cache, so that callers who ask for the same frames decode them once."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safevid_core.contracts.ids import content_id
from safevid_core.storage.file_hashes import state_of
from safevid_core.storage.frames import FrameCache, Frames
from safevid_core.video.decoding import decode_uniform
from safevid_core.video.opening import DECODING_REVISION


def uniform_frames(
    path: str | os.PathLike[str],
    n: int,
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    media_sha256: str | None = None,
    stored: FrameCache | None = None,
) -> Frames:
    """The frames of :func:`~safevid_core.video.decoding.decode_uniform`, from the cache if it has them.

    Frames are stored only if the file at `path` has the hash `media_sha256` before and after decoding.

    Args:
        path: The file, or a `MediaFile` that finds it. It is not opened if the cache has the frames.
        n: Number of frames.
        start_s: Start of the span in seconds. None means the video's start.
        end_s: End of the span in seconds. None means the video's end.
        media_sha256: Hash of the file's bytes. None decodes without the cache.
        stored: The cache. None decodes without it.

    Raises:
        VideoError: If the frames are not in the cache and the file cannot be decoded.
    """
    start_s = start_s or 0.0
    if stored is None or media_sha256 is None:
        return decode_uniform(path, n, start_s, end_s)
    key = frames_key(media_sha256, n, start_s, end_s)
    frames = stored.read(key)
    if frames is not None:
        return frames
    path = Path(path)
    before = _state(path)
    frames = decode_uniform(path, n, start_s, end_s)
    if before is not None and _has_hash(path, media_sha256, stored) and _state(path) == before:
        stored.write(key, frames, media_sha256)
    return frames


def frames_key(media_sha256: str, n: int, start_s: float, end_s: float | None) -> str:
    """The cache key: the file's hash, the number of frames, the span, and the versions of the decoders."""
    span = [float(start_s), None if end_s is None else float(end_s)]
    return content_id(media_sha256, f"uniform/{n}", *span, _decoders(), length=40)


@lru_cache(maxsize=1)
def _decoders() -> str:
    """Our revision and the versions of the decoders. Two versions may round a pixel differently."""
    return f"{DECODING_REVISION} av {_version('av')} decord {_version('decord')}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _state(path: Path) -> str | None:
    try:
        return state_of(path)
    except (OSError, ValueError):
        return None


def _has_hash(path: Path, sha256: str, stored: FrameCache) -> bool:
    try:
        return stored.hashes.sha256(path) == sha256
    except (OSError, ValueError):
        return False
