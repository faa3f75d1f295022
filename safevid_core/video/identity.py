"""Ids of clips: from the source video and the span, or from the file's bytes, but not from its name."""

from __future__ import annotations

from safevid_core.contracts.ids import content_id
from safevid_core.storage.file_hashes import file_sha256

__all__ = ["clip_id", "clip_id_of_file", "content_key", "file_sha256"]


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """The id of a span of a source video. Times are in seconds and are rounded to milliseconds."""
    return content_id("span", source_id, f"{start_s:.3f}", f"{end_s:.3f}")


def clip_id_of_file(sha256: str) -> str:
    """The id of a clip that is a whole file, from the SHA-256 of the file."""
    return content_id("file", sha256)


def content_key(media_sha256: str, start_s: float | None, end_s: float | None) -> str:
    """The name of what is stored about the pictures of a clip: the file's hash and the span in it."""
    return content_id(media_sha256, start_s, end_s)
