"""What makes two clips the same clip: the source and its span, or the bytes. Never a file name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safevid_core.records import content_id

_CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """The id of a span of a source video. Times are seconds and count to the millisecond."""
    return content_id("span", source_id, f"{start_s:.3f}", f"{end_s:.3f}")


def clip_id_of_file(sha256: str) -> str:
    """The id of a clip that is a whole file, from the file's SHA-256."""
    return content_id("file", sha256)
