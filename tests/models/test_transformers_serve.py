"""The served path against `transformers serve`: a real server, real checkpoints, frames as images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safevid_core.models.llm import Gateway
from safevid_core.models.video_chat import VideoQuestion, open_video_chat
from safevid_core.settings import VideoModel
from tests.transformers_server import serving

POCKET = Path("safevid_core/pocket/checkpoints").absolute()
FOLDERS = {"llava_next_video": "llava_next_video", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl2_5"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for every checkpoint: it loads the one that a request names."""
    with serving(tmp_path_factory.mktemp("serve") / "log.txt") as url:
        yield url


@pytest.mark.parametrize("family", FOLDERS)
def test_each_family_describes_a_clip_from_its_frames(
    family: str, address: str, gateway: Gateway, clips: list[Path]
) -> None:
    path = f"openai/{POCKET / FOLDERS[family]}"
    model = VideoModel(family=family, path=path, served_at=address, frames=4, max_new_tokens=40)
    chat = open_video_chat(model, gateway)
    seen = [VideoQuestion("Describe the video.", str(clip)) for clip in clips[:2]]
    answers = chat.answer_many([*seen, VideoQuestion("Describe the video.", video="none")], asset="x")
    assert [answer.outcome for answer in answers] == ["ok"] * 3, [answer.reason for answer in answers]
    # Of a video as so many pictures, which they did not learn on, the three tell the colour for certain.
    assert [clip.stem in (answer.text or "") for clip, answer in zip(clips, answers[:2], strict=False)] == [
        True,
        True,
    ]
    assert answers[0].tokens_in == answers[1].tokens_in > answers[2].tokens_in
    assert len(answers[0].frame_times) == 4
    one_frame = open_video_chat(model.model_copy(update={"frames": 1}), gateway)
    assert one_frame.answer_many(seen[:1], asset="x")[0].tokens_in < answers[0].tokens_in
    assert all(answer.cached for answer in chat.answer_many(seen, asset="x"))


def test_a_checkpoint_that_the_server_has_not_fails_its_row(
    address: str, gateway: Gateway, clips: list[Path], tmp_path: Path
) -> None:
    model = VideoModel(family="internvl", path=f"openai/{tmp_path}/gone", served_at=address)
    answers = open_video_chat(model, gateway).answer_many([VideoQuestion("What?", str(clips[0]))], asset="x")
    assert answers[0].outcome == "failed"
    assert answers[0].reason
    assert "\n" not in answers[0].reason
