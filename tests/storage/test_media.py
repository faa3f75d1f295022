"""The media index finds bytes by their hash, wherever the lake or the files were moved."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.errors import READ_AGAIN
from safevid_core.storage.lake import Lake
from safevid_core.storage.media import MediaIndex, MediaIndexError, MediaMissing
from safevid_core.video.errors import VideoError
from safevid_core.video.pictures import read_picture


def file(path: Path, content: bytes = b"bytes") -> tuple[str, Path, int]:
    """A file with that content, as it is recorded; its hash is made up from the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content.hex().ljust(64, "0"), path, len(content)


def test_an_index_whose_folder_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    index = MediaIndex(tmp_path / "caches" / "lake")
    assert index.paths(["a" * 64]) == {}
    assert not index.root.exists()
    recorded = file(tmp_path / "a.mp4")
    assert index.record([recorded]) == 1
    assert index.path(recorded[0]) == recorded[1]


@pytest.fixture
def index(tmp_path: Path) -> MediaIndex:
    root = tmp_path / "lake"
    root.mkdir()
    return Lake(root, "pocket").media


def test_a_recorded_file_is_found_and_recording_it_again_writes_nothing(
    index: MediaIndex, tmp_path: Path
) -> None:
    inside, outside = file(index.root / "clips" / "a.mp4"), file(tmp_path / "b.mp4", b"other")
    assert index.record([inside, outside]) == 2
    before = index.database.read_bytes()
    assert index.record([inside, outside]) == 0
    assert index.database.read_bytes() == before
    assert index.path(inside[0]) == inside[1]
    assert index.paths([inside[0], outside[0], "f" * 64]) == {inside[0]: inside[1], outside[0]: outside[1]}
    assert index.for_export([inside[0], outside[0]]) == {
        inside[0]: "clips/a.mp4", outside[0]: str(outside[1]),
    }  # fmt: skip


def test_a_lake_that_was_moved_finds_the_files_below_it(index: MediaIndex, tmp_path: Path) -> None:
    inside, outside = file(index.root / "clips" / "a.mp4"), file(tmp_path / "b.mp4", b"other")
    index.record([inside, outside])
    shutil.move(index.root, tmp_path / "elsewhere" / "lake")
    moved = MediaIndex(tmp_path / "elsewhere" / "lake")
    assert moved.path(inside[0]) == moved.root / "clips" / "a.mp4"
    assert moved.path(outside[0]) == outside[1]


def test_a_way_out_of_the_root_is_no_place_below_it(index: MediaIndex, tmp_path: Path) -> None:
    sha256, path, size = file(tmp_path / "b.mp4")
    index.record([(sha256, index.root / ".." / "b.mp4", size)])
    shutil.move(index.root, tmp_path / "far" / "away" / "lake")
    assert MediaIndex(tmp_path / "far" / "away" / "lake").path(sha256) == path


def test_the_first_place_that_holds_the_bytes_wins_and_the_latest_recording_comes_first(
    index: MediaIndex, tmp_path: Path
) -> None:
    old, new = file(tmp_path / "old" / "a.mp4"), file(tmp_path / "new" / "a.mp4")
    index.record([old])
    index.record([new])
    assert index.path(old[0]) == new[1]
    index.record([old])
    assert index.path(old[0]) == old[1]
    old[1].unlink()
    assert index.path(old[0]) == new[1]
    index.record([old, new])
    assert index.last_known(old[0]) == old[1]


def test_missing_bytes_are_reported_in_one_line_with_the_place_and_what_to_do(
    index: MediaIndex, tmp_path: Path
) -> None:
    sha256, path, size = file(tmp_path / "a.mp4")
    with pytest.raises(MediaMissing, match=r"no path is recorded.*materialise clip_manifest"):
        index.path(sha256)
    index.record([(sha256, path, size)])
    path.write_bytes(b"of another size")
    with pytest.raises(MediaMissing, match=r"a\.mp4' was replaced by another file; put it back"):
        index.path(sha256)
    path.unlink()
    with pytest.raises(MediaMissing, match=r"a\.mp4' is gone; put it back, or set the source") as raised:
        index.path(sha256)
    assert isinstance(raised.value, VideoError)
    assert str(raised.value).endswith(READ_AGAIN)
    assert "\n" not in str(raised.value)
    assert raised.value.last_place == index.last_known(sha256) == path
    assert index.paths([sha256]) == {}
    assert index.for_export([sha256]) == {sha256: str(path)}


def test_a_file_is_looked_up_when_it_is_opened(index: MediaIndex, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    index.record([("a" * 64, tmp_path / "a.png", (tmp_path / "a.png").stat().st_size)])
    found = index.file("a" * 64)
    assert found is not None
    assert read_picture(found).shape == (6, 8, 3)
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    with pytest.raises(MediaMissing, match="is gone"):
        read_picture(found)
    index.record([("a" * 64, tmp_path / "b.png", (tmp_path / "b.png").stat().st_size)])
    assert os.fspath(found) == str(tmp_path / "b.png")
    assert found == index.file("a" * 64)
    assert index.file(None) is index.file("") is None


def test_an_index_that_is_no_database_says_what_to_do(index: MediaIndex) -> None:
    index.database.write_bytes(b"no database at all, and long enough to be read as one" * 40)
    with pytest.raises(MediaIndexError, match=r"media\.sqlite cannot be used .*delete the file"):
        index.path("a" * 64)
    index.database.unlink()
    assert index.paths(["a" * 64]) == {}


def test_an_index_that_was_deleted_is_filled_anew(index: MediaIndex, tmp_path: Path) -> None:
    entry = file(tmp_path / "a.mp4")
    index.record([entry])
    index.database.unlink()
    assert index.last_known(entry[0]) is None
    assert index.record([entry]) == 1
    assert index.path(entry[0]) == entry[1]


NAMES = st.text("ab/é\udcff .", min_size=1, max_size=8).filter(lambda name: ".." not in name)


@given(st.lists(st.tuples(st.integers(0, 4), NAMES), max_size=12))
def test_any_name_is_given_back_and_the_last_recording_wins(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, str]]
) -> None:
    index = MediaIndex(tmp_path_factory.mktemp("lake"))
    for number, name in entries:
        index.record([(str(number), index.root / "clips" / name, 1)])
    for number, name in dict(entries).items():
        assert index.last_known(str(number)) == index.root / "clips" / name


def _record_some(root: Path, worker: int) -> None:
    index = MediaIndex(root)
    for number in range(40):
        sha256 = f"{worker}-{number}-".ljust(64, "0")
        index.record([(sha256, root / f"{worker}" / f"{number}.mp4", 1), ("shared", root / f"{worker}", 1)])


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Processes and threads, one of them with a connection that it opened before the others started."""
    MediaIndex(tmp_path).record([("first", tmp_path / "first.mp4", 1)])
    processes = [
        multiprocessing.get_context("fork").Process(target=_record_some, args=(tmp_path, worker))
        for worker in range(2)
    ]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda worker: _record_some(tmp_path, worker), (2, 3)))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    index = MediaIndex(tmp_path)
    for worker in range(4):
        for number in range(40):
            sha256 = f"{worker}-{number}-".ljust(64, "0")
            assert index.last_known(sha256) == tmp_path / f"{worker}" / f"{number}.mp4"
    assert index.last_known("shared") in {tmp_path / f"{worker}" for worker in range(4)}
