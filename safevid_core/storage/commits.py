"""Writes a partition: first the data files, then the manifest that names them.

Every commit writes a new *generation* of data files with unique names. The data files and their folder are
synced before the manifest is written. So a killed run leaves either the old manifest or the new one, and all
files that it names. The old generation stays for a while, because a reader may have read the old manifest and
open its files later. The next commit removes older generations, and the files of killed commits.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import OUTCOMES, StageRows
from safevid_core.contracts.tables import Table
from safevid_core.storage.hashing import column_hashes, frame_hash, hash_of_columns
from safevid_core.storage.manifest import LAYOUT, Manifest
from safevid_core.storage.place import Place

MANIFEST = "manifest.json"
_ROW_GROUP_BYTES = 32 << 20  # of one row group in memory


def write_generation(
    place: Place,
    folder: str,
    table: Table,
    partition: str,
    stage: StageRows,
    *,
    profile: str,
    fingerprint: str,
    inputs: Mapping[str, str],
    seconds: float,
) -> Manifest:
    """Write rows and outcomes as new files in a folder, and return the manifest that names them.

    A second thread hashes the rows at the same time.
    """
    rows = stage.rows.select(table.schema.names())
    if not rows[table.key].is_sorted():
        rows = rows.sort(table.key)
    rows = rows.with_columns(pl.lit(profile).alias("profile"))
    outcomes = stage.outcome_frame().sort("input_id")
    generation = secrets.token_hex(6)
    files = {kind: f"{kind}-{generation}.parquet" for kind in ("rows", "outcomes")}
    with ThreadPoolExecutor(1) as beside:
        hashes = beside.submit(column_hashes, rows.drop(table.volatile, strict=False))
        for kind, frame in (("rows", rows), ("outcomes", outcomes)):
            with place.new_file(f"{folder}/{files[kind]}") as path:
                frame.write_parquet(path, compression="zstd", row_group_size=_row_group_size(frame))
        place.sync(folder)
        columns = hashes.result()
    counts = dict(outcomes.group_by("outcome").len().iter_rows())
    return Manifest(
        asset=table.name,
        partition=partition,
        profile=profile,
        fingerprint=fingerprint,
        content_hash=hash_of_columns(columns),
        rows=rows.height,
        outcomes={name: counts.get(name, 0) for name in OUTCOMES},
        files=files,
        inputs=dict(inputs),
        info=stage.info,
        seconds=seconds,
        committed_at=time.time(),
        layout=LAYOUT,
        columns=columns,
        outcomes_hash=frame_hash(outcomes),
    )


def write_manifest(place: Place, folder: str, manifest: Manifest) -> None:
    place.write(f"{folder}/{MANIFEST}", manifest_bytes(manifest))


def manifest_bytes(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), indent=1).encode()


def with_earlier(manifest: Manifest, before: Manifest | None, keep_s: float) -> Manifest:
    """The manifest, with the earlier generations that were replaced less than `keep_s` seconds ago."""
    if before is None:
        return manifest
    replaced = [*before.earlier, {"files": before.files, "until": manifest.committed_at}]
    kept = [each for each in replaced if each["until"] > manifest.committed_at - keep_s]
    return replace(manifest, earlier=kept)


def remove_old_files(place: Place, folder: str, manifest: Manifest, keep_s: float) -> None:
    """Remove data files that the manifest does not name and that are older than `keep_s` seconds.

    Younger files may belong to a commit that is being written. Other files are not touched.
    """
    named = set(_named(manifest))
    for name in place.names(folder, hidden=True):
        if name in named or not name.startswith(("rows-", "outcomes-", f".{MANIFEST}.")):
            continue
        written = place.modified(f"{folder}/{name}")
        if written is not None and written <= time.time() - keep_s:
            place.remove(f"{folder}/{name}")


def _named(manifest: Manifest) -> Iterator[str]:
    for files in (manifest.files, *(each["files"] for each in manifest.earlier)):
        yield from files.values()


def _row_group_size(frame: pl.DataFrame) -> int:
    row_bytes: Any = frame.estimated_size() / max(1, frame.height)
    return max(1_024, min(262_144, int(_ROW_GROUP_BYTES / max(1.0, row_bytes))))
