"""A cache of decoded frames on disk. If it is full, the least recently used files are removed.

One file holds the frames of one key: a checksum, a JSON header, and the pixels compressed by Zstandard at
level 1. This format takes a third to a half of the bytes of raw pixels and is read about ten times as fast as
PNG (`python -m benchmarks.frame_cache`). A file that is damaged, truncated or of another key is removed and
counts as absent. The folder may be deleted at any time.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safevid_core.storage.file_hashes import FileHashes

if TYPE_CHECKING:
    import numpy as np

DEFAULT_GB = 2.0
_MAGIC = b"SVF1"
_LEADING = struct.Struct("<4sII")  # magic, CRC-32 of all that follows, length of the header
_LEVEL = 1
_SUFFIX = ".frames"
# A temporary file of this age was left by a killed writer. No write takes that long.
_ABANDONED_S = 3600.0
# The share of the limit that is left after files were removed.
_KEPT = 0.875
# The limit holds for up to this many processes that write at the same time.
_WRITERS = 8
# The time of the last use is recorded at most this often.
_USE_S = 60.0


@dataclass(frozen=True)
class Frames:
    """Decoded frames of a span.

    Attributes:
        pixels: uint8 RGB `[T, H, W, 3]`.
        times_s: Start of each frame in seconds from the video's start.
        span_s: The span's exact length in seconds. None if the frames do not belong to a span.
    """

    pixels: np.ndarray
    times_s: list[float]
    span_s: float | None = None


class FrameCache:
    """Frames by key, in a folder on a local disk. Threads and processes may share the folder.

    Args:
        folder: The folder of the cache. It is created at the first write.
        limit_bytes: Upper limit of the total size of the files. 0 stores nothing.
        hashes: Hashes of the video files. A caller checks with them that a key still belongs to its file.
    """

    def __init__(self, folder: Path, limit_bytes: int, hashes: FileHashes | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self.hashes = hashes or FileHashes()
        # Bytes that may still be written until the folder is listed again. The first write lists it.
        self._allowance = 0

    @classmethod
    def below(cls, root: Path, gb: float = DEFAULT_GB, hashes: FileHashes | None = None) -> FrameCache:
        """The cache of the lake with this root, of at most `gb` gigabytes (10^9 bytes)."""
        return cls(root / "cache" / "frames", int(gb * 1e9), hashes or FileHashes.below(root))

    def read(self, key: str) -> Frames | None:
        """The frames stored under a key. None if there are none. The caller may change the pixels."""
        if not self.limit_bytes:
            return None
        path = self._path(key)
        try:
            data = path.read_bytes()
            frames = _unpacked(data, key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # another process may have removed it meanwhile
            if time.time() - path.stat().st_mtime > _USE_S:
                os.utime(path)
        return frames

    def write(self, key: str, frames: Frames, media_sha256: str = "") -> None:
        """Store frames under a key, with the hash of the file that they are of.

        If there is no room, the least recently used files are removed.

        Nothing is stored if the disk cannot be written, or if the file would exceed an eighth of the limit.
        """
        if not self.limit_bytes:
            return
        data = _packed(key, frames, media_sha256)
        if len(data) > self.limit_bytes * (1 - _KEPT):
            return
        with suppress(OSError):
            self._make_room(len(data))
            _replace(self._path(key), data)

    def files_of(self, hashes: Collection[str], *, unnamed: bool = False) -> list[Path]:
        """The files with frames of some media, by the SHA-256 of the media. Only headers are read.

        Args:
            hashes: Of the media.
            unnamed: Whether to give also the files that do not name their media. Earlier versions wrote such
                files.
        """
        wanted = {*hashes, *([""] if unnamed else [])}
        found = []
        for entry in self._entries() if hashes else ():
            with suppress(OSError):
                if _media_of(entry.path) in wanted:
                    found.append(Path(entry.path))
        return sorted(found)

    def bytes_stored(self) -> int:
        """The total size of the files."""
        return sum(entry.size for entry in self._entries())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _make_room(self, size: int) -> None:
        """Remove old files. The folder is listed often enough that `_WRITERS` processes keep the limit."""
        self._allowance -= size
        if self._allowance >= 0:
            return
        entries = list(self._entries())
        total = sum(entry.size for entry in entries)
        if total + size > self.limit_bytes * _KEPT:
            heapq.heapify(entries)
            while entries and total + size > self.limit_bytes * _KEPT:
                oldest = heapq.heappop(entries)
                with suppress(OSError):
                    os.unlink(oldest.path)
                total -= oldest.size
        self._allowance = int((self.limit_bytes - total - size) / _WRITERS)

    def _entries(self) -> Iterator[_Entry]:
        """The files of the folder. Temporary files of killed writers are removed."""
        try:
            shards = [shard.path for shard in os.scandir(self.folder) if shard.is_dir()]
        except OSError:
            return
        for shard in shards:
            try:
                files = list(os.scandir(shard))
            except OSError:
                continue
            for file in files:
                with suppress(OSError):  # another process may remove files meanwhile
                    stat = file.stat()
                    if not file.name.endswith(_SUFFIX) and time.time() - stat.st_mtime > _ABANDONED_S:
                        os.unlink(file.path)
                    else:
                        yield _Entry(stat.st_mtime_ns, stat.st_size, file.path)


class _Entry(NamedTuple):
    used_ns: int
    size: int
    path: str


def _media_of(path: str) -> str:
    """The hash of the media that a file's frames are of; empty if its header does not tell."""
    with open(path, "rb") as file:
        leading = file.read(_LEADING.size)
        if len(leading) < _LEADING.size:
            return ""
        try:
            return str(json.loads(file.read(_LEADING.unpack(leading)[2])).get("media", ""))
        except (ValueError, AttributeError):
            return ""


def _packed(key: str, frames: Frames, media_sha256: str = "") -> bytes:
    import numpy as np
    import pyarrow as pa

    pixels = np.ascontiguousarray(frames.pixels)
    if pixels.dtype != np.uint8:
        raise ValueError(f"frames are uint8; these are {pixels.dtype}")
    span = None if frames.span_s is None else float(frames.span_s)
    fields = {
        "key": key,
        "shape": pixels.shape,
        "times_s": [float(t) for t in frames.times_s],
        "span_s": span,
    }
    if media_sha256:
        fields["media"] = media_sha256
    header = json.dumps(fields).encode()
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    body = header + codec.compress(pixels.reshape(-1).data, asbytes=True)
    return _LEADING.pack(_MAGIC, zlib.crc32(body), len(header)) + body


def _unpacked(data: bytes, key: str) -> Frames:
    """The frames in a file's bytes.

    Raises:
        ValueError, KeyError, TypeError, OSError: If the bytes are not a file of this key.
    """
    import numpy as np
    import pyarrow as pa

    if len(data) < _LEADING.size:
        raise ValueError("cut off")
    magic, checksum, length = _LEADING.unpack_from(data)
    body = memoryview(data)[_LEADING.size :]
    if magic != _MAGIC or zlib.crc32(body) != checksum:
        raise ValueError("damaged")
    fields: dict[str, Any] = json.loads(bytes(body[:length]))
    if fields["key"] != key:
        raise ValueError("of another key")
    shape = fields["shape"]
    plain = pa.Codec("zstd").decompress(pa.py_buffer(body[length:]), math.prod(shape))
    return Frames(np.frombuffer(plain, np.uint8).reshape(shape), fields["times_s"], fields["span_s"])


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole, in place of an earlier one.

    It is not synced, because a checksum detects a file that a power cut has damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
