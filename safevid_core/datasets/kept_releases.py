"""The releases that a lake keeps as folders, and the pairs that each of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.storage.lake import Lake

KIND = "release"
_NAMED = pl.Schema(
    {
        "pair_id": pl.String, "query_id": pl.String, "clip_id": pl.String, "media_sha256": pl.String,
        "start_s": pl.Float64, "end_s": pl.Float64, "release": pl.String,
    }
)  # fmt: skip


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
    found = []
    for address in lake.directories(KIND):
        folder = lake.local_directory(address)
        parts = [_named(path) for path in sorted(folder.rglob("*")) if path.suffix in (".jsonl", ".parquet")]
        found.append(KeptRelease(address, pl.concat([pl.DataFrame(schema=_NAMED), *parts])))
    return found


def _named(path: Path) -> pl.DataFrame:
    """The ids in a data file of a release; none if the file holds no pairs."""
    if not path.stat().st_size:
        return pl.DataFrame(schema=_NAMED)
    if path.suffix == ".parquet":
        there = pl.read_parquet_schema(path)
        if "pair_id" not in there:
            return pl.DataFrame(schema=_NAMED)
        rows = pl.scan_parquet(path).select([name for name in _NAMED if name in there]).collect()
    else:
        rows = pl.read_ndjson(path, schema=_NAMED).drop_nulls("pair_id")
    missing = [pl.lit(None, kind).alias(name) for name, kind in _NAMED.items() if name not in rows.columns]
    return rows.with_columns(missing).select(_NAMED.names()).cast(_NAMED)
