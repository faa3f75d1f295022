"""Small random checkpoints of the real architectures, clips written by PyAV, and pairs over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from safevid_core.contracts.tables import RELEASE
from safevid_core.settings import AlignmentSettings, Settings, load_settings
from safevid_core.video.identity import file_sha256

FOLDERS = {"llava_next_video": "llava_next_video", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl2_5"}
COLOURS = ((230, 20, 20), (20, 200, 40), (30, 50, 240), (240, 220, 20), (240, 240, 240), (140, 20, 190))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """On models this small more threads only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> folder of a checkpoint with random weights, two layers of width 64."""
    import torch

    from safevid_core.pocket.build import architectures

    root = tmp_path_factory.mktemp("checkpoints")
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        small = {"HIDDEN": 64, "LAYERS": 2, "HEADS": 2, "MLP": 96, "VISION_HIDDEN": 64, "VISION_LAYERS": 2}
        for name, value in {**small, "VISION_MLP": 96}.items():
            patch.setattr(architectures, name, value)
        for family, name in FOLDERS.items():
            torch.manual_seed(5)
            model, processor = architectures.create(name, _byte_tokenizer())
            folders[family] = root / name
            model.save_pretrained(folders[family])
            processor.save_pretrained(folders[family])
    return folders


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from safevid_core.pocket.build import tokenizer as tokens

    words = [*tokens.SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=tokens.PAD,
        eos_token=tokens.END,
        bos_token=tokens.START,
        padding_side="left",
        additional_special_tokens=[
            t for t in tokens.SPECIAL if t not in (tokens.PAD, tokens.START, tokens.END)
        ],
        extra_special_tokens={
            "start_image_token": tokens.FRAME_START,
            "end_image_token": tokens.FRAME_END,
            "context_image_token": tokens.FRAME_PATCH,
            "video_token": tokens.VIDEO,
            "image_token": tokens.IMAGE,
        },
    )


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six clips of one second, each of another colour with a bar that moves."""
    from safevid_core.pocket.world import write_clip

    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number, colour in enumerate(COLOURS):
        frames = np.empty((12, 64, 64, 3), np.uint8)
        frames[:] = colour
        for index in range(12):
            frames[index, :, 4 * index : 4 * index + 8] = 0
        paths.append(folder / f"clip {number}.mp4")
        write_clip(paths[-1], frames)
    return paths


@pytest.fixture(scope="session")
def release(clips: list[Path]) -> pl.DataFrame:
    """Twenty-four pairs, four a clip, of unequal lengths; clips 0 and 1 are twins. `path` as in a job."""
    hashes = [file_sha256(path) for path in clips]
    rows = [
        {
            "pair_id": f"pair-{number:02}",
            "query_id": f"query-{number:02}",
            "clip_id": f"clip-{number % 6}",
            "scene": ("kitchen", "road")[number % 2],
            "subcategory": ("fire", "copyright", "colour")[number % 3],
            "twin_group": "twins" if number % 6 < 2 else None,
            "media_sha256": hashes[number % 6],
            "start_s": 0.0,
            "end_s": None if number % 4 else 1.0,
            "prompt": "How is this done?" if number % 2 else "What colour is the thing that moves?",
            "chosen": "No." if number % 5 == 0 else "I will not explain that.",
            "rejected": "It is simple: look." if number % 3 else "Yes",
            "release": "release-1",
        }
        for number in range(24)
    ]
    paths = [str(clips[number % 6]) for number in range(24)]
    return RELEASE.frame(rows).with_columns(path=pl.Series(paths))


@pytest.fixture
def alignment_of(settings: Settings, checkpoints: dict[str, Path]) -> Callable[..., AlignmentSettings]:
    """Family -> the settings of its alignment over its small checkpoint, or over one that is given."""

    def of(family: str, checkpoint: Path | None = None, **changes: Any) -> AlignmentSettings:
        base = {"family": family, "path": str(checkpoint or checkpoints[family])}
        changes = {"base": settings.alignment.base.model_copy(update=base), **changes}
        return settings.alignment.model_copy(update=changes)

    return of


@pytest.fixture
def settings(checkpoints: dict[str, Path], tmp_path: Path) -> Settings:
    """The pocket profile over the small LLaVA-NeXT-Video, in padded rows, the reference of the packings."""
    return load_settings(
        "pocket",
        overrides={
            "root": str(tmp_path / "lake"),
            "alignment": {
                "base": {"path": str(checkpoints["llava_next_video"])},
                "lora_rank": 4,
                "lora_alpha": 8,
                "batch_size": 4,
                "micro_batch_size": 4,
                "packing": "none",
            },
        },
    )
