"""The next run reads what a transient error kept from being read; a damaged file stays failed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import av
import polars as pl
import pytest

from safevid_core.alignment import encoding
from safevid_core.contracts.errors import READ_AGAIN
from safevid_core.contracts.tables import CLIP_MANIFEST, SCENE_ASSIGNMENTS, SIGNAL_DESCRIPTIONS, VIDEO_CORPUS
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake
from safevid_core.video.errors import VideoError, is_transient
from tests.evaluation.small_lake import put
from tests.stages import run_stage
from tests.video.clips_for_tests import counted_frames, write_video


class Share:
    """A share whose files can be read only while it is up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: int | None = None
        opens = av.open

        def open_or_fail(name: str, *rest: Any, **named: Any) -> Any:
            if self.error is not None and name.endswith("far.mp4"):
                raise OSError(self.error, "the share is down")
            return opens(name, *rest, **named)

        monkeypatch.setattr(av, "open", open_or_fail)


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Share:
    return Share(monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Settings, Lake]:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "near.mp4", counted_frames(24))
    write_video(folder / "far.mp4", counted_frames(20))
    (folder / "broken.mp4").write_bytes(b"no video")
    sources = [{"kind": "folder", "path": str(folder)}]
    settings = load_settings(
        "pocket", overrides={"root": str(tmp_path / "root"), "corpus": {"sources": sources}}
    )
    return settings, Lake(tmp_path / "root", "pocket")


def ends(lake: Lake, asset: str) -> dict[str, str]:
    return {row["input_id"].rpartition("/")[2].rpartition("::")[2]: row["outcome"]
            for row in lake.outcomes(asset).to_dicts()}  # fmt: skip


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN])
def test_a_manifest_is_made_again_after_an_error_of_the_moment(
    corpus: tuple[Settings, Lake], share: Share, error: int
) -> None:
    settings, lake = corpus
    share.error = error
    run_stage(settings, lake, "clip_manifest")
    assert ends(lake, CLIP_MANIFEST.name) == {"near.mp4": "ok", "far.mp4": "failed", "broken.mp4": "failed"}
    reasons = lake.outcomes(CLIP_MANIFEST.name).filter(pl.col("outcome") == "failed")["reason"].to_list()
    assert sum(reason.endswith(READ_AGAIN) for reason in reasons) == 1
    share.error = None
    assert run_stage(settings, lake, "clip_manifest").computed
    assert ends(lake, CLIP_MANIFEST.name) == {"near.mp4": "ok", "far.mp4": "ok", "broken.mp4": "failed"}
    assert not run_stage(settings, lake, "clip_manifest").computed


def test_later_stages_are_made_again_too(corpus: tuple[Settings, Lake], share: Share) -> None:
    settings, lake = corpus
    run_stage(settings, lake, "clip_manifest")
    clips = lake.read(CLIP_MANIFEST).to_dicts()
    put(
        lake,
        VIDEO_CORPUS,
        "beach",
        [{name: clip.get(name) for name in VIDEO_CORPUS.schema} for clip in clips],
    )
    share.error = errno.EIO
    for make, asset in (
        (lambda: run_stage(settings, lake, "scene_assignments"), SCENE_ASSIGNMENTS.name),
        (lambda: run_stage(settings, lake, "signal_descriptions", "beach"), SIGNAL_DESCRIPTIONS.name),
    ):
        share.error = errno.EIO
        make()
        partition = WHOLE if asset == SCENE_ASSIGNMENTS.name else "beach"
        assert lake.manifest(asset, partition).info["unread"] == 1
        share.error = None
        assert make().computed
        assert set(lake.outcomes(asset, partition)["outcome"]) == {"ok"}
        assert not make().computed


def test_a_training_does_not_go_on_without_a_video_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise VideoError("'/far.mp4' cannot be read: down; check the path", transient=True)

    monkeypatch.setattr(encoding, "_decode", away)
    rows = pl.DataFrame(
        {"pair_id": ["p"], "media_sha256": ["m"], "start_s": [0.0], "end_s": [1.0], "path": ["/far.mp4"],
         "prompt": ["q"], "chosen": ["a"], "rejected": ["b"]}
    )  # fmt: skip
    from transformers import AutoProcessor

    settings = load_settings("pocket").alignment

    processor = AutoProcessor.from_pretrained(settings.base.path)
    with pytest.raises(VideoError, match="next run tries again"):
        encoding.encode_pairs(rows, settings, processor, None)  # type: ignore[arg-type]


def test_what_is_a_fact_about_a_file_is_kept() -> None:
    for number in (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG):
        assert not is_transient(OSError(number, "x"))
    assert not is_transient(ValueError("x"))
    assert is_transient(VideoError("x; y", transient=True))
