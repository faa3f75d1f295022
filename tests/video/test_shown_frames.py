"""The frame at an instant is the one that a plain pass over the file shows there, in files of every kind."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from safevid_core.video import decoding
from safevid_core.video.decoding import VideoError, decode_uniform, iterate_frames, probe
from safevid_core.video.decord_reader import suits_decord
from safevid_core.video.opening import opened_video
from tests.video.clips_for_tests import (
    SAMPLES,
    copy_stream,
    counted_frames,
    drawn_number,
    number_of,
    numbered_frames,
    plain_pass,
    sample_files,
    write_video,
)

FPS, COUNT = 24, 120
CASES = SAMPLES / "cases" / "video"
OPEN = {"g": "24", "bf": "3", "x264-params": "open-gop=1:b-pyramid=2:scenecut=0"}
CLOSED = {"g": "24", "bf": "2", "x264-params": "scenecut=0"}
REFRESH = {"g": "24", "bf": "0", "x264-params": "intra-refresh=1"}
HEVC = "log-level=none:keyint={}:min-keyint={}:open-gop={}:bframes=3:scenecut=0"


def write_numbered(path: Path, codec: str, options: dict[str, str] | None = None, **known: object) -> Path:
    return write_video(path, numbered_frames(COUNT), FPS, codec, options=options, **known)  # type: ignore[arg-type]


def refuse_other_frames(path: Path, most: int = COUNT) -> None:
    """Hold uniform frames and every frame of many spans to the plain pass."""
    truth = plain_pass(path)
    info = probe(path)
    assert info.frames == len(truth) <= most
    assert info.duration_s == pytest.approx(truth[-1][0] + 1 / FPS, abs=0.06)
    last = truth[-1][0]
    spans = [(0.0, info.duration_s, 8), (0.0, info.duration_s, 32)]
    spans += [(last * k / 7, min(last, last * k / 7 + 0.6), 4) for k in range(7)]
    for start, stop, n in spans:
        centres = start + (np.arange(n) + 0.5) * (stop - start) / n
        wanted = [[number for begin, number in truth if begin <= centre + 1e-4][-1] for centre in centres]
        frames = decode_uniform(path, n, start, stop)
        assert [drawn_number(frame) for frame in frames.pixels] == wanted, (start, stop)
        assert frames.span_s == pytest.approx(stop - start)
        shown_frames = [
            (time, drawn_number(frame)) for time, frame in iterate_frames(path, None, start, stop)
        ]
        assert shown_frames == [(begin, number) for begin, number in truth if start - 1e-4 <= begin < stop]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("closed.mp4", "libx264", CLOSED),
        ("open.mp4", "libx264", OPEN),
        ("open.mkv", "libx264", OPEN),
        ("open.flv", "libx264", OPEN),
        ("open.ts", "libx264", OPEN),
        ("closed.ts", "libx264", CLOSED),
        ("refresh.mp4", "libx264", REFRESH),
        ("raw.h264", "libx264", CLOSED),
        ("open.h264", "libx264", OPEN),
        ("raw.hevc", "libx265", {"x265-params": HEVC.format(24, 24, 1)}),
        ("open_hevc.mp4", "libx265", {"x265-params": HEVC.format(24, 24, 1)}),
        ("open_hevc.ts", "libx265", {"x265-params": HEVC.format(24, 24, 1)}),
        ("short_hevc.mp4", "libx265", {"x265-params": HEVC.format(3, 3, 0)}),
        ("groups.mpg", "mpeg2video", {"g": "12", "bf": "2", "qmax": "2"}),
        ("groups.m2v", "mpeg2video", {"g": "12", "bf": "2", "qmax": "2"}),
        ("groups_mpeg2.ts", "mpeg2video", {"g": "12", "bf": "2", "qmax": "2"}),
        ("b.avi", "mpeg4", {"g": "12", "bf": "2", "qmax": "2"}),
        ("vp9.webm", "libvpx-vp9", {"g": "24", "cpu-used": "8", "deadline": "realtime"}),
        ("av1.mp4", "libsvtav1", {"g": "24", "preset": "12"}),
    ],
)
def test_frames_are_those_of_a_plain_pass(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    refuse_other_frames(write_numbered(tmp_path / name, codec, options))


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("still.avi", "mjpeg", "yuvj420p"), ("pro.mov", "prores_ks", "yuv422p10le"), ("a.gif", "gif", "rgb8")],
)
def test_frames_of_whole_pictures_are_those_of_a_plain_pass(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    path = write_video(tmp_path / name, numbered_frames(40), FPS, codec, pixels)
    refuse_other_frames(path, 40)


@pytest.mark.parametrize("movflags", ["frag_keyframe+empty_moov", "frag_every_frame+empty_moov", "faststart"])
@pytest.mark.parametrize("options", [CLOSED, OPEN], ids=["closed", "open"])
def test_fragmented_files_show_the_same_frames(
    tmp_path: Path, movflags: str, options: dict[str, str]
) -> None:
    refuse_other_frames(
        write_numbered(tmp_path / "a.mp4", "libx264", options, container_options={"movflags": movflags})
    )


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_cut_by_copying_shows_nothing_from_before_the_cut(tmp_path: Path, codec: str, suffix: str) -> None:
    options = {"libx264": CLOSED, "libx265": {"x265-params": HEVC.format(48, 48, 0)}}.get(
        codec, {"g": "24", "bf": "2", "qmax": "2"}
    )
    whole = write_numbered(tmp_path / "whole.mp4", codec, options)
    cut = copy_stream(whole, tmp_path / f"cut{suffix}", start_s=2.6)
    if suffix == ".mp4":
        assert plain_pass(cut)[0][1] > 60, "the edit list hides pictures"
        assert probe(cut).frames < COUNT - 60
    refuse_other_frames(cut)


@pytest.mark.parametrize("offset_s", [-0.5, 0.0, 3.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".nut"])
def test_the_first_shown_frame_is_at_zero_wherever_its_file_begins(
    tmp_path: Path, suffix: str, offset_s: float
) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", "libx264", CLOSED)
    refuse_other_frames(copy_stream(whole, tmp_path / f"moved{suffix}", offset_s=offset_s))


def test_h264_in_avi_is_shown_in_order_from_the_first_frame(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "b.avi", "libx264", CLOSED)
    shown_frames = list(iterate_frames(path))
    assert [drawn_number(frame) for _, frame in shown_frames] == list(range(COUNT))
    assert [time for time, _ in shown_frames] == pytest.approx([i / FPS for i in range(COUNT)], abs=1e-3)
    assert probe(path).fps == pytest.approx(FPS)


def test_raw_streams_give_distinct_frames_and_their_own_rate(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "raw.h264", "libx264", CLOSED)
    info = probe(path)
    assert (info.frames, info.fps) == (COUNT, pytest.approx(FPS))
    assert info.duration_s == pytest.approx(COUNT / FPS, abs=1e-3)
    assert len({drawn_number(frame) for frame in decode_uniform(path, 8).pixels}) == 8


def write_slides(path: Path, codec: str, begins: list[float], until: float) -> Path:
    """Pictures shown for seconds each; the last until `until`."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"bf": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        ends = [*begins[1:], until]
        pictures = zip(numbered_frames(len(begins)), begins, ends, strict=True)
        lengths = {}
        for pixels, begin, end in pictures:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base, frame.pts = stream.codec_context.time_base, round(begin * 1000)
            lengths[frame.pts] = round((end - begin) * 1000)
            for packet in stream.encode(frame):
                container.mux(_lasting(packet, lengths))
        for packet in stream.encode(None):
            container.mux(_lasting(packet, lengths))
    return path


