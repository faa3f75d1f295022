"""Candidate descriptions through the served path: real clips, real frames, a real HTTP server."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import VIDEO_CORPUS, candidate_table
from safevid_core.descriptions.synthesis import (
    DescriberError,
    candidates_of,
    describer_model,
)
from safevid_core.models.llm import Gateway
from safevid_core.models.video_model import video_model_hash
from safevid_core.pocket.world import ClipTruth, render_frames, write_clip
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from tests.media_places import placed
from tests.models.chat_server import ChatServer, says
from tests.stages import run_stage

SCENE = "kitchen"
SEEN = "A red crate moves left in a kitchen. It is on fire."


@pytest.fixture
def settings(tmp_path: Path, server: ChatServer) -> Settings:
    served = {"family": "internvl", "path": "openai/seer", "served_at": server.url, "frames": 2}
    return load_settings(
        "pocket", overrides={"root": str(tmp_path), "descriptions": {"describers": {"seer": served}}}
    )


def commit_corpus(lake: Lake, tmp_path: Path) -> None:
    """Clip "a" that decodes and clip "b" that does not."""
    clip = tmp_path / "a.mp4"
    write_clip(clip, render_frames(ClipTruth(SCENE, "crate", "red", "left", "fire"), seed=1))
    broken = tmp_path / "b.mp4"
    broken.write_text("no video")
    span = {"scene": SCENE, "split": "train", "start_s": 0.0, "end_s": 2.0}
    rows = [
        {"clip_id": path.stem, "path": str(path), "media_sha256": path.stem * 64, **span}
        for path in (clip, broken)
    ]
    outcomes: list[tuple[str, Outcome, str]] = [("a", "ok", ""), ("b", "ok", "")]
    lake.commit(VIDEO_CORPUS, SCENE, StageRows(VIDEO_CORPUS.frame(placed(lake, rows)), outcomes), "given", {})


def test_a_describer_is_shown_every_clip_of_a_scene(
    settings: Settings, server: ChatServer, tmp_path: Path
) -> None:
    lake = Lake(tmp_path, "pocket")
    commit_corpus(lake, tmp_path)
    server.queue(says(SEEN))
    report = run_stage(settings, lake, "seer_descriptions", SCENE, Gateway(settings))
    row = lake.read(candidate_table("seer"), SCENE).row(0, named=True)
    assert (row["clip_id"], row["text"], row["describer"]) == ("a", SEEN, "seer")
    assert len(row["frame_times"]) == 2
    assert report.manifest.outcomes == {"ok": 1, "filtered": 0, "failed": 1, "undecidable": 0}
    reason = lake.outcomes("seer_descriptions", SCENE).filter(input_id="b")["reason"][0]
    assert "b.mp4" in reason
    asked = server.seen[0]["messages"][-1]["content"]
    assert [part["type"] for part in asked] == ["image_url", "image_url", "text"]
    assert asked[-1]["text"] == settings.descriptions.prompt
    assert candidates_of(lake, "seer", SCENE).rows() == [("a", SEEN)]


def test_the_same_scene_is_described_once(settings: Settings, server: ChatServer, tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    commit_corpus(lake, tmp_path)
    gateway = Gateway(settings)
    run_stage(settings, lake, "seer_descriptions", SCENE, gateway)
    assert not run_stage(settings, lake, "seer_descriptions", SCENE, gateway).computed
    assert len(server.seen) == 1


def test_an_unknown_describer_is_named(settings: Settings) -> None:
    with pytest.raises(DescriberError, match=r"nobody.*seer"):
        describer_model(settings, "nobody")


def test_the_hash_of_a_model_follows_what_decides_its_answers(settings: Settings) -> None:
    model = settings.descriptions.describers["seer"]
    same = model.model_copy(update={"batch_size": 7, "device": "cuda"})
    assert video_model_hash(same) == video_model_hash(model)
    for change in ({"frames": 3}, {"revision": "2"}, {"max_new_tokens": 9}, {"temperature": 0.5}):
        assert video_model_hash(model.model_copy(update=change)) != video_model_hash(model)
