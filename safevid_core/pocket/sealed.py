"""Reads the sealed truth of rendered clips. No other module opens the file.

The pocket judge and the tests use this module. No stage uses it, so the sealed truth cannot reach what the
pipeline makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from safevid_core.contracts.errors import SafeVidError


class SealedError(SafeVidError, RuntimeError):
    """The sealed truth cannot be read. The message names the file and what to do."""


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
    """The file with the sealed truth of one set of rendered clips, below the lake's root."""
    return root / "pocket" / "sealed" / f"{name}.json"


def read_sealed(root: Path) -> Mapping[str, SealedClip]:
    """SHA-256 of a clip's bytes -> what the clip shows, over all sets. Empty if no clip was rendered.

    Raises:
        SealedError: If a file exists and cannot be read.
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
