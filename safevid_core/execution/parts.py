"""The finished batches of a partition that is not committed yet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.storage.lake import Lake, write_atomically


class Parts:
    """The finished batches of one partition, stored in the lake's cache folder by the ids of their units.

    Args:
        fingerprint: The fingerprint of the partition as it would be made now. Batches that were made for
            another fingerprint are not read.
    """

    def __init__(self, lake: Lake, stage: str, partition: str, fingerprint: str = "") -> None:
        self._whole = lake.cache_folder("parts") / content_id(stage, partition)
        self._folder = self._whole / fingerprint

    def read(self, units: Sequence[str]) -> StageRows | None:
        """The batch with these units. None if it is not stored."""
        rows, rest = self._files(units)
        try:
            rest_of_rows = json.loads(rest.read_text())
            return StageRows(
                pl.read_parquet(rows),
                [tuple(each) for each in rest_of_rows["outcomes"]],
                rest_of_rows["info"],
            )
        except (OSError, ValueError, pl.exceptions.PolarsError):
            return None

    def write(self, units: Sequence[str], batch: StageRows) -> None:
        """Store a batch. The JSON file is written last, and a batch without it is not read."""
        rows, rest = self._files(units)
        self._folder.mkdir(parents=True, exist_ok=True)
        batch.rows.write_parquet(rows)
        write_atomically(rest, json.dumps({"outcomes": batch.outcomes, "info": batch.info}).encode())

    def remove(self) -> None:
        """Remove all batches of the partition, also those of other fingerprints."""
        shutil.rmtree(self._whole, ignore_errors=True)

    def _files(self, units: Sequence[str]) -> tuple[Path, Path]:
        name = content_id(*units)
        return self._folder / f"{name}.parquet", self._folder / f"{name}.json"
