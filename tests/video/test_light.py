"""Frames are given as a screen shows them: over white, in the light of an ordinary display, without combs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from safevid_core.video.decoding import decode_uniform, iterate_frames, probe
from safevid_core.video.light import over_white
from tests.video.clips_for_tests import SAMPLES, counted_frames, number_of, sample_files, write_video

CASES = SAMPLES / "cases" / "video"
LEGIBLE = "the sample cases are not beside this checkout"


def lettering() -> np.ndarray:
    """Black bars on a transparent black ground: uint8 RGBA."""
    rgba = np.zeros((64, 96, 4), np.uint8)
    rgba[16:48, 16:32, 3] = rgba[16:48, 64:80, 3] = 255
    rgba[16:48, 40:56, 3] = 128
    return rgba


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_transparent_parts_of_a_video_are_white(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    import av

    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lettering(), format="rgba")))
        container.mux(stream.encode(None))
    shown = [*decode_uniform(path, 2).pixels, *(frame for _, frame in iterate_frames(path))]
    assert len(shown) == 8
    for frame in [*shown, next(iterate_frames(path, max_side=48))[1].repeat(2, 0).repeat(2, 1)]:
        assert frame[8, 8].min() > 245
        assert frame[32, 24].max() < 12
        assert frame[32, 72].max() < 12
        assert abs(int(frame[32, 48].mean()) - 127) < 12


def test_over_white_weighs_by_alpha() -> None:
    rgba = np.array([[[0, 0, 0, 0], [10, 20, 30, 255], [0, 100, 200, 51]]], np.uint8)
    assert over_white(rgba).tolist() == [[[255, 255, 255], [10, 20, 30], [204, 224, 244]]]


def write_hdr(path: Path, transfer: int, codes: np.ndarray) -> Path:
    """Grey fields of these codes, 0 to 1, in 10-bit HEVC with BT.2020 primaries, limited range."""
    import av

    width = 16 * len(codes)
    luma = np.repeat(np.round(64 + 876 * codes), 16).astype(np.uint16)[None].repeat(32, 0)
    chroma = np.full((16, width // 2), 512, np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx265", rate=12, options={"x265-params": "log-level=none:lossless=1"}
        )
        stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        context.color_range = 1
        for _ in range(6):
            frame = av.VideoFrame(width, 32, "yuv420p10le")
            for plane, values in zip(frame.planes, (luma, chroma, chroma), strict=True):
                padded = np.zeros((values.shape[0], plane.line_size // 2), np.uint16)
                padded[:, : values.shape[1]] = values
                plane.update(padded.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def srgb(linear: float) -> float:
    return 255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


def test_pq_is_mapped_with_203_candelas_as_white(tmp_path: Path) -> None:
    candelas = np.array([0.0, 5.0, 50.0, 100.0, 203.0, 1000.0])
    power = (candelas / 10000) ** (2610 / 16384)
    codes = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    path = write_hdr(tmp_path / "pq.mp4", 16, codes)
    wanted = [srgb(min(1.0, each / 203)) for each in candelas]
    for frame in (decode_uniform(path, 1).pixels[0], next(iterate_frames(path))[1]):
        assert frame[16, 8::16].mean(axis=-1) == pytest.approx(wanted, abs=5)
    small = next(iterate_frames(path, max_side=48))[1]
    assert small[4, 4::8].mean(axis=-1) == pytest.approx(wanted, abs=8)


def test_hlg_is_mapped_with_three_quarters_as_white(tmp_path: Path) -> None:
    path = write_hdr(tmp_path / "hlg.mp4", 18, np.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    greys = decode_uniform(path, 1).pixels[0][16, 8::16].mean(axis=-1)
    # BT.2100: scene light E = E'^2 / 3 up to a half; display light 1000 E^1.2 cd/m2; white is 203 cd/m2.
    wanted = [srgb(1000 / 203 * (code**2 / 3) ** 1.2) for code in (0.0, 0.25, 0.5)]
    assert greys[:3] == pytest.approx(wanted, abs=8)
    assert greys[3] > 240
    assert greys[4] >= greys[3]


@pytest.mark.parametrize("pixels", ["gray16le", "gray"])
def test_deep_grey_video_is_scaled(tmp_path: Path, pixels: str) -> None:
    path = write_video(tmp_path / "grey.mkv", counted_frames(8), codec="ffv1", pixels=pixels)
    assert [number_of(frame) for frame in decode_uniform(path, 8).pixels] == list(range(8))


def moving_fields(count: int) -> np.ndarray:
    """A white bar that moves 6 pixels a field, two fields woven into each frame."""
    fields = np.zeros((2 * count, 64, 192, 3), np.uint8)
    for index in range(2 * count):
        fields[index, :, 6 * index : 6 * index + 24] = 255
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]
    return woven


def combing(frame: np.ndarray) -> float:
    """How much more neighbouring lines differ than lines of one field do."""
    grey = frame[..., 0].astype(float)
    return float(np.abs(np.diff(grey, axis=0)).mean() - np.abs(grey[2:] - grey[:-2]).mean())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("i.mp4", "libx264", {"x264-params": "interlaced=1:tff=1", "g": "6"}),
        ("i.mpg", "mpeg2video", {"flags": "+ilme+ildct", "g": "6", "qmax": "2"}),
    ],
)
def test_flagged_interlaced_frames_are_filled_in_and_keep_their_times(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    woven = moving_fields(14)
    assert combing(woven[7]) > 10
    path = write_video(tmp_path / name, woven, codec=codec, options=options)
    every = list(iterate_frames(path))
    assert [time for time, _ in every] == pytest.approx([i / 12 for i in range(14)], abs=1e-3)
    assert max(combing(frame) for _, frame in every) < 3
    assert probe(path).frames == 14
    chosen = decode_uniform(path, 3, 0.5, 1.1)
    known = dict(every)
    for time, frame in zip(chosen.times_s, chosen.pixels, strict=True):
        np.testing.assert_array_equal(frame, known[time])
    bar = [float(np.argwhere(frame[32, :, 0] > 128).mean()) for _, frame in every]
    assert np.diff(bar) == pytest.approx([12] * 13, abs=3)


def test_progressive_frames_are_left_alone(tmp_path: Path) -> None:
    woven = moving_fields(6)
    path = write_video(tmp_path / "p.mp4", woven, codec="libx264", options={"crf": "1"})
    assert combing(decode_uniform(path, 1).pixels[0]) > 10


@pytest.mark.skipif(not sample_files("cases/video"), reason=LEGIBLE)
def test_the_cases_are_legible_and_not_combed() -> None:
    lettered = decode_uniform(CASES / "alpha_qtrle.mov", 2).pixels[0]
    assert lettered[2, 2].tolist() == [255, 255, 255]
    assert 20 < (lettered.max(axis=-1) < 60).sum() < lettered[..., 0].size / 4
    assert max(combing(frame) for frame in decode_uniform(CASES / "interlaced.mp4", 4).pixels) < 2


@pytest.mark.skipif(not sample_files("cases/video"), reason=LEGIBLE)
def test_the_same_flashes_are_seen_in_both_containers() -> None:
    from safevid_core.descriptions.signal import measure

    measured_files = [measure(str(CASES / f"flash_first_second_libx264.{kind}"))[0] for kind in ("ts", "mp4")]
    assert measured_files[0].flashes_per_second == measured_files[1].flashes_per_second > 3
    assert measured_files[0].frames == measured_files[1].frames
