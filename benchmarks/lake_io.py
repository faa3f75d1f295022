"""Hashing, committing, reading and checking a table of 1,000,000 rows with 512 float16 values each.

The hash's peer is that of layout 1, one NDJSON text, over slices of 50,000 rows: the whole text takes more
memory than most machines have, and slices make it no slower. Peers of a commit are pyarrow datasets with the
same compression: as they are, and synced to the disk as a commit is. The goal of a commit is 0.8 times the
plain one, which neither hashes nor syncs; that of the hash is 8 times the NDJSON one, in 256 MB beside the
table. Run with ``python -m benchmarks.lake_io``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.dataset as ds

from benchmarks import print_result
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.storage.files import sync_folder
from safevid_core.storage.hashing import frame_hash
from safevid_core.storage.lake import Lake, LakeError, audit_partition, check_conservation
from safevid_core.storage.layout import earlier_frame_hash

ROWS, WIDTH, SLICE = 1_000_000, 512, 50_000
REPEATS = 3  # the best of each counts
GOAL_RATIO, GOAL_MB, GOAL_CHECK_S = 8.0, 256.0, 3.0
TABLE = Table(
    "vectors",
    "clip_id",
    "clip_id",
    pl.Schema({"clip_id": pl.String, "scene": pl.String, "embedding": pl.List(pl.Float16)}),
)


class PeakMemory:
    """Memory of this process over that at the start of the block, sampled every 5 ms; `mb` afterwards."""

    def __enter__(self) -> PeakMemory:
        self._before = self._most = _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.mb = (self._most - self._before) / 1e6

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._most = max(self._most, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_rows(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    # Values repeat after 50,000 rows, 50 MB: no compression looks back so far.
    block = rng.standard_normal((min(rows, SLICE), WIDTH), dtype=np.float32).astype(np.float16)
    vectors = np.tile(block, (-(-rows // len(block)), 1))[:rows]
    ids = pl.select(clip_id=pl.format("clip_{}", pl.int_range(rows).cast(pl.String).str.zfill(8)))
    return ids.with_columns(
        scene=pl.lit("kitchen"), embedding=pl.Series(vectors).cast(pl.List(pl.Float16))
    ).select(TABLE.schema.names())


def seconds(
    work: Callable[[], Any], clean: Callable[[], Any] = lambda: None, repeats: int = REPEATS
) -> float:
    best = float("inf")
    for _ in range(repeats):
        clean()
        started = time.monotonic()
        work()
        best = min(best, time.monotonic() - started)
    return best


def earlier(rows: pl.DataFrame) -> None:
    for part in rows.iter_slices(SLICE):
        earlier_frame_hash(part)


def case(name: str, ours: float, peers: dict[str, float], ratio: float) -> dict[str, Any]:
    print(f"{name}: {ours:,.4g}; {peers}; ratio {ratio:.3g}", file=sys.stderr)
    peers = {peer: round(value, 3) for peer, value in peers.items()}
    return {"case": name, "ours": round(ours, 3), "peers": peers, "ratio": round(ratio, 3)}


def hash_cases(rows: pl.DataFrame) -> list[dict[str, Any]]:
    height = rows.height
    first, second = rows.slice(0, SLICE), rows.slice(0, SLICE)
    with PeakMemory() as of_slice:
        frame_hash(first)
    with PeakMemory() as of_text:
        earlier_frame_hash(second)
    with PeakMemory() as of_all:
        frame_hash(rows)
    ours = height / seconds(lambda: frame_hash(rows))
    peer = height / seconds(lambda: earlier(rows), repeats=1)
    return [
        case("hash, rows/s", ours, {"ndjson": peer, "goal": GOAL_RATIO * peer}, ours / peer),
        case("hash, MB beside all rows", of_all.mb, {"goal": GOAL_MB}, GOAL_MB / max(1.0, of_all.mb)),
        case(
            f"hash, MB beside {SLICE:,} rows",
            of_slice.mb,
            {"ndjson": of_text.mb},
            of_text.mb / max(1.0, of_slice.mb),
        ),
    ]


def io_cases(rows: pl.DataFrame, stage: StageRows, folder: Path) -> list[dict[str, Any]]:
    height = rows.height
    lake, plain = Lake(folder / "lake", "pocket", keep_generations_s=0), folder / "plain"
    options = ds.ParquetFileFormat().make_write_options(compression="zstd")
    table = rows.to_arrow()

    def write_plain() -> None:
        ds.write_dataset(table, plain, format="parquet", file_options=options)

    def write_synced() -> None:
        write_plain()
        sync_folder(plain)

    def clean() -> None:
        shutil.rmtree(plain, ignore_errors=True)
        shutil.rmtree(lake.folder(TABLE.name), ignore_errors=True)

    synced = height / seconds(write_synced, clean)
    written = height / seconds(write_plain, clean)
    committed = height / seconds(lambda: lake.commit(TABLE, "all", stage, "f", {}), clean)
    write_plain()
    read = height / seconds(lambda: ds.dataset(plain).to_table())
    scanned = height / seconds(lambda: lake.scan(TABLE).collect())
    with PeakMemory() as of_audit:
        audit_partition(lake, TABLE, "all")
    audited = height / seconds(lambda: audit_partition(lake, TABLE, "all"))
    return [
        case(
            "commit, rows/s", committed, {"pyarrow": written, "pyarrow, synced": synced}, committed / written
        ),
        case("scan, rows/s", scanned, {"pyarrow": read}, scanned / read),
        case("audit, rows/s", audited, {"pyarrow, reading alone": read}, audited / read),
        case("audit, MB", of_audit.mb, {"goal": 2 * GOAL_MB}, 2 * GOAL_MB / max(1.0, of_audit.mb)),
    ]


def check_case(stage: StageRows) -> dict[str, Any]:
    ids = [each for each, _, _ in stage.outcomes]
    good = seconds(lambda: check_conservation(TABLE, stage, ids))
    twice = StageRows(stage.rows, [*stage.outcomes, stage.outcomes[-1]])

    def refused() -> None:
        try:
            check_conservation(TABLE, twice, ids)
        except LakeError:
            return
        raise SystemExit("an input with two outcomes was accepted")

    bad = seconds(refused)
    slowest = max(good, bad)
    return case("conservation of all rows, s", slowest, {"goal": GOAL_CHECK_S}, GOAL_CHECK_S / slowest)


def main() -> None:
    rows = make_rows()
    cases = hash_cases(rows)
    stage = StageRows(rows, [(each, "ok", "") for each in rows["clip_id"]])
    with tempfile.TemporaryDirectory() as folder:
        cases += io_cases(rows, stage, Path(folder))
    cases.append(check_case(stage))
    print_result("lake_io", "as named in each case", ROWS, cases)


if __name__ == "__main__":
    main()
