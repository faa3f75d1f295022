"""A pair is encoded as generation would see it, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import ProcessorMixin

from safevid_core.alignment.clips import NoClips, PixelStore
from safevid_core.alignment.collator import VideoPreferenceCollator
from safevid_core.alignment.encoding import encode_pairs
from safevid_core.models.families import build_inputs, conversation
from safevid_core.models.video_chat import load_local
from safevid_core.settings import AlignmentSettings, Settings
from safevid_core.video.decoding import decode_uniform
from tests.alignment.exactness import AlignmentOf

Loaded = Callable[[str], tuple[AlignmentSettings, ProcessorMixin]]
FAMILIES = ("llava_next_video", "qwen2_5_vl", "internvl")


@pytest.fixture
def loaded(alignment_of: AlignmentOf) -> Loaded:
    """Family -> its alignment's settings and the processor of its checkpoint."""

    def of(family: str) -> tuple[AlignmentSettings, ProcessorMixin]:
        alignment = alignment_of(family)
        return alignment, load_local(alignment.base)[1]

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_what_generation_sees_then_the_answer_and_one_end_token(
    family: str, loaded: Loaded, release: pl.DataFrame
) -> None:
    alignment, processor = loaded(family)
    store = PixelStore()
    pairs = encode_pairs(release, alignment, processor, store).pairs
    assert [pair.pair_id for pair in pairs] == release["pair_id"].to_list()
    batch = VideoPreferenceCollator(pairs, store, processor.tokenizer.pad_token_id)(
        [{"pair_id": pair.pair_id} for pair in pairs[:3]]
    )
    for index in range(3):
        row = release.row(index, named=True)
        frames = decode_uniform(row["path"], alignment.base.frames, row["start_s"], row["end_s"])
        seen = build_inputs(family, processor, [conversation(row["prompt"])], [frames])
        for offset, side in ((0, "chosen"), (3, "rejected")):
            ids = batch["input_ids"][index + offset][batch["attention_mask"][index + offset].bool()]
            length = seen["input_ids"].shape[1]
            assert torch.equal(ids[:length], seen["input_ids"][0])
            assert processor.tokenizer.decode(ids[length:]) == row[side] + processor.tokenizer.eos_token
            answer = batch["completion_mask"][index + offset]
            assert answer.sum() == len(ids) - length
            assert answer[:length].sum() == 0
    pixels = "pixel_values" if family == "internvl" else "pixel_values_videos"
    whole = batch[pixels]
    assert torch.equal(whole[: len(whole) // 2], whole[len(whole) // 2 :])
    assert torch.equal(whole[2 * len(whole) // 6 : len(whole) // 2], seen[pixels])


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_video_a_row_is_what_generation_sees_of_text_alone(
    family: str, loaded: Loaded, release: pl.DataFrame
) -> None:
    alignment, processor = loaded(family)
    rows = release.with_columns(path=pl.lit(None, pl.String))
    encoded = encode_pairs(rows, alignment, processor, NoClips(), show_video=False)
    assert encoded.refused == {}
    assert len(encoded.pairs) == release.height
    for pair, row in zip(encoded.pairs[:3], release.head(3).iter_rows(named=True), strict=True):
        seen = build_inputs(family, processor, [conversation(row["prompt"], video=False)], [None])
        assert pair.prompt_ids == seen["input_ids"][0].tolist()
    batch = VideoPreferenceCollator(encoded.pairs, NoClips(), processor.tokenizer.pad_token_id)(
        [{"pair_id": pair.pair_id} for pair in encoded.pairs[:3]]
    )
    assert set(batch) <= {
        "input_ids", "attention_mask", "completion_mask", "mm_token_type_ids", "pair_ids",
    }  # fmt: skip


def test_rows_that_cannot_be_trained_on_are_refused_by_id(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    text_file = tmp_path / "notes.mp4"
    text_file.write_text("not a video")
    spoiled = [None, str(text_file), *release["path"][2:]]
    rows = release.with_columns(pl.Series("path", spoiled)).with_columns(
        prompt=pl.when(pl.col("pair_id") == "pair-05").then(pl.lit("why " * 200)).otherwise(pl.col("prompt"))
    )
    _, processor = load_local(settings.alignment.base)
    encoded = encode_pairs(rows, settings.alignment, processor, PixelStore())
    assert {pair_id: outcome for pair_id, (outcome, _) in encoded.refused.items()} == {
        "pair-00": "failed",
        "pair-01": "failed",
        "pair-05": "filtered",
    }
    reasons = {pair_id: reason for pair_id, (_, reason) in encoded.refused.items()}
    assert "pair pair-00: no video" in reasons["pair-00"]
    assert "notes.mp4" in reasons["pair-01"]
    assert "max_length 512" in reasons["pair-05"]
    assert len(encoded.pairs) == 21


@pytest.mark.parametrize("family", FAMILIES)
def test_many_prompts_about_a_clip_are_encoded_as_each_would_be_and_the_clip_is_processed_twice(
    family: str, loaded: Loaded, release: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also prompts that are equal, that begin another, that spell out a control token, or that are empty."""
    prompts = ["What is it?", "What is it?", "What is it? Say more.", "<video> and <|im_end|>?", "", "É 中"]
    rows = pl.concat([release[:1]] * len(prompts)).with_columns(
        pair_id=pl.Series([f"pair-{number}" for number in range(len(prompts))]), prompt=pl.Series(prompts)
    )
    alignment, processor = loaded(family)
    alone = [
        encode_pairs(rows[number : number + 1], alignment, processor, PixelStore()).pairs[0]
        for number in range(len(prompts))
    ]
    processed: list[int] = []

    def counting(family: Any, processor: Any, conversations: Any, videos: Any, **others: Any) -> Any:
        processed.append(len(videos))
        return build_inputs(family, processor, conversations, videos, **others)

    monkeypatch.setattr("safevid_core.models.prompts.build_inputs", counting)
    assert encode_pairs(rows, alignment, processor, PixelStore()).pairs == alone
    assert processed == [2]
