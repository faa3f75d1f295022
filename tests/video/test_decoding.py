"""What must hold of decoding: the right frames, upright, from any file; else one plain line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.video import decoding
from safevid_core.video.decoding import (
    VideoError,
    blank_like,
    decode_uniform,
    iterate_frames,
    probe,
)
from safevid_core.video.opening import opened_video
from tests.video.clips_for_tests import (
    counted_frames,
    number_of,
    sample_files,
    write_audio_only,
    write_video,
)

ODD_NAMES = ('it\'s a "clip".mp4', "two\nlines.mp4", "видео 日本 é.mp4", "a:b.mp4", "%03d.mp4", "-i.mp4")


def one_line(error: pytest.ExceptionInfo[VideoError], name: str) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert name in message
    assert ";" in message, "the message says what to do"
    return message


def test_probe_tells_length_rate_size_and_codec(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "a.mp4", counted_frames(24), fps=12))
    assert (info.width, info.height, info.frames, info.codec) == (96, 64, 24, "h264")
    assert info.fps == pytest.approx(12)
    assert info.duration_s == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "mpeg4"])
def test_uniform_frames_are_the_centres_of_equal_segments(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(24), fps=12, codec=codec)
    frames = decode_uniform(path, 4)
    assert frames.pixels.shape == (4, 64, 96, 3)
    assert [number_of(frame) for frame in frames.pixels] == [3, 9, 15, 21]
    assert frames.times_s == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), start=st.integers(0, 22), length=st.integers(1, 24))
def test_both_decoders_give_the_same_frames_of_any_span(
    n: int, start: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "span.mp4"
    if not path.exists():
        write_video(path, counted_frames(24), fps=12, options={"g": "9", "bf": "2"})
    start_s, end_s = start / 12, min(24, start + length) / 12
    by_decord = decode_uniform(path, n, start_s, end_s)
    with opened_video(path) as opened:
        by_av = decoding._decode_with_av(opened, n, start_s, end_s)
    np.testing.assert_array_equal(by_decord.pixels, by_av.pixels)
    assert by_decord.times_s == pytest.approx(by_av.times_s, abs=1e-3)
    expected = [int(start + (i + 0.5) * (min(24, start + length) - start) / n + 1e-3) for i in range(n)]
    assert [number_of(frame) for frame in by_decord.pixels] == expected


def test_iterating_gives_every_frame_in_order_scaled_down(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(24), options={"bf": "2"})
    pairs = list(iterate_frames(path, max_side=48))
    assert [number_of(frame) for _, frame in pairs] == list(range(24))
    assert {frame.shape for _, frame in pairs} == {(32, 48, 3)}
    assert [time for time, _ in pairs] == pytest.approx([i / 12 for i in range(24)], abs=1e-3)
    within = list(iterate_frames(path, start_s=0.5, end_s=1.0))
    assert [number_of(frame) for _, frame in within] == list(range(6, 12))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(
    ("rotation", "red_corner"), [(90, "bottom left"), (-90, "top right"), (180, "bottom right")]
)
def test_rotation_metadata_turns_the_picture_in_every_path(
    tmp_path: Path, codec: str, rotation: int, red_corner: str
) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(8), codec=codec, rotation=rotation)
    shape = (64, 96) if rotation == 180 else (96, 64)
    info = probe(path)
    assert (info.height, info.width) == shape
    for frame in (decode_uniform(path, 2).pixels[0], next(iterate_frames(path))[1]):
        assert frame.shape[:2] == shape
        corners = {
            "top left": frame[4, 4],
            "top right": frame[4, -5],
            "bottom left": frame[-5, 4],
            "bottom right": frame[-5, -5],
        }
        redness = {name: int(rgb[0]) - int(rgb[1]) for name, rgb in corners.items()}
        assert max(redness, key=redness.__getitem__) == red_corner


def test_a_clip_of_one_frame_repeats_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", counted_frames(1))
    assert probe(path).frames == 1
    frames = decode_uniform(path, 4)
    assert frames.pixels.shape[0] == 4
    assert frames.times_s == [0.0] * 4
    assert len(list(iterate_frames(path))) == 1


def test_frames_are_resized_on_request(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(4))
    assert decode_uniform(path, 2, size=(32, 32)).pixels.shape == (2, 32, 32, 3)


def test_blank_frames_are_grey() -> None:
    blank = blank_like(3, 10, 20)
    assert blank.shape == (3, 10, 20, 3)
    assert (blank.dtype, int(blank.min()), int(blank.max())) == (np.uint8, 128, 128)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_open_and_are_escaped_in_messages(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / "plain.mp4", counted_frames(4)).rename(tmp_path / name)
    assert decode_uniform(path, 2).pixels.shape[0] == 2
    path.write_bytes(b"")
    with pytest.raises(VideoError) as error:
        probe(path)
    one_line(error, repr(str(path))[1:-1])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"this is no video\n" * 50, "not a video"),
        ("notes.txt", b"FFmpeg would draw this as terminal art\n" * 50, "not a video"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", "not a video"),
        ("zeros.mkv", bytes(4096), "not a video"),
    ],
)
def test_files_that_are_no_videos_are_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    for use in (probe, lambda path: decode_uniform(path, 2), lambda path: list(iterate_frames(path))):
        with pytest.raises(VideoError) as error:
            use(tmp_path / name)
        assert words in one_line(error, name)


def test_missing_files_folders_and_pictures_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "still.png")
    for path in (tmp_path / "none.mp4", tmp_path, tmp_path / "still.png"):
        with pytest.raises(VideoError) as error:
            probe(path)
        one_line(error, path.name)


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError) as error:
        probe(write_audio_only(tmp_path / "song.mp4"))
    assert "no video stream" in one_line(error, "song.mp4")


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_truncated_file_is_refused_not_padded(tmp_path: Path, keep: float, codec: str, suffix: str) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (60, 64, 96, 3), dtype=np.uint8)
    fast = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    path = write_video(tmp_path / f"cut{suffix}", noise, codec=codec, container_options=fast)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    for use in (lambda: decode_uniform(path, 8), lambda: list(iterate_frames(path))):
        with pytest.raises(VideoError) as error:
            use()
        one_line(error, path.name)


def test_the_whole_part_of_a_truncated_file_can_still_be_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), dtype=np.uint8)
    path = write_video(tmp_path / "cut.mp4", noise, container_options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert decode_uniform(path, 3, 0.0, 1.0).pixels.shape[0] == 3


@pytest.mark.parametrize(("start", "end"), [(5.0, 6.0), (1.0, 1.0), (1.5, 1.0), (-1.0, 1.0)])
def test_an_empty_span_is_refused(tmp_path: Path, start: float, end: float) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(24))
    with pytest.raises(VideoError) as error:
        decode_uniform(path, 2, start, end)
    assert "fix the span" in one_line(error, "a.mp4")


@pytest.mark.skipif(not sample_files("clips"), reason="the sample clips are not beside this checkout")
@pytest.mark.parametrize("path", sample_files("clips"), ids=lambda path: path.name)
def test_real_clips_decode_alike_in_both_paths(path: Path) -> None:
    frames = decode_uniform(path, 3)
    with opened_video(path) as opened:
        by_av = decoding._decode_with_av(opened, 3, 0.0, None)
    assert frames.times_s == pytest.approx(by_av.times_s, abs=1e-3)
    np.testing.assert_array_equal(frames.pixels, by_av.pixels)


@pytest.mark.skipif(not sample_files("hostile_clips"), reason="the sample clips are not beside this checkout")
def test_hostile_clips_decode_or_say_why() -> None:
    good, refused = {}, {}
    for path in sample_files("hostile_clips"):
        try:
            good[path.name] = decode_uniform(path, 2).pixels.shape
        except VideoError as error:
            refused[path.name] = str(error)
    assert set(refused) == {"corrupted.mp4"}
    assert "damaged" in refused["corrupted.mp4"]
    assert "\n" not in refused["corrupted.mp4"]
    assert good["rotated_90.mov"][1:3] == good["rotated_0.mov"][2:0:-1]
