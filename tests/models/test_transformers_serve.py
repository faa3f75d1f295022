"""The served path against `transformers serve`: a real server, real checkpoints, frames as images."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from safevid_core.models.llm import Gateway
from safevid_core.models.video_chat import VideoQuestion, open_video_chat
from safevid_core.settings import VideoModel

POCKET = Path("safevid_core/pocket/checkpoints").absolute()
FOLDERS = {"llava_next_video": "llava_next_video", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl2_5"}
_PATIENCE_S = 120


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for every checkpoint: it loads the one that a request names."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [Path(sys.executable).with_name("transformers"), "serve", "--host", "127.0.0.1"]
    with log.open("w") as file:
        server = subprocess.Popen(
            [*map(str, command), "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not answer: {log.read_text()[-2000:]}")


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
