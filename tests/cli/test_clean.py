"""`safevid clean`: what goes, what stays, and that nothing outside the root is touched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from safevid_core.contracts.tables import DESCRIPTIONS
from safevid_core.storage.lake import Lake
from safevid_dagster.cleaning import CleaningError, Removable, remove
from tests.command import is_one_line, safevid


@pytest.fixture
def used(lake: Lake) -> Lake:
    """The lake after some use: a cache, a file of an older generation, scratch of a run that died."""
    for name in ("cache/films/f.jpg", "features/x/c.pt", "blobs/release/.new-abc/half.jsonl"):
        path = lake.root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 1000)
    older = lake.folder("descriptions", "kitchen") / "rows-older.parquet"
    older.write_bytes(b"x" * 1000)
    two_days_ago = time.time() - 2 * 86_400
    for path in (older, lake.root / "blobs/release/.new-abc"):
        os.utime(path, (two_days_ago, two_days_ago))
    return lake


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_caches_older_files_and_scratch_go_and_tables_stay(used: Lake) -> None:
    before = files(used.root)
    done = safevid("clean", "--yes", root=used.root)
    assert done.exit_code == 0
    assert before - files(used.root) == {
        "cache/films/f.jpg", "features/x/c.pt", "blobs/release/.new-abc/half.jsonl",
        "tables/descriptions/kitchen/rows-older.parquet",
    }  # fmt: skip
    assert used.read(DESCRIPTIONS).height == 1
    assert "holds nothing to remove" in safevid("clean", "--yes", root=used.root).stdout


def test_nothing_goes_before_a_person_agreed(used: Lake) -> None:
    before = files(used.root)
    refused = safevid("clean", root=used.root, said="n\n")
    assert refused.exit_code == 1
    assert "scratch of dead runs" in refused.stdout
    assert "--yes removes it without asking" in refused.stderr
    document = json.loads(safevid("clean", "--json", root=used.root).stdout)
    assert document["removed"] is False
    assert document["bytes"] == 4000
    assert files(used.root) == before


def test_all_goes_with_the_root_and_what_is_not_ours_stays(used: Lake) -> None:
    (used.root / "mine.txt").write_text("a person's own")
    assert safevid("clean", "--all", root=used.root, said="n\n").exit_code == 1
    assert safevid("clean", "--all", root=used.root, said="y\n").exit_code == 0
    assert files(used.root) == {"mine.txt"}


def test_a_folder_that_is_no_lake_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"x")
    assert is_one_line(safevid("clean", "--all", "--yes", root=tmp_path), 2, "holds no lake")
    assert files(tmp_path) == {"holiday.mp4"}


def test_a_link_that_leads_out_is_removed_and_not_followed(used: Lake, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    os.symlink(outside, used.root / "references")
    assert safevid("clean", "--yes", root=used.root).exit_code == 0
    assert not (used.root / "references").is_symlink()
    assert (outside / "kept.txt").read_text() == "kept"


def test_a_path_outside_the_root_is_refused(used: Lake, tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    with pytest.raises(CleaningError, match="is not below"):
        remove(used.root, [Removable("a mistake", (kept,), 4)])
    assert kept.exists()
