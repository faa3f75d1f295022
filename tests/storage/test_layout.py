"""A lake of an older layout is read as it is, made again where it can be, and valid where it cannot."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.benchmarks.releases import kept_releases, read_release
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RELEASES, DECIDED_SIDES, SAFEVIDBENCH_BASE, Table
from safevid_core.corpus.decided import DecidedSide, TiedClip, append, read_record
from safevid_core.storage.lake import Lake, LakeError, audit_partition
from safevid_core.storage.manifest import LAYOUT
from tests.stages import run_rows
from tests.storage.things import TABLE, stage, with_places


def put_earlier(root: Path, table: Table, partition: str, made: StageRows, **more: Any) -> Path:
    """A partition as layout 1 has it: the manifest has no layout, the hash is of one NDJSON text."""
    folder = root / "tables" / table.name / partition
    folder.mkdir(parents=True)
    rows = made.rows.sort(table.key).with_columns(profile=pl.lit("pocket"))
    outcomes = made.outcome_frame().sort("input_id")
    hashed = rows.drop("path", *table.volatile, strict=False)
    digest = hashlib.sha256(repr(list(hashed.schema.items())).encode())
    digest.update(hashed.write_ndjson().encode())
    files = {"rows": "rows-0123456789ab.parquet", "outcomes": "outcomes-0123456789ab.parquet"}
    rows.write_parquet(folder / files["rows"], compression="zstd")
    outcomes.write_parquet(folder / files["outcomes"], compression="zstd")
    counts = {"ok": outcomes.height, "filtered": 0, "failed": 0, "undecidable": 0}
    manifest = {
        "asset": table.name, "partition": partition, "profile": "pocket", "fingerprint": "f",
        "content_hash": digest.hexdigest()[:32], "rows": rows.height, "outcomes": counts, "files": files,
        "inputs": {"x": "1"}, "info": {}, "seconds": 1.5, "committed_at": 1.7e9, **more,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return folder


DECIDED_AT = "2026-01-01T00:00:00+00:00"


def side(clip: str, split: str) -> DecidedSide:
    tied = TiedClip(clip * 8, 0.0, 1.0, clip, source_id=f"s-{clip}", twin_group=None)
    return DecidedSide(tied, f"g-{clip}", split, "by the hash", 0.2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake of layout 1 with a table that can be made again, a record of sides and a kept release."""
    put_earlier(tmp_path, TABLE, "kitchen", stage("a"))
    sides = DECIDED_SIDES.frame([side("a", "train").row(DECIDED_AT), side("b", "benchmark").row(DECIDED_AT)])
    put_earlier(tmp_path, DECIDED_SIDES, "000001", StageRows(sides, [("a", "ok", ""), ("b", "ok", "")]))
    item = dict.fromkeys(BENCHMARK_RELEASES.schema) | {"item_id": "i", "query": "Why?"}
    parent = BENCHMARK_RELEASES.parent
    items = BENCHMARK_RELEASES.frame([item | ({parent: "p"} if parent else {})])
    items = items.with_columns(path=pl.lit("/clips/a.mp4"))
    put_earlier(
        tmp_path, BENCHMARK_RELEASES, f"{SAFEVIDBENCH_BASE.name}@0123", StageRows(items, [("p", "ok", "")])
    )
    return tmp_path


def test_what_is_for_ever_stays_valid_and_grows(root: Path) -> None:
    lake = Lake(root, "pocket")
    assert lake.found_layout == 1
    for table in (DECIDED_SIDES, BENCHMARK_RELEASES):
        (partition,) = lake.partitions(table.name)
        audit_partition(lake, table, partition)
    record = read_record(lake)
    assert dict(record.rows.select("clip_id", "split").iter_rows()) == {"a": "train", "b": "benchmark"}
    assert append(lake, record, [side("c", "train")])
    again = read_record(Lake(root, "pocket"))
    assert dict(again.rows.select("clip_id", "split").iter_rows())["c"] == "train"
    assert again.last == 2
    assert kept_releases(lake, SAFEVIDBENCH_BASE) == ["0123"]
    assert read_release(lake, SAFEVIDBENCH_BASE, "0123").rows["query"].to_list() == ["Why?"]


def test_a_kept_release_with_the_places_of_its_clips_stays_valid(tmp_path: Path) -> None:
    earlier = with_places(BENCHMARK_RELEASES)
    lake, partition = Lake(tmp_path, "pocket"), f"{SAFEVIDBENCH_BASE.name}@0123"
    item = dict.fromkeys(earlier.schema) | {"item_id": "i", "plan_id": "p", "path": "/clips/a.mp4"}
    lake.commit_once(earlier, partition, StageRows(earlier.frame([item]), [("p", "ok", "")]), {})
    kept = read_release(lake, SAFEVIDBENCH_BASE, "0123")
    lake.commit(SAFEVIDBENCH_BASE, "all", kept, "f", {})
    assert "path" not in lake.read(SAFEVIDBENCH_BASE).columns


def test_other_tables_are_read_as_they_are_and_made_again_when_asked(root: Path) -> None:
    columns = [f"{name}: {kind}" for name, kind in TABLE.schema.items()]
    path = root / "tables" / "things" / "kitchen" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["fingerprint"] = content_id(TABLE.version, *columns, "pocket", "x=1")
    path.write_text(json.dumps(manifest))
    lake = Lake(root, "pocket")
    assert lake.read(TABLE, "kitchen")["thing_id"].to_list() == ["t-a"]
    audit_partition(lake, TABLE, "kitchen")
    report = run_rows(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a"))
    assert report.computed
    assert report.manifest.layout == LAYOUT
    audit_partition(lake, TABLE, "kitchen")
    assert not run_rows(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a")).computed


def test_a_changed_row_of_an_older_layout_is_found(root: Path) -> None:
    (path,) = (root / "tables" / "things" / "kitchen").glob("rows-*")
    pl.read_parquet(path).with_columns(n=pl.lit(7, pl.Int64)).write_parquet(path)
    with pytest.raises(LakeError, match="content hash"):
        audit_partition(Lake(root, "pocket"), TABLE, "kitchen")


def test_a_new_lake_says_its_layout(tmp_path: Path) -> None:
    assert Lake(tmp_path, "pocket").found_layout == LAYOUT
    assert json.loads((tmp_path / "layout.json").read_text()) == {"layout": LAYOUT}
    assert Lake(tmp_path, "pocket").found_layout == LAYOUT


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"layout": 99}', "layout 99 and this SafeVid knows 2; update"), ("{", "names no layout; write")],
)
def test_a_layout_that_is_not_known_stops_with_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "layout.json").write_text(text)
    with pytest.raises(LakeError, match=message) as caught:
        Lake(tmp_path, "pocket")
    assert "\n" not in str(caught.value)
