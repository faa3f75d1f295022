"""Key pictures and parameter sets are read out of packets as x264 and x265 write them, and out of noise."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.video.nal_units import (
    codes_whole_frames_only,
    h264_parameter_sets,
    is_random_access,
    nal_length_size,
    nal_units,
    sequence_parameter_sets,
)
from tests.video.clips_for_tests import counted_frames, write_video


def key_packets(path: Path, codec: str) -> tuple[list[list[bytes]], bytes | None]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        extradata = stream.codec_context.extradata
        size = nal_length_size(codec, extradata)
        packets = [bytes(packet) for packet in container.demux(stream) if packet.is_keyframe and packet.size]
    return [list(nal_units(each, size)) for each in packets], extradata


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv", ".h264"])
@pytest.mark.parametrize(("open_gop", "kinds"), [(0, [True, True]), (1, [True, False])])
def test_recovery_points_of_h264_are_distinguished_from_idrs(
    tmp_path: Path, suffix: str, open_gop: int, kinds: list[bool]
) -> None:
    options = {"g": "12", "bf": "2", "x264-params": f"open-gop={open_gop}:scenecut=0"}
    path = write_video(tmp_path / f"a{suffix}", counted_frames(24), options=options)
    packets, _ = key_packets(path, "h264")
    assert [is_random_access("h264", units) for units in packets] == kinds


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".hevc"])
def test_random_access_points_of_hevc_are_found(tmp_path: Path, suffix: str) -> None:
    options = {"x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0"}
    path = write_video(tmp_path / f"a{suffix}", counted_frames(24), codec="libx265", options=options)
    packets, _ = key_packets(path, "hevc")
    assert [is_random_access("hevc", units) for units in packets] == [True, True]


@pytest.mark.parametrize("profile", ["baseline", "main", "high", "high444"])
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_the_parameter_set_tells_of_fields(
    tmp_path: Path, profile: str, suffix: str, interlaced: int
) -> None:
    if profile == "baseline" and interlaced:
        pytest.skip("the baseline profile has no fields")
    options = {"profile": profile, "x264-params": f"interlaced={interlaced}:cqm=jvt"}
    if profile in ("baseline", "main"):
        options["x264-params"] = f"interlaced={interlaced}"
    pixels = "yuv444p" if profile == "high444" else "yuv420p"
    path = write_video(tmp_path / f"a{suffix}", counted_frames(4), pixels=pixels, options=options)
    packets, extradata = key_packets(path, "h264")
    sets = h264_parameter_sets(extradata) or sequence_parameter_sets(packets[0])
    assert [codes_whole_frames_only(each) for each in sets] == [not interlaced]


@given(data=st.binary(max_size=80), size=st.integers(1, 4))
def test_noise_is_read_without_end_or_error(data: bytes, size: int) -> None:
    units = list(nal_units(data, size))
    assert sum(map(len, units)) <= len(data)
    for codec in ("h264", "hevc"):
        is_random_access(codec, units)
    h264_parameter_sets(data)
    try:
        codes_whole_frames_only(data)
    except ValueError as error:
        assert "ends early" in str(error)  # noqa: PT017
