"""Frames from the cache are those of a fresh decode, for every kind of file, and never of other bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from safevid_core.contracts.rows import MediaSpan
from safevid_core.models.video_chat import VideoQuestion, frames_of
from safevid_core.reporting.samples import film_strip
from safevid_core.storage.frames import FrameCache
from safevid_core.storage.media import MediaFile, MediaIndex, MediaMissing
from safevid_core.video import uniform_frames as module
from safevid_core.video.decoding import Frames, VideoError, decode_uniform
from safevid_core.video.identity import file_sha256
from safevid_core.video.uniform_frames import frames_key, uniform_frames
from tests.video.clips_for_tests import counted_frames, number_of, sample_files, write_video
from tests.video.test_light import write_hdr

SAMPLED = [*sample_files("clips"), *sample_files("hostile_clips"), *sample_files("cases/video")]
REASON = "the sample clips are not beside this checkout"


@pytest.fixture
def stored(tmp_path: Path) -> FrameCache:
    return FrameCache.below(tmp_path / "root")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A clip of 24 numbered frames."""
    return write_video(tmp_path / "clip.mp4", counted_frames(24))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded."""
    seen: list[Path] = []

    def counted(path: Path, *rest: object) -> Frames:
        seen.append(path)
        return decode_uniform(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "decode_uniform", counted)
    return seen


def assert_same(one: Frames, other: Frames) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.times_s, one.span_s) == (other.times_s, other.span_s)


def asked_twice(path: Path, stored: FrameCache, n: int, *span: float | None) -> list[Frames]:
    sha256 = file_sha256(path)
    return [uniform_frames(path, n, *span, media_sha256=sha256, stored=stored) for _ in range(2)]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", {}),
        (".mp4", {"fps": 7, "options": {"bf": "2", "g": "9"}}),
        (".mp4", {"rotation": 90}),
        (".mkv", {"codec": "ffv1", "pixels": "bgr0"}),
        (".mov", {"codec": "qtrle", "pixels": "argb"}),
        (".mkv", {"codec": "libx265", "pixels": "yuv420p10le", "fps": 50}),
        (".webm", {"codec": "libvpx-vp9"}),
    ],
)
@pytest.mark.parametrize("span", [(), (0.2, 0.5)])
def test_stored_frames_are_those_of_a_fresh_decode(
    tmp_path: Path, stored: FrameCache, decoded: list[Path], suffix: str, options: dict, span: tuple
) -> None:
    path = write_video(tmp_path / f"clip{suffix}", counted_frames(24), **options)
    fresh = decode_uniform(path, 5, *span)
    for frames in asked_twice(path, stored, 5, *span):
        assert_same(frames, fresh)
    assert decoded == [path]


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
def test_stored_frames_of_high_dynamic_range_are_those_of_a_fresh_decode(
    tmp_path: Path, stored: FrameCache, decoded: list[Path], transfer: int
) -> None:
    path = write_hdr(tmp_path / "hdr.mp4", transfer, np.linspace(0, 1, 6))
    fresh = decode_uniform(path, 3)
    for frames in asked_twice(path, stored, 3):
        assert_same(frames, fresh)
    assert decoded == [path]


@pytest.mark.skipif(not SAMPLED, reason=REASON)
@pytest.mark.parametrize("path", SAMPLED, ids=lambda path: path.name)
def test_stored_frames_of_the_samples_are_those_of_a_fresh_decode(
    path: Path, stored: FrameCache, decoded: list[Path]
) -> None:
    try:
        fresh = decode_uniform(path, 3)
    except VideoError as error:
        with pytest.raises(VideoError, match="^" + str(error).split("'")[0]):
            asked_twice(path, stored, 3)
        assert not stored.bytes_stored()
        return
    for frames in asked_twice(path, stored, 3):
        assert_same(frames, fresh)
    assert decoded == [path]


def test_another_span_number_or_hash_is_another_key() -> None:
    keys = [
        frames_key("a", 4, 0.0, None),
        frames_key("a", 4, 0.0, 1.0),
        frames_key("a", 4, 0.5, 1.0),
        frames_key("a", 8, 0.0, None),
        frames_key("b", 4, 0.0, None),
    ]
    assert len(set(keys)) == len(keys)
    assert frames_key("a", 4, 0, 1) == frames_key("a", 4, 0.0, 1.0)


def test_another_revision_of_decoding_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = frames_key("a", 4, 0.0, None)
    monkeypatch.setattr(module, "DECODING_REVISION", module.DECODING_REVISION + 1)
    module._decoders.cache_clear()
    try:
        assert frames_key("a", 4, 0.0, None) != before
    finally:
        monkeypatch.undo()
        module._decoders.cache_clear()


def test_a_file_with_other_bytes_than_its_hash_says_is_never_stored(
    path: Path, stored: FrameCache, decoded: list[Path]
) -> None:
    sha256 = file_sha256(path)
    write_video(path, counted_frames(24)[::-1])
    changed = uniform_frames(path, 2, media_sha256=sha256, stored=stored)
    assert number_of(changed.pixels[0]) > number_of(changed.pixels[1])
    assert not stored.bytes_stored()
    write_video(path, counted_frames(24))
    right = uniform_frames(path, 2, media_sha256=file_sha256(path), stored=stored)
    assert number_of(right.pixels[0]) < number_of(right.pixels[1])
    assert len(decoded) == 2


def test_a_file_that_changes_while_it_is_decoded_is_not_stored(
    tmp_path: Path, path: Path, stored: FrameCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_video(tmp_path / "other.mp4", counted_frames(24)[::-1])
    sha256 = file_sha256(path)

    def decode_another(name: Path, *rest: object) -> Frames:
        frames = decode_uniform(other, *rest)  # type: ignore[arg-type]
        shutil.copyfile(path, tmp_path / "again.mp4")
        (tmp_path / "again.mp4").replace(path)
        return frames

    monkeypatch.setattr(module, "decode_uniform", decode_another)
    uniform_frames(path, 2, media_sha256=sha256, stored=stored)
    assert not stored.bytes_stored()


def test_frames_come_from_the_cache_wherever_the_file_lies(
    tmp_path: Path, path: Path, stored: FrameCache, decoded: list[Path]
) -> None:
    sha256 = file_sha256(path)
    first = uniform_frames(path, 4, media_sha256=sha256, stored=stored)
    moved = path.rename(tmp_path / "moved.mp4")
    assert_same(uniform_frames(moved, 4, media_sha256=sha256, stored=stored), first)
    assert decoded == [path]


def test_frames_in_the_cache_need_no_file(
    tmp_path: Path, path: Path, stored: FrameCache, decoded: list[Path]
) -> None:
    sha256, media = file_sha256(path), MediaIndex(tmp_path)
    file = MediaFile(sha256, media)
    with pytest.raises(MediaMissing, match="no path is recorded"):
        uniform_frames(file, 4, media_sha256=sha256, stored=stored)
    media.record([(sha256, path, path.stat().st_size)])
    first = uniform_frames(file, 4, media_sha256=sha256, stored=stored)
    path.unlink()
    assert_same(uniform_frames(file, 4, media_sha256=sha256, stored=stored), first)
    assert len(decoded) == 1
    with pytest.raises(MediaMissing, match="is gone; put it back"):
        uniform_frames(file, 5, media_sha256=sha256, stored=stored)


def test_without_a_hash_or_a_cache_the_file_is_decoded(
    path: Path, stored: FrameCache, decoded: list[Path]
) -> None:
    uniform_frames(path, 4, stored=stored)
    uniform_frames(path, 4, media_sha256=file_sha256(path))
    assert len(decoded) == 2
    assert not stored.bytes_stored()


def test_questions_and_film_strips_share_the_frames(
    tmp_path: Path, path: Path, stored: FrameCache, decoded: list[Path]
) -> None:
    sha256 = file_sha256(path)
    shown = frames_of(VideoQuestion("What?", str(path), sha256, 0.0, 2.0), 4, stored)
    blank = frames_of(VideoQuestion("What?", str(path), sha256, 0.0, 2.0, video="blank"), 4, stored)
    assert shown is not None
    assert blank is not None
    assert blank.pixels.shape == shown.pixels.shape
    assert (blank.pixels == 128).all()
    media = MediaIndex(tmp_path)
    media.record([(sha256, path, path.stat().st_size)])
    clip = MediaSpan(sha256, 0.0, 2.0)
    assert film_strip(clip, media, stored) == film_strip(clip, media)
    assert len(decoded) == 2, "one decode for all with the cache, one without"
