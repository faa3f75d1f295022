"""Weights that do not fit are refused by name: of a base checkpoint, of an adapter, in part or whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from safevid_core.models.video_chat import CheckpointError, load_local
from safevid_core.settings import VideoModel

WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
Weights = dict[str, torch.Tensor]
Change = Callable[[Path], None]


def of_weights(name: str, change: Callable[[Weights], Weights]) -> Change:
    def changed(folder: Path) -> None:
        save_file(change(load_file(folder / name)), folder / name, {"format": "pt"})

    return changed


def of_config(name: str, **values: Any) -> Change:
    def changed(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **values}))

    return changed


def to_bytes(name: str, keep: int) -> Change:
    def changed(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:keep])

    return changed


def without_first(weights: Weights) -> Weights:
    return {name: weights[name] for name in sorted(weights)[1:]}


def under_other_names(weights: Weights) -> Weights:
    return {name.replace("layers", "blocks"): each for name, each in weights.items()}


def with_one_more(weights: Weights) -> Weights:
    return {**weights, "base_model.model.more.lora_A.weight": torch.ones(2, 2)}


def of_another_shape(weights: Weights) -> Weights:
    return {**weights, max(weights): torch.zeros(3, 3)}


@pytest.mark.parametrize(
    "change",
    [
        of_weights(WEIGHTS, without_first),
        of_weights(WEIGHTS, of_another_shape),
        of_weights(WEIGHTS, under_other_names),
        to_bytes(WEIGHTS, 5000),
        to_bytes(WEIGHTS, 0),
        to_bytes("config.json", 9),
    ],
    ids=["one is missing", "another shape", "other names", "truncated", "empty", "no configuration"],
)
def test_a_checkpoint_that_is_not_whole_is_refused(
    change: Change, video_model: Callable[..., VideoModel], tmp_path: Path
) -> None:
    model = video_model("qwen2_5_vl")
    shutil.copytree(model.path, tmp_path / "base")
    change(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"checkpoint \S+base (lacks|cannot be loaded)"):
        load_local(model.model_copy(update={"path": str(tmp_path / "base")}))


def saved_adapter(model: VideoModel, folder: Path, *targets: str) -> Path:
    get_peft_model(load_local(model)[0], LoraConfig(target_modules=list(targets), r=2)).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize(
    "change",
    [
        of_weights(ADAPTER, without_first),
        of_weights(ADAPTER, under_other_names),
        of_weights(ADAPTER, with_one_more),
        of_weights(ADAPTER, of_another_shape),
        of_config("adapter_config.json", target_modules=["nothing"]),
        of_config("adapter_config.json", target_modules=["q_proj"]),
        of_config("adapter_config.json", r=4),
        to_bytes(ADAPTER, 300),
        lambda folder: (folder / ADAPTER).unlink(),
    ],
    ids=["in part", "other names", "one too many", "another shape", "no target", "fewer targets",
         "another rank", "truncated", "no weights"],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused(
    change: Change, video_model: Callable[..., VideoModel], tmp_path: Path
) -> None:
    model = video_model("qwen2_5_vl")
    adapter = saved_adapter(model, tmp_path / "adapter", "q_proj", "v_proj")
    change(adapter)
    with pytest.raises(CheckpointError, match=r"adapter \S+ does not fit"):
        load_local(model, adapter)


def test_an_adapter_of_the_embedding_fits_with_the_embedding_beside_it(
    video_model: Callable[..., VideoModel], tmp_path: Path
) -> None:
    model = video_model("qwen2_5_vl")
    adapter = saved_adapter(model, tmp_path / "adapter", "q_proj", "embed_tokens")
    assert any("embed_tokens.base_layer" in name for name in load_file(adapter / ADAPTER))
    load_local(model, adapter)


def test_a_folder_without_weights_is_named(video_model: Callable[..., VideoModel], tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match="nothing cannot be loaded"):
        load_local(video_model("qwen2_5_vl"), tmp_path / "nothing")
