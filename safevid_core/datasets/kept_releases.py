"""The releases that a lake keeps as folders, and the pairs that each of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.release_folder import KIND, ReleaseUnreadable, read_record
from safevid_core.storage.lake import Lake
from safevid_core.storage.release_folders import read_columns

_NAMED = pl.Schema(
    {
        "pair_id": pl.String, "query_id": pl.String, "clip_id": pl.String, "media_sha256": pl.String,
        "start_s": pl.Float64, "end_s": pl.Float64, "release": pl.String,
    }
)  # fmt: skip


class ReleaseMissing(SafeVidError, ValueError):
    """A release that the lake does not hold; the message names those that it holds."""


@dataclass(frozen=True)
class KeptRelease:
    """A release folder.

    Attributes:
        address: Its address in the lake, such as `blobs/release/<hash>`.
        pairs: Ids, clip and release id of its pairs.
    """

    address: str
    pairs: pl.DataFrame

    @property
    def releases(self) -> list[str]:
        """The release ids of its rows; a folder holds one."""
        return self.pairs["release"].drop_nulls().unique().sort().to_list()

    def with_any(self, ids: Mapping[str, Iterable[Any]]) -> KeptRelease:
        """The same folder with those of its pairs that have one of the ids, by column."""
        conditions = [pl.col(name).is_in(list(ids[name])) for name in _NAMED if name in ids]
        found = self.pairs.filter(pl.any_horizontal(conditions)) if conditions else self.pairs.clear()
        return KeptRelease(self.address, found)

    def as_dict(self) -> dict[str, Any]:
        return {"address": self.address, "release": self.releases, "pairs": self.pairs["pair_id"].to_list()}


def kept_releases(lake: Lake) -> list[KeptRelease]:
    """Every release folder of a lake. Only ids are read."""
    return [
        KeptRelease(address, read_columns(lake.local_directory(address), _NAMED))
        for address in lake.directories(KIND)
    ]


def release_folder(lake: Lake, wanted: str | None = None) -> Path:
    """The local folder of a release of the lake.

    Args:
        wanted: A version, an id or the beginning of one, or the address of the folder. None means the release
            in the table `safevid_350k_release`.

    Raises:
        ReleaseMissing: If the lake holds no such release, or the word begins several ids.
    """
    manifest = lake.manifest(RELEASE.name)
    current = None if manifest is None else str(manifest.info.get("path", ""))
    if wanted is None:
        if not current:
            raise ReleaseMissing("the lake holds no release; run safevid_350k_release first")
        return lake.local_directory(current)
    # The current folder comes first: the same release may have an older folder with another card.
    addresses = sorted(lake.directories(KIND), key=lambda each: each != current)
    folders: dict[str, Path] = {}
    names: dict[str, str] = {}
    for address in addresses:
        folder = lake.local_directory(address)
        try:
            record = read_record(folder)
        except ReleaseUnreadable:
            continue
        folders.setdefault(record.release, folder)
        names.setdefault(record.release, record.version)
        if wanted in (address, record.version) and wanted:
            return folder
    # The empty word begins every id, and names none.
    beginning = [name for name in folders if wanted and name.startswith(wanted)]
    matching = [wanted] if wanted in folders else beginning
    if len(matching) > 1:
        raise ReleaseMissing(f"{wanted!r} begins several releases: {', '.join(matching)}; write one whole")
    if not matching:
        told = (f"{names[each]} ({each})" if names[each] else each for each in folders)
        raise ReleaseMissing(f"no release {wanted!r}; the lake holds: {', '.join(told) or 'none'}")
    return folders[matching[0]]
