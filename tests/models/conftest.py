from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings, TextModel, VideoModel, load_settings
from tests.models.chat_server import ChatServer
from tests.postgres import ledger_url, postgres, postgres_database  # noqa: F401

# Family -> the name under which the pocket build makes its architecture.
ARCHITECTURES = {
    "llava_next_video": "llava_next_video",
    "qwen2_5_vl": "qwen2_5_vl",
    "internvl": "internvl2_5",
}


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a ledger of their own; keywords are gateway settings."""

    def make(**models: Any) -> Settings:
        short = {"lease_s": 2.0, **models}  # what a killed process held is soon free
        return load_settings("pocket", overrides={"root": str(tmp_path), "models": short})

    return make


@pytest.fixture
def gateway(settings: Callable[..., Settings]) -> Gateway:
    return Gateway(settings(providers=[], timeout_s=5, max_attempts=3, concurrency=8))


@pytest.fixture
def text_model(server: ChatServer) -> TextModel:
    return TextModel(model="openai/loopback", api_base=server.url)


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A randomly initialised checkpoint of each real architecture, small, by family."""
    import torch

    from safevid_core.pocket.build.architectures import create
    from safevid_core.pocket.build.tokenizer import train_tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizer = train_tokenizer(0)
    tokenizer.save_pretrained(root / "tokenizer")
    made = {}
    for family, name in ARCHITECTURES.items():
        model, processor = create(name, type(tokenizer).from_pretrained(root / "tokenizer"))
        loosen(model)
        made[family] = root / family
        model.save_pretrained(made[family])
        processor.save_pretrained(made[family])
    return made


def loosen(model: Any) -> None:
    # Stock initial weights answer everything alike; larger ones make answers hang on the input.
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1 and "embed" not in name:
                weights.mul_(4.0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four rendered clips that look different."""
    from safevid_core.pocket.world import ClipTruth, render_frames, write_clip

    root = tmp_path_factory.mktemp("clips")
    looks = (("red", "left"), ("blue", "right"), ("white", "up"), ("green", "still"))
    paths = []
    for seed, (colour, motion) in enumerate(looks):
        paths.append(root / f"{colour}.mp4")
        write_clip(paths[-1], render_frames(ClipTruth("kitchen", "ball", colour, motion, "glow"), seed))
    return paths


@pytest.fixture
def video_model(tiny_checkpoints: dict[str, Path]) -> Callable[..., VideoModel]:
    def make(family: str, **changes: Any) -> VideoModel:
        base = {"frames": 4, "dtype": "float32", "batch_size": 4, "max_new_tokens": 8}
        return VideoModel(family=family, path=str(tiny_checkpoints[family]), **{**base, **changes})

    return make


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "elsewhere"))
