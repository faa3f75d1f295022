"""The sealed truth of rendered clips. Nothing but this module opens the file.

The pocket judge and the tests come here; no stage does, so that nothing the pipeline makes can have
read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any


class SealedError(RuntimeError):
    """A sealed file that cannot be read; the message names it and the mend."""


@dataclass(frozen=True)
class SealedClip:
    """What the pixels of one rendered clip show."""

    scene: str
    object: str
    colour: str
    motion: str
    event: str
    hazardous: bool
    source_id: str
    twin_group: str | None


def sealed_path(root: Path, name: str = "truth") -> Path:
    """Where the sealed truth of one set of rendered clips lies below the lake's root."""
    return root / "pocket" / "sealed" / f"{name}.json"


def read_sealed(root: Path) -> Mapping[str, SealedClip]:
    """SHA-256 of a clip's bytes -> what it shows, over all sets; empty where no clip was rendered.

    Raises:
        SealedError: If a file is there and cannot be read.
    """
    found: dict[str, SealedClip] = {}
    for path in sorted(sealed_path(root).parent.glob("*.json")):
        stat = path.stat()
        found |= _read(path, stat.st_mtime_ns, stat.st_size)
    return found


@lru_cache(maxsize=8)
def _read(path: Path, modified: int, size: int) -> Mapping[str, SealedClip]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {sha256: _clip(entry) for sha256, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SealedError(f"sealed truth {path}: {error}; delete its folder and render again") from None


def _clip(entry: dict[str, Any]) -> SealedClip:
    return SealedClip(**{field.name: entry[field.name] for field in fields(SealedClip)})
