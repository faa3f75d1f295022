"""Finds and removes files of a lake that are not needed: caches, older generations, scratch of dead runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safevid_core.contracts.errors import SafeVidError
from safevid_core.storage.lake import Lake

# Folders of caches -> their names for people. A removed cache is made again when it is needed.
CACHES = {"cache": "cache", "features": "features of frozen vision towers", "references": "reference passes"}
# Everything that SafeVid writes below a root. Other files there are not removed.
OWN = (
    "blobs", "cache", "dagster", "exports", "features", "pocket", "references", "reports", "reviews",
    "tables", "training", "withdrawals", "ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal",
    "layout.json", "sign_off.yaml",
)  # fmt: skip


class CleaningError(SafeVidError, RuntimeError):
    """A folder cannot be cleaned, and nothing in it is removed."""


_SCRATCH_S = 86_400.0  # scratch files of this age were left by a dead run


@dataclass(frozen=True)
class Removable:
    """Files that can be removed.

    Attributes:
        what: The kind of files, in words.
        paths: Files and folders below the root.
        size: Total size in bytes.
    """

    what: str
    paths: tuple[Path, ...]
    size: int


def removable_of(lake: Lake) -> list[Removable]:
    """The files that a lake does not need, largest kind first. No manifest names any of them."""
    root = lake.local_path()
    found = [_removable(root, what, [root / name]) for name, what in CACHES.items()]
    found.append(_removable(root, "older generations of tables", _older_generations(lake)))
    scratch = [*root.glob("blobs/*/.new-*"), *root.glob("tables/*/*/.*")]
    scratch = [path for path in scratch if _is_older(path, _SCRATCH_S)]
    found.append(_removable(root, "scratch of dead runs", scratch))
    return sorted((each for each in found if each.paths), key=lambda each: -each.size)


def all_of(root: Path) -> list[Removable]:
    """Everything that SafeVid has written below a root.

    Raises:
        CleaningError: If the folder is not the root of a lake.
    """
    if not any((root / name).exists() for name in ("tables", "dagster", "ledger.sqlite")):
        raise CleaningError(f"{root} holds no lake; check SAFEVID_ROOT")
    return [each for name in OWN if (each := _removable(root, name, [root / name])).paths]


def remove(root: Path, some: Sequence[Removable]) -> None:
    """Remove files below a root. Of a symbolic link only the link is removed.

    Raises:
        CleaningError: If a path is not below the root.
    """
    for path in (path for each in some for path in each.paths):
        if path.parent.resolve() != root.resolve() and root.resolve() not in path.parent.resolve().parents:
            raise CleaningError(f"{path} is not below {root}; it is not removed")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _older_generations(lake: Lake) -> Iterator[Path]:
    """Data files that their folder's manifest does not name and that are too old to have a reader."""
    for asset in lake.assets():
        for partition in lake.partitions(asset):
            manifest = lake.manifest(asset, partition)
            if manifest is None:
                continue
            for path in Path(lake.place_of(asset, partition)).glob("*.parquet"):
                if path.name not in manifest.files.values() and _is_older(path, lake.keep_generations_s):
                    yield path


def _is_older(path: Path, seconds: float) -> bool:
    """Whether a file was written more than `seconds` ago."""
    return path.lstat().st_mtime <= time.time() - seconds


def _removable(root: Path, what: str, paths: Sequence[Path] | Iterator[Path]) -> Removable:
    there = tuple(path for path in paths if path.exists() or path.is_symlink())
    return Removable(what, there, sum(map(_size, there)))


def _size(path: Path) -> int:
    if path.is_symlink():
        return 0
    if path.is_dir():
        return sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size
