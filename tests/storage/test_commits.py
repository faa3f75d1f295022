"""A commit survives a kill at every step, and readers keep the files of the manifest that they read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import polars as pl
import pytest

from safevid_core.storage.lake import Lake, audit_partition
from safevid_core.storage.place import Place
from tests.storage.things import TABLE, stage

PROJECT = Path(__file__).parents[2]


def files(lake: Lake) -> list[str]:
    return sorted(path.name for path in lake.folder("things", "kitchen").iterdir())


def age(lake: Lake, seconds: float) -> None:
    """Make the files of a partition older."""
    for path in lake.folder("things", "kitchen").iterdir():
        then = time.time() - seconds
        os.utime(path, (then, then))


# Kills the process at one call of a function of `os`, before the call is made.
KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from safevid_core.storage.lake import Lake
    from tests.storage.things import TABLE, stage
    root, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    lake, call, made = Lake(root, "pocket"), getattr(os, name), []
    def counted(*given, **named):
        made.append(given)
        if len(made) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    setattr(os, name, counted)
    lake.commit(TABLE, "kitchen", stage("a", "b"), "f2", {})
    print(len(made))
""")


def commit_killed_at(lake: Lake, call: str, number: int) -> bool:
    """Whether the commit was killed; False if it made fewer calls."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(lake.root), call, str(number)], cwd=PROJECT)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def test_a_commit_killed_at_any_step_leaves_the_old_partition_or_the_new_one(tmp_path: Path) -> None:
    steps = []
    for call, number in (
        ("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4), ("replace", 1), ("fsync", 5), ("fsync", 6)
    ):  # fmt: skip
        lake = Lake(tmp_path / f"{call}{number}", "pocket", keep_generations_s=100)
        lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
        if not commit_killed_at(lake, call, number):
            break
        audit_partition(lake, TABLE, "kitchen")
        steps.append(lake.read(TABLE, "kitchen")["thing_id"].to_list())
        age(lake, 1000)
        lake.commit(TABLE, "kitchen", stage("c"), "f3", {})
        lake.commit(TABLE, "kitchen", stage("d"), "f4", {})
        audit_partition(lake, TABLE, "kitchen")
        # The manifest and up to four generations: what the killed commit left is gone.
        left = {name for name in files(lake) if not name.startswith(("rows-", "outcomes-"))}
        assert left == {"manifest.json"}
        named = lake.manifest("things", "kitchen")
        assert named is not None
        kept = [*named.files.values(), *(name for each in named.earlier for name in each["files"].values())]
        assert files(lake) == sorted([*kept, "manifest.json"])
    old, new = ["t-a"], ["t-a", "t-b"]
    # Both data files, their folder, the manifest's bytes, its rename; the folder after the rename.
    assert steps == [old, old, old, old, old, new]


def test_data_files_are_synced_before_the_manifest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path, "pocket")
    lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(handle: int) -> None:
        events.append("synced " + Path(os.readlink(f"/proc/self/fd/{handle}")).name.split("-")[0])
        fsync(handle)

    def seen_replace(source: str, target: str) -> None:
        events.append(f"renamed to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    lake.commit(TABLE, "kitchen", stage("a", "b"), "f2", {})
    assert events[:3] == ["synced rows", "synced outcomes", "synced kitchen"]
    assert events[3].startswith("synced .manifest.json.")
    assert events[4:] == ["renamed to manifest.json", "synced kitchen"]


def test_a_scan_of_an_old_manifest_still_collects_after_a_commit(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
    age(lake, 1_000_000)
    scanned = lake.scan(TABLE)
    lake.commit(TABLE, "kitchen", stage("b"), "f2", {})
    lake.commit(TABLE, "kitchen", stage("c"), "f3", {})
    assert scanned.collect()["thing_id"].to_list() == ["t-a"]
    assert lake.read(TABLE)["thing_id"].to_list() == ["t-c"]


def test_generations_are_removed_by_age_by_the_next_writer(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket", keep_generations_s=100)
    lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
    lake.commit(TABLE, "kitchen", stage("b"), "f2", {})
    assert len(files(lake)) == 5
    manifest = lake.folder("things", "kitchen") / "manifest.json"
    # As if the second commit had been made long ago.
    replaced = lake.manifest("things", "kitchen").earlier[0]["until"]  # type: ignore[union-attr]
    manifest.write_text(manifest.read_text().replace(str(replaced), str(replaced - 1000)))
    age(lake, 1000)
    (lake.folder("things", "kitchen") / "notes.txt").write_text("a person's own")
    age(lake, 1000)
    lake.commit(TABLE, "kitchen", stage("c"), "f3", {})
    assert len(files(lake)) == 6, "the manifest, two generations, and what is not the lake's"
    assert lake.read(TABLE)["thing_id"].to_list() == ["t-c"]


def test_no_generation_is_kept_where_none_is_to_be(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket", keep_generations_s=0)
    for name in "abc":
        lake.commit(TABLE, "kitchen", stage(name), name, {})
    assert len(files(lake)) == 3


def test_files_of_a_commit_that_is_being_written_are_left(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket", keep_generations_s=100)
    lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
    young = lake.folder("things", "kitchen") / "rows-0123456789ab.parquet"
    young.write_bytes(b"PAR1")
    lake.commit(TABLE, "kitchen", stage("b"), "f2", {})
    assert young.exists()


def test_a_data_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path, "pocket")
    lake.commit(TABLE, "kitchen", stage("a"), "f1", {})
    before = files(lake)

    def full_disk(_: pl.DataFrame, path: Path, **__: object) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full_disk)
    with pytest.raises(OSError, match="No space"):
        lake.commit(TABLE, "kitchen", stage("b"), "f2", {})
    assert files(lake) == before


def test_scratch_directories_of_killed_runs_are_removed(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    with lake.new_directory("release") as young, lake.new_directory("release") as old:
        os.utime(old, (0, 0))
        with lake.new_directory("release"):
            assert young.exists()
            assert not old.exists()


@pytest.mark.parametrize("url", ["file://{}", "{}"])
def test_a_place_on_the_local_disk_may_have_any_name(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "a [1] *b %41 ü"
    lake = Lake(url.format(folder), "pocket")
    lake.commit(TABLE, "kitchen", stage("a"), "f", {})
    assert lake.root == folder
    assert lake.read(TABLE).height == lake.outcomes("things").height == 1
    assert Place(folder).names("tables") == ["things"]