def _lasting(packet: object, lengths: dict[int, int]) -> object:
    packet.duration = lengths[packet.pts]  # type: ignore[attr-defined]
    return packet


@pytest.mark.parametrize(
    ("name", "codec"), [("s.mkv", "libx264"), ("s.webm", "libvpx-vp9"), ("s.mp4", "libx264")]
)
@pytest.mark.parametrize("begins", [[0.0, 2.0, 4.0], [3.0, 5.0, 7.0]])
def test_the_last_slide_counts_in_full_and_late_pictures_begin_at_zero(
    tmp_path: Path, name: str, codec: str, begins: list[float]
) -> None:
    path = write_slides(tmp_path / name, codec, begins, begins[-1] + 2)
    assert probe(path).duration_s == pytest.approx(6.0, abs=0.05)
    frames = decode_uniform(path, 6)
    assert [drawn_number(frame) for frame in frames.pixels] == [0, 0, 1, 1, 2, 2]
    assert [drawn_number(f) for f in decode_uniform(path, 2, 4.5, 5.8).pixels] == [2, 2]


def test_a_span_in_which_nothing_begins_is_refused_by_name(tmp_path: Path) -> None:
    path = write_slides(tmp_path / "slides.mp4", "libx264", [0.0, 2.0, 4.0], 6.0)
    with pytest.raises(VideoError, match=r"slides\.mp4.* holds no frame in that span; "):
        list(iterate_frames(path, None, 2.5, 3.5))


