"""A file is hashed once for each of its states, whoever asks."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safevid_core.storage import file_hashes
from safevid_core.storage.file_hashes import FileHashes, file_sha256


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read to be hashed. Files count as settled at once."""
    seen: list[Path] = []

    def counted(path: Path) -> str:
        seen.append(path)
        return file_sha256(path)

    monkeypatch.setattr(file_hashes, "file_sha256", counted)
    monkeypatch.setattr(file_hashes, "_SETTLED_S", -60.0)
    return seen


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[Path]) -> None:
    path, store = tmp_path / "clip.mp4", tmp_path / "cache" / "hashes.sqlite"
    path.write_bytes(b"one")
    for _ in range(2):
        hashes = FileHashes(store)
        assert [hashes.sha256(path), hashes.sha256(str(path))] == [sha(b"one")] * 2
    assert len(reads) == 1
    path.write_bytes(b"another")
    assert FileHashes(store).sha256(path) == sha(b"another")
    assert hashes.sha256(path) == sha(b"another")
    assert len(reads) == 2


def test_a_file_of_the_same_size_and_time_put_in_place_is_read(tmp_path: Path, reads: list[Path]) -> None:
    path, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    hashes = FileHashes(tmp_path / "hashes.sqlite")
    assert hashes.sha256(path) == sha(b"one")
    stat = path.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)
    assert hashes.sha256(path) == sha(b"two")


def test_a_file_that_changed_just_now_is_not_remembered(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "_SETTLED_S", 60.0)
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    hashes = FileHashes(tmp_path / "hashes.sqlite")
    assert hashes.sha256(path) == hashes.sha256(path) == sha(b"one")
    assert len(reads) == 2


def test_a_store_that_is_no_database_is_removed(tmp_path: Path) -> None:
    path, store = tmp_path / "clip.mp4", tmp_path / "hashes.sqlite"
    path.write_bytes(b"one")
    store.write_bytes(b"no database" * 100)
    assert FileHashes(store).sha256(path) == sha(b"one")
    assert not store.exists()


def test_without_a_place_for_the_store_files_are_hashed_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    assert FileHashes(path / "hashes.sqlite").sha256(path) == sha(b"one")
    with pytest.raises(FileNotFoundError):
        FileHashes().sha256(tmp_path / "none.mp4")


def test_threads_share_one_store(tmp_path: Path, reads: list[Path]) -> None:
    paths = [tmp_path / f"{number}.mp4" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    hashes = FileHashes(tmp_path / "hashes.sqlite")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(hashes.sha256, paths * 4)) == [sha(path.name.encode()) for path in paths] * 4
    fresh = FileHashes(tmp_path / "hashes.sqlite")
    before = len(reads)
    assert [fresh.sha256(path) for path in paths] == [sha(path.name.encode()) for path in paths]
    assert len(reads) == before
