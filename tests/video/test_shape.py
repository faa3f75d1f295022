"""Videos are given in the shape they are displayed in: turned, mirrored, with square pixels, at one size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from safevid_core.video.decoding import decode_uniform, iterate_frames, probe
from safevid_core.video.shape import Orientation, displayed_size
from tests.video.clips_for_tests import SAMPLES, counted_frames, sample_files, write_video

CASES = SAMPLES / "cases" / "video"
ONE = 1 << 16
# Where the red patch of the top left corner is shown, by the upper 2 x 2 of the display matrix.
MATRICES = {
    (1, 0, 0, 1): "top left",
    (-1, 0, 0, 1): "top right",
    (1, 0, 0, -1): "bottom left",
    (-1, 0, 0, -1): "bottom right",
    (0, 1, 1, 0): "top left",
    (0, 1, -1, 0): "top right",
    (0, -1, 1, 0): "bottom left",
    (0, -1, -1, 0): "bottom right",
}


def redder_corner(frame: np.ndarray) -> str:
    corners = {
        "top left": frame[4, 4],
        "top right": frame[4, -5],
        "bottom left": frame[-5, 4],
        "bottom right": frame[-5, -5],
    }
    return max(corners, key=lambda name: int(corners[name][0]) - int(corners[name][1]))


def write_with(
    path: Path, codec: str, matrix: list[int] | None = None, pixel: Fraction | None = None
) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for frame in counted_frames(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def all_shapes(path: Path) -> set[tuple[int, int]]:
    info = probe(path)
    return {
        (info.height, info.width),
        *(frame.shape[:2] for frame in decode_uniform(path, 2).pixels),
        *(frame.shape[:2] for _, frame in iterate_frames(path)),
    }


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("upper", list(MATRICES))
def test_each_of_the_eight_orientations_is_honoured(
    tmp_path: Path, codec: str, upper: tuple[int, int, int, int]
) -> None:
    a, b, c, d = (each * ONE for each in upper)
    path = write_with(tmp_path / "a.mp4", codec, [a, b, 0, c, d, 0, 0, 0, 1 << 30])
    assert all_shapes(path) == {(96, 64) if a == 0 else (64, 96)}
    for frame in (decode_uniform(path, 2).pixels[0], next(iterate_frames(path))[1]):
        assert redder_corner(frame) == MATRICES[upper]


def test_a_transposed_picture_is_laid_pixel_by_pixel() -> None:
    pixels = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    np.testing.assert_array_equal(Orientation(True, False, True).apply(pixels), np.rot90(pixels, 1))
    np.testing.assert_array_equal(Orientation(True, True, False).apply(pixels), np.rot90(pixels, 3))
    np.testing.assert_array_equal(Orientation(False, True, True).apply(pixels), np.rot90(pixels, 2))
    assert not Orientation(True, True, False).mirrors
    assert Orientation(True).mirrors


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize(("pixel", "width"), [(Fraction(64, 45), 137), (Fraction(1, 2), 48)])
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, codec: str, pixel: Fraction, width: int
) -> None:
    path = write_with(tmp_path / "a.mp4", codec, pixel=pixel)
    assert all_shapes(path) == {(64, width)}
    assert next(iterate_frames(path, max_side=32))[1].shape[1] == min(32, round(32 * width / 64))


def test_a_turned_video_is_stretched_before_it_is_turned(tmp_path: Path) -> None:
    quarter = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30]
    path = write_with(tmp_path / "a.mp4", "libx264", quarter, Fraction(64, 45))
    assert all_shapes(path) == {(137, 64)}


@pytest.mark.parametrize("pixel", [None, Fraction(0), Fraction(60000, 1), Fraction(1, 60000)])
def test_a_header_without_sense_leaves_the_pixels_square(pixel: Fraction | None) -> None:
    assert displayed_size(160, 96, pixel) == (160, 96)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".ts"), ("libvpx-vp9", ".mkv")])
def test_all_frames_have_the_size_of_the_first(tmp_path: Path, codec: str, suffix: str) -> None:
    import av

    path = tmp_path / f"grows{suffix}"
    with av.open(str(path), "w") as container:
        copied = None
        for part, (height, width) in enumerate([(64, 96), (128, 192)]):
            source = write_video(tmp_path / f"{part}{suffix}", counted_frames(12, height, width), codec=codec)
            with av.open(str(source)) as reader:
                stream = reader.streams.video[0]
                copied = copied or container.add_stream_from_template(stream)
                start = None
                for packet in reader.demux(stream):
                    if packet.dts is None:
                        continue
                    start = packet.dts if start is None else start
                    shift = round(part / stream.time_base) - start
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copied
                    container.mux(packet)
    assert all_shapes(path) == {(64, 96)}


@pytest.mark.skipif(not sample_files("cases/video"), reason="the sample cases are not beside this checkout")
@pytest.mark.parametrize(("name", "corner"), [("hflip", "top right"), ("vflip", "bottom left")])
def test_the_mirrored_cases_move_the_right_way(name: str, corner: str) -> None:
    pixels = decode_uniform(CASES / f"{name}_hevc.mp4", 4).pixels
    assert {redder_corner(frame) for frame in pixels} == {corner}
    heights = [np.argwhere(frame.min(axis=-1) > 180)[:, 0].mean() for frame in pixels]
    assert heights == sorted(heights, reverse=name == "vflip")


@pytest.mark.skipif(not sample_files("cases/video"), reason="the sample cases are not beside this checkout")
@pytest.mark.parametrize(("name", "shape"), [("sar_64_45.mp4", (96, 228)), ("res_change.webm", (96, 160))])
def test_the_cases_of_odd_shape_are_as_displayed(name: str, shape: tuple[int, int]) -> None:
    assert all_shapes(CASES / name) == {shape}
