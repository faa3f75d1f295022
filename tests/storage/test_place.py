"""A lake on another file system than the local disk does all that a lake does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from safevid_core.contracts.outcomes import StageRows
from safevid_core.storage.lake import Lake, LakeError, PartitionHeld, audit_partition
from safevid_core.storage.opening import profile_of
from tests.stages import run_rows
from tests.storage.things import TABLE, stage, with_places

URL = "memory://a lake/below"


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield Lake(URL, "pocket", keep_generations_s=100)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def stored() -> list[str]:
    return sorted(path.removeprefix("/a lake/below/") for path in MemoryFileSystem.store)


def test_tables_are_committed_read_and_audited(lake: Lake) -> None:
    report = run_rows(lake, TABLE, "a/../b", {}, ["a", "c"], lambda: stage("a", dropped="c"))
    assert report.computed
    assert not run_rows(lake, TABLE, "a/../b", {}, ["a", "c"], lambda: stage("a", dropped="c")).computed
    run_rows(lake, TABLE, "kitchen", {}, ["b"], lambda: stage("b"))
    assert lake.assets() == ["things"]
    assert lake.partitions("things") == ["a/../b", "kitchen"]
    assert lake.read(TABLE)["thing_id"].to_list() == ["t-a", "t-b"]
    assert lake.outcomes("things", "a/../b")["outcome"].to_list() == ["ok", "filtered"]
    for partition in lake.partitions("things"):
        audit_partition(lake, TABLE, partition)
    assert lake.scan(TABLE).filter(pl.col("source") == "b").select("n").collect().item() == 0
    assert stored()[0] == "layout.json"


def test_a_scan_collects_after_another_commit_and_old_files_go(lake: Lake) -> None:
    lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
    scanned = lake.scan(TABLE)
    lake.commit(TABLE, "kitchen", stage("b"), "f2", {})
    assert scanned.collect()["thing_id"].to_list() == ["t-a"]
    assert len(stored()) == 6
    eager = Lake(URL, "pocket", keep_generations_s=0)
    time.sleep(0.01)
    eager.commit(TABLE, "kitchen", stage("c"), "f3", {})
    assert len(stored()) == 4
    assert lake.read(TABLE)["thing_id"].to_list() == ["t-c"]


@pytest.mark.parametrize("first", ["kitchen", "park"])
def test_partitions_of_an_earlier_version_are_read_with_those_of_this(
    lake: Lake, tmp_path: Path, first: str
) -> None:
    earlier = with_places(TABLE)
    rows = earlier.frame([{"thing_id": "t-a", "source": "a", "n": 0, "path": "/clips/a.mp4"}])
    for here in (lake, Lake(tmp_path / "lake", "pocket")):
        here.commit(earlier, first, StageRows(rows, [("a", "ok", "")]), "f", {})
        here.commit(TABLE, "park" if first == "kitchen" else "kitchen", stage("b"), "f", {})
        assert sorted(here.read(TABLE)["thing_id"]) == ["t-a", "t-b"]
        assert here.scan(TABLE).select("source", "n").collect().height == 2
        audit_partition(here, TABLE, first)


def test_a_partition_that_is_written_once_stays(lake: Lake) -> None:
    first = lake.commit_once(TABLE, "000001", stage("a"), {})
    assert lake.commit_once(TABLE, "000001", stage("b"), {}) is None
    assert lake.manifest("things", "000001") == first
    audit_partition(lake, TABLE, "000001")


def test_directories_are_kept_and_copied_to_the_local_disk(lake: Lake, tmp_path: Path) -> None:
    addresses = []
    for _ in range(2):
        with lake.new_directory("checkpoints") as scratch:
            (scratch / "deep").mkdir()
            (scratch / "deep" / "adapter.bin").write_bytes(b"weights")
            addresses.append(lake.keep("checkpoints", scratch))
        assert not scratch.exists()
    assert lake.directories("checkpoints") == addresses[:1]
    for _ in range(2):
        local = lake.local_directory(addresses[0])
        assert local.is_relative_to(tmp_path / "caches")
        assert (local / "deep" / "adapter.bin").read_bytes() == b"weights"
    assert lake.address_of(local) == addresses[0]
    with pytest.raises(LakeError, match="blobs/checkpoints/none does not exist; restore it"):
        lake.local_directory("blobs/checkpoints/none")


def test_reports_are_written_to_it(lake: Lake) -> None:
    assert not lake.has_report("scorecard.json")
    assert lake.write_report("scorecard.json", b"{}") == f"{URL}/reports/scorecard.json"
    assert lake.has_report("scorecard.json")


def test_what_needs_the_local_disk_has_a_folder_there(lake: Lake, tmp_path: Path) -> None:
    assert lake.cache_folder("films").is_relative_to(tmp_path / "caches")
    with pytest.raises(LakeError, match="memory://a lake/below is not on the local disk"):
        lake.folder("things")
    with lake.hold("things", "kitchen", "one"), pytest.raises(PartitionHeld):
        lake.hold("things", "kitchen", "two").__enter__()


def test_it_is_opened_with_the_profile_that_made_it(lake: Lake) -> None:
    lake.commit(TABLE, "kitchen", stage("a"), "f", {})
    assert profile_of(URL) == "pocket"