def test_frames_of_varying_length_are_shown_at_their_own_times(tmp_path: Path) -> None:
    begins = [0.0, 0.12, 0.17, 0.85, 1.02, 1.07, 1.8, 2.87]
    path = write_slides(tmp_path / "vfr.mp4", "libx264", begins, 3.2)
    assert decode_uniform(path, 16).times_s == pytest.approx(
        [max(b for b in begins if b <= (i + 0.5) * 0.2 + 1e-4) for i in range(16)], abs=2e-3
    )


@pytest.mark.parametrize(
    ("name", "options", "trusted"),
    [
        ("closed.mp4", CLOSED, True),
        ("closed.mkv", CLOSED, True),
        ("open.mp4", OPEN, False),
        ("refresh.mp4", REFRESH, False),
        ("closed.ts", CLOSED, False),
        ("interlaced.mp4", {"x264-params": "interlaced=1"}, False),
        ("flagged.mp4", {"x264-params": "fake-interlaced=1"}, False),
    ],
)
def test_decord_is_trusted_where_it_agrees(
    tmp_path: Path, name: str, options: dict[str, str], trusted: bool
) -> None:
    with opened_video(write_numbered(tmp_path / name, "libx264", options)) as opened:
        assert suits_decord(opened) == trusted


def test_decord_is_not_asked_about_a_cut(tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", "libx264", CLOSED)
    with opened_video(copy_stream(whole, tmp_path / "cut.mp4", start_s=2.6)) as opened:
        assert not suits_decord(opened)


@pytest.mark.parametrize("kind", [ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError])
@pytest.mark.parametrize("place", ["to_rgb", "frames_from"])
def test_whatever_a_decoder_raises_leaves_as_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], place: str
) -> None:
    path = write_video(tmp_path / "odd.ts", counted_frames(8))

    def fail(*_: object) -> None:
        raise kind("first\nsecond")

    monkeypatch.setattr(decoding.OpenVideo, place, fail)
    for use in (lambda: decode_uniform(path, 2), lambda: list(iterate_frames(path))):
        with pytest.raises(VideoError, match=rf"^'.*odd\.ts' cannot be decoded \({kind.__name__}: first\); "):
            use()


def test_a_file_replaced_under_its_name_is_read_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(8))
    assert probe(path).frames == 8
    write_video(tmp_path / "b.mp4", counted_frames(20)).replace(path)
    assert probe(path).frames == 20
    assert number_of(decode_uniform(path, 20).pixels[-1]) == 19


@pytest.mark.skipif(not sample_files("cases/video"), reason="the sample cases are not beside this checkout")
@pytest.mark.parametrize(
    "name",
    [
        "cut10s_g48.mp4", "cut_copy.mp4", "open_gop.mp4", "open_gop_long.flv", "ts_closed.ts",
        "hevc_g3.mp4", "late_start.mkv", "sound_first.webm",
    ],
)  # fmt: skip
def test_the_cases_show_the_frames_of_a_plain_pass(name: str) -> None:
    path = CASES / name
    frames = dict(iterate_frames(path))
    begins = list(frames)
    assert len(begins) == probe(path).frames
    for start, end in ((0.0, None), (begins[-1] / 3, begins[-1] / 3 + 0.8), (begins[-1] * 0.7, None)):
        chosen = decode_uniform(path, 5, start, end)
        until = end or probe(path).duration_s
        for place, frame in enumerate(chosen.pixels):
            centre = start + (place + 0.5) * (until - start) / 5
            shown = max(begin for begin in begins if begin <= centre + 1e-4)
            assert chosen.times_s[place] == shown
            np.testing.assert_array_equal(frame, frames[shown])
