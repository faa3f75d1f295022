"""The cache of decoded frames: exact, bounded, and never wrong whatever lies in its folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safevid_core.storage.frames import FrameCache, Frames

SIDE = 64
ONE = 2 * SIDE * SIDE * 3  # bytes of `noise` frames, which do not compress


def noise(seed: int = 0) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    return Frames(pixels, [0.25, 0.75], 1.0)


def same(one: Frames | None, other: Frames) -> bool:
    return (
        one is not None
        and one.pixels.dtype == np.uint8
        and np.array_equal(one.pixels, other.pixels)
        and (one.times_s, one.span_s) == (other.times_s, other.span_s)
    )


def key_of(number: int) -> str:
    return f"{number:040x}"[::-1]


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "frames", 10**9)


shapes = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))
seconds = st.floats(0, 1e6, allow_nan=False)


@given(
    pixels=shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape)),
    times=st.lists(seconds, max_size=4),
    span=st.none() | seconds,
)
def test_frames_come_back_to_the_last_bit(
    pixels: np.ndarray, times: list[float], span: float | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = FrameCache(tmp_path_factory.getbasetemp() / "exact", 10**9)
    cache.write(key_of(1), Frames(pixels, times, span))
    assert same(cache.read(key_of(1)), Frames(pixels, times, span))


def test_a_view_that_is_not_contiguous_is_stored_as_it_looks(cache: FrameCache) -> None:
    frames = Frames(noise().pixels[:, ::-1, ::2], [0.0, 1.0])
    cache.write(key_of(1), frames)
    assert same(cache.read(key_of(1)), frames)


def test_the_pixels_are_the_callers_own(cache: FrameCache) -> None:
    cache.write(key_of(1), noise())
    first = cache.read(key_of(1))
    assert first is not None
    first.pixels[:] = 0
    assert same(cache.read(key_of(1)), noise())


def test_other_processes_read_what_was_written(cache: FrameCache) -> None:
    cache.write(key_of(1), noise())
    assert same(FrameCache(cache.folder, 10**9).read(key_of(1)), noise())
    assert cache.read(key_of(2)) is None


@given(place=st.integers(0, 10**9), change=st.integers(1, 255))
def test_a_file_with_one_changed_byte_is_removed(
    place: int, change: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = FrameCache(tmp_path_factory.getbasetemp() / "damaged", 10**9)
    cache.write(key_of(1), noise())
    path = cache._path(key_of(1))
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    path.write_bytes(data)
    assert cache.read(key_of(1)) is None
    assert not path.exists()


@pytest.mark.parametrize("kept", [0, 3, 11, 12, 40, -1])
def test_a_file_that_was_cut_off_is_removed_and_stored_again(cache: FrameCache, kept: int) -> None:
    cache.write(key_of(1), noise())
    path = cache._path(key_of(1))
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.read(key_of(1)) is None
    assert not path.exists()
    cache.write(key_of(1), noise())
    assert same(cache.read(key_of(1)), noise())


def test_a_file_under_the_name_of_another_is_removed(cache: FrameCache) -> None:
    cache.write(key_of(1), noise())
    other = cache._path(key_of(2))
    other.parent.mkdir(parents=True, exist_ok=True)
    os.replace(cache._path(key_of(1)), other)
    assert cache.read(key_of(2)) is None
    assert not other.exists()


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 20 * ONE)
    for number in range(16):
        cache.write(key_of(number), noise(number))
        used = time.time() - 10_000 + number
        os.utime(cache._path(key_of(number)), (used, used))
    assert cache.read(key_of(0)) is not None  # used now
    for number in range(16, 24):
        cache.write(key_of(number), noise(number))
    stored = {number for number in range(24) if cache.read(key_of(number)) is not None}
    assert 0 in stored
    assert 1 not in stored
    assert set(range(16, 24)) <= stored
    left = sorted(stored - {0})
    assert left == list(range(left[0], 24)), "a file went before one that was used earlier"


@given(limit=st.integers(8, 40), writes=st.integers(1, 60))
def test_the_folder_keeps_its_limit(
    limit: int, writes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = FrameCache(tmp_path_factory.mktemp("bounded"), limit * ONE)
    for number in range(writes):
        cache.write(key_of(number), noise(number))
        assert cache.bytes_stored() <= limit * ONE


def test_several_processes_keep_the_limit_and_read_no_half_files(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.storage.test_frames import *\n"
        "cache = FrameCache(Path(sys.argv[1]), 24 * ONE)\n"
        "for number in range(120):\n"
        "    found = cache.read(key_of(number))\n"
        "    assert found is None or same(found, noise(number))\n"
        "    cache.write(key_of(number), noise(number))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    cache = FrameCache(tmp_path, 24 * ONE)
    assert 0 < cache.bytes_stored() <= 24 * ONE
    for number in range(120):
        found = cache.read(key_of(number))
        assert found is None or same(found, noise(number))
    assert {path.suffix for path in tmp_path.glob("*/*")} == {".frames"}


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 10**9)
    cache.write(key_of(1), noise())
    shard = cache._path(key_of(1)).parent
    (shard / ".old").write_bytes(b"half")
    (shard / ".new").write_bytes(b"half")
    os.utime(shard / ".old", (1, 1))
    cache.bytes_stored()
    assert not (shard / ".old").exists()
    assert (shard / ".new").exists(), "its writer may be at work"


def test_no_room_or_no_disk_stores_nothing(tmp_path: Path) -> None:
    off = FrameCache(tmp_path / "off", 0)
    off.write(key_of(1), noise())
    assert off.read(key_of(1)) is None
    small = FrameCache(tmp_path / "small", ONE)
    small.write(key_of(1), noise())
    assert small.read(key_of(1)) is None
    (tmp_path / "file").write_bytes(b"")
    nowhere = FrameCache(tmp_path / "file" / "frames", 10**9)
    nowhere.write(key_of(1), noise())
    assert nowhere.read(key_of(1)) is None
