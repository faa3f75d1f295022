"""A tiny untrained open_clip model in a folder, and settings that point at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("embedder") / "open_clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path, embedder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSettings:
    monkeypatch.delenv("SAFEVID_CLIPS", raising=False)

    def make(*sources: dict[str, Any], **corpus: Any) -> Settings:
        tree = {
            "sources": list(sources),
            "embedder": {"model": str(embedder_folder), "frames": 4},
            "min_seconds": 0.2,
            "own_clips": "method",
            **corpus,
        }
        return load_settings("pocket", overrides={"root": str(tmp_path / "root"), "corpus": tree})

    return make


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "root", "pocket")
