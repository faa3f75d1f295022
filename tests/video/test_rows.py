"""A file on which a decoder fails, in whatever way, costs its own row and no other, in every caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from safevid_core.benchmarks.benchmark import problem_of
from safevid_core.contracts.rows import ClipSpan, MediaSpan
from safevid_core.corpus import clip_manifest, embeddings
from safevid_core.corpus.sources import Candidate
from safevid_core.descriptions import signal
from safevid_core.models.video_chat import VideoQuestion, frames_of
from safevid_core.reporting.samples import film_strip
from safevid_core.settings import Embedder
from safevid_core.storage.file_hashes import FileHashes
from safevid_core.storage.lake import Lake
from safevid_core.video.decoding import VideoError
from safevid_core.video.light import FrameConverter
from safevid_core.video.opening import OpenVideo
from tests.media_places import placed
from tests.video.clips_for_tests import counted_frames, write_video

FAILURES = (ValueError, TypeError, AttributeError, IndexError, OverflowError, RuntimeError)


@pytest.fixture(params=FAILURES)
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A clip whose pictures cannot be converted, for a reason that no one foresaw."""

    def fail(*_: object) -> None:
        raise request.param("all input arrays must have the same shape\nof frames")

    monkeypatch.setattr(FrameConverter, "to_rgb", fail)
    return str(write_video(tmp_path / "odd.ts", counted_frames(12)))


def test_embedding_goes_on_after_a_clip_whose_frames_fail(broken: str, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", "pocket")
    placed(lake, [{"clip_id": "c1", "path": broken, "media_sha256": "m", "start_s": 0.0, "end_s": 1.0}])
    failures: dict[str, str] = {}
    missing = [(ClipSpan("m", 0.0, 1.0, "c1"), Path(broken + ".npz"))]
    assert list(embeddings._compute(lake, Embedder(model="none"), missing, failures)) == []
    assert "odd.ts" in failures["c1"]
    assert "\n" not in failures["c1"]


def test_each_caller_gets_a_reason_or_nothing(broken: str, tmp_path: Path) -> None:
    for use in (
        lambda: signal.measure(broken),
        lambda: frames_of(VideoQuestion("What is shown?", broken), 4),
    ):
        with pytest.raises(VideoError, match=r"odd\.ts' cannot be decoded"):
            use()
    lake = Lake(tmp_path / "lake", "pocket")
    placed(lake, [{"path": broken, "media_sha256": "m", "start_s": 0.0, "end_s": None}])
    assert film_strip(MediaSpan("m", 0.0, None), lake.media) is None
    assert "odd.ts" in problem_of("video", Path(broken))


@pytest.mark.parametrize("failure", FAILURES)
def test_the_manifest_goes_on_after_a_file_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise failure("odd")

    monkeypatch.setattr(OpenVideo, "_read", fail)
    path = write_video(tmp_path / "odd.mp4", counted_frames(4))
    measured = clip_manifest._measure(path, "odd.mp4", FileHashes())
    assert measured.info is None
    assert "odd.mp4" in (measured.error or "")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video", "libvpx-vp9"])
def test_a_file_with_flipped_bytes_decodes_or_has_a_reason(tmp_path: Path, codec: str) -> None:
    suffix = ".webm" if codec == "libvpx-vp9" else ".mp4"
    whole = write_video(tmp_path / f"whole{suffix}", counted_frames(24), codec=codec).read_bytes()
    rng = np.random.default_rng(0)
    reasons: dict[str, str] = {}
    for round_ in range(25):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 12):
            damaged[place] = int(rng.integers(256))
        path = tmp_path / f"damaged{round_}{suffix}"
        path.write_bytes(damaged)
        try:
            signal.measure(str(path))
        except VideoError as error:
            reasons[path.name] = str(error)
    assert reasons
    assert all(name in reason and "\n" not in reason for name, reason in reasons.items())


def test_files_measured_under_other_decoding_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", counted_frames(4))
    reads = []
    for revision in (1, 1, 2):
        monkeypatch.setattr(clip_manifest, "DECODING_REVISION", revision)
        files = clip_manifest._MeasuredFiles(tmp_path / "measured.json", FileHashes())
        files.measure([Candidate("sources[0]::a.mp4", path, "folder", "CC0-1.0")])
        reads.append(files.read)
    assert reads == [1, 0, 1]
