"""The folder for trl: loaded by `datasets`, and trained on by trl's own DPOTrainer."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from trl import DPOTrainer

from safevid_core.alignment.trainer import lora_config, training_arguments
from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.exports import export_pairs
from safevid_core.models.video_chat import load_local
from safevid_core.storage.lake import Lake
from safevid_core.video.uniform_frames import uniform_frames
from tests.alignment.conftest import alignment_of, checkpoints  # noqa: F401
from tests.alignment.exactness import FAMILIES, AlignmentOf

FRAMES = 2


@pytest.fixture(scope="module")
def loaded(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> datasets.DatasetDict:
    folder = tmp_path_factory.mktemp("trl") / "dev"
    export_pairs(lake, "trl", folder, frames=FRAMES, validation=0.3)
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_each_pair_has_its_texts_and_the_frames_of_its_clip(loaded: datasets.DatasetDict, lake: Lake) -> None:
    assert set(loaded) == {"train", "validation"}
    pairs = {pair["pair_id"]: pair for pair in lake.read(RELEASE).iter_rows(named=True)}
    rows = [row for split in loaded.values() for row in split]
    assert {row["pair_id"] for row in rows} == set(pairs)
    for row in rows:
        pair = pairs[row["pair_id"]]
        assert [(turn["role"], turn["content"]) for turn in row["prompt"]] == [("user", pair["prompt"])]
        assert row["chosen"][0]["content"] == pair["chosen"]
        assert row["rejected"][0]["content"] == pair["rejected"]
        path = lake.media.path(pair["media_sha256"])
        shown = uniform_frames(path, FRAMES, pair["start_s"], pair["end_s"]).pixels
        assert len(row["images"]) == FRAMES
        for image, pixels in zip(row["images"], shown, strict=True):
            # JPEG of quality 95 with half the colour resolution, on pictures of 96 pixels.
            assert abs(np.asarray(image).astype(int) - pixels).mean() < 6


@pytest.mark.parametrize("family", FAMILIES)
def test_trls_own_trainer_trains_on_it_and_sees_the_frames(
    family: str,
    alignment_of: AlignmentOf,  # noqa: F811
    loaded: datasets.DatasetDict,
    tmp_path: Path,
) -> None:
    alignment = alignment_of(family)
    model, processor = load_local(alignment.base)
    rows = loaded["train"].select(range(2))
    args = training_arguments(alignment, tmp_path, len(rows), 0)
    args.max_steps = 1
    trainer = DPOTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        processing_class=processor,
        peft_config=lora_config(alignment),
    )
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    # Chosen and rejected of two pairs, each with all its frames. InternVL's processor makes four tiles and a
    # thumbnail of an image.
    assert batch["input_ids"].shape[0] == 4
    pixels = batch["pixel_values"]
    frames = batch["image_grid_thw"].shape[0] if "image_grid_thw" in batch else pixels.shape[0]
    assert frames == 4 * FRAMES * (5 if family == "internvl" else 1)
    assert pixels.float().std() > 0
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if "lora_B" in name}
    done = trainer.train()
    assert torch.isfinite(torch.tensor(done.training_loss))
    assert any(not torch.equal(before[name], dict(model.named_parameters())[name]) for name in before)
