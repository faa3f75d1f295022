"""Positions of Qwen2.5-VL are those it was trained with: the formula of transformers 4.57.3, written out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.models.families import build_inputs, conversation, frames_a_second
from safevid_core.models.rope import rope_index, space_as_trained
from safevid_core.models.video_chat import load_local
from safevid_core.settings import VideoModel
from safevid_core.video.decoding import Frames
from tests.pocket.test_checkpoints import CHECKPOINTS

MERGE, PER_SECOND = 2, 2
BACKBONE = SimpleNamespace(
    config=SimpleNamespace(
        vision_config=SimpleNamespace(spatial_merge_size=MERGE, tokens_per_second=PER_SECOND)
    )
)


def trained(kinds: list[Any]) -> torch.Tensor:
    """transformers 4.57.3, `Qwen2_5_VLModel.get_rope_index`, for one row.

    Args:
        kinds: A number of text tokens, or `(kind, grid, seconds)` of a picture or video.
    """
    lists: list[torch.Tensor] = []
    for each in kinds:
        st_idx = int(lists[-1].max()) + 1 if lists else 0
        if isinstance(each, int):
            lists.append(torch.arange(each).view(1, -1).expand(3, -1) + st_idx)
            continue
        kind, (t, h, w), second_per_grid_t = each
        second_per_grid_t = 0 if kind == 1 else second_per_grid_t
        llm_h, llm_w = h // MERGE, w // MERGE
        range_tensor = torch.arange(t).view(-1, 1).expand(-1, llm_h * llm_w)
        t_index = (range_tensor * second_per_grid_t * PER_SECOND).long().flatten()
        h_index = torch.arange(llm_h).view(1, -1, 1).expand(t, -1, llm_w).flatten()
        w_index = torch.arange(llm_w).view(1, 1, -1).expand(t, llm_h, -1).flatten()
        lists.append(torch.stack([t_index, h_index, w_index]) + st_idx)
    return torch.cat(lists, dim=1)


def ours(rows: list[list[Any]], padded_left: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    types = []
    images, videos, seconds = [], [], []
    for row in rows:
        line: list[int] = []
        for each in row:
            if isinstance(each, int):
                line += [0] * each
                continue
            kind, grid, pace = each
            line += [kind] * (grid[0] * grid[1] * grid[2] // MERGE**2)
            (images if kind == 1 else videos).append(grid)
            seconds += [pace] if kind == 2 else []
        types.append(line)
    longest = max(map(len, types))
    mask = torch.tensor([[0] * (longest - len(t)) + [1] * len(t) for t in types])
    kinds = torch.tensor([[0] * (longest - len(t)) + t for t in types])
    if not padded_left:
        mask, kinds = mask.flip(1), torch.tensor([t + [0] * (longest - len(t)) for t in types])
    positions, deltas = rope_index(
        BACKBONE, torch.zeros_like(kinds), kinds,
        torch.tensor(images) if images else None, torch.tensor(videos) if videos else None,
        torch.tensor(seconds) if seconds else None, mask,
    )  # fmt: skip
    return positions, deltas, mask


grids = st.tuples(st.integers(1, 6), st.sampled_from([2, 4, 8]), st.sampled_from([2, 4, 10]))
shown = st.tuples(st.just(2), grids, st.sampled_from([0.5, 1.0, 1.25, 5.0, 0.4])) | st.tuples(
    st.just(1), grids.map(lambda grid: (1, *grid[1:])), st.just(0)
)
# Text stands before, between and after: two videos side by side are one run of one kind.
rows = st.tuples(st.integers(1, 5), st.lists(st.tuples(shown, st.integers(1, 5)), max_size=3)).map(
    lambda drawn: [drawn[0], *(part for pair in drawn[1] for part in pair)]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=3), st.booleans())
def test_positions_are_those_of_training(batch: list[list[Any]], padded_left: bool) -> None:
    positions, deltas, mask = ours(batch, padded_left)
    for place, row in enumerate(batch):
        wanted = trained(row)
        assert torch.equal(positions[:, place, mask[place].bool()], wanted)
        assert int(deltas[place]) == int(wanted.max()) + 1 - wanted.shape[1]


def test_the_question_comes_after_the_time_of_a_long_clip() -> None:
    positions, _, _ = ours([[3, (2, (4, 4, 4), 5.0), 4]])
    time = positions[0, 0]
    assert time[3:19:4].tolist() == [3, 13, 23, 33]
    assert time[19:].tolist() == [34, 35, 36, 37]


def test_two_videos_side_by_side_are_two() -> None:
    video = (2, (2, 4, 4), 1.0)
    positions, _, _ = ours([[1, video, video, 1]])
    assert torch.equal(positions[:, 0], trained([1, video, video, 1]))


@pytest.mark.parametrize(("seconds", "count", "ids"), [(4.0, 8, [0, 2, 4, 6]), (2.0, 8, [0, 1, 2, 3])])
def test_seconds_a_grid_are_those_of_the_span(seconds: float, count: int, ids: list[int]) -> None:
    # Frames at 25 a second lie beside the wanted moments: 0.24, 0.72, 1.24 ... for 0.25, 0.75, 1.25.
    wanted = (np.arange(count) + 0.5) * seconds / count
    times = [round(float(int(time * 25 + 1e-6)) / 25, 4) for time in wanted]
    frames = Frames(np.zeros((count, 48, 48, 3), np.uint8), times, seconds)
    assert frames_a_second(frames) == count / seconds
    model = VideoModel(family="qwen2_5_vl", path=str(CHECKPOINTS / "qwen2_5_vl"), dtype="float32")
    loaded, processor = load_local(model)
    inputs = build_inputs("qwen2_5_vl", processor, [conversation("Why?")], [frames])
    assert float(inputs["second_per_grid_ts"][0]) == seconds / (count / 2)
    positions, _ = loaded.model.get_rope_index(
        inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"], second_per_grid_ts=inputs["second_per_grid_ts"],
    )  # fmt: skip
    video = inputs["mm_token_type_ids"][0] == 2
    time = positions[0, 0, video]
    assert (torch.unique(time) - time[0]).tolist() == ids
    assert int(positions[0, 0, video.nonzero()[-1] + 1]) == int(positions[:, 0, video].max()) + 1


def test_a_model_of_another_family_is_left_as_it_is() -> None:
    model = VideoModel(family="llava_next_video", path=str(CHECKPOINTS / "llava_next_video"), dtype="float32")
    loaded, _ = load_local(model)
    before = dict(vars(loaded.model))
    space_as_trained(loaded)
    assert vars(loaded.model).keys() == before.keys()


def test_generation_continues_where_the_question_ends(tmp_path: Path) -> None:
    # Greedy generation with a cache gives what one forward pass without one gives, token by token.
    model = VideoModel(family="qwen2_5_vl", path=str(CHECKPOINTS / "qwen2_5_vl"), dtype="float32")
    loaded, processor = load_local(model)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 48, 48, 3), dtype=np.uint8)
    inputs = build_inputs(
        "qwen2_5_vl", processor, [conversation("What?")], [Frames(pixels, [2.5, 7.5, 12.5, 17.5], 20.0)]
    )
    said = loaded.generate(**inputs, max_new_tokens=5, do_sample=False)
    start = inputs["input_ids"].shape[1]
    again = {**inputs, "input_ids": said, "attention_mask": torch.ones_like(said)}
    extra = torch.zeros(1, said.shape[1] - start, dtype=inputs["mm_token_type_ids"].dtype)
    again["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], extra], dim=1)
    with torch.no_grad():
        logits = loaded(**again, use_cache=False).logits
    assert logits[0, start - 1 : -1].argmax(-1).tolist() == said[0, start:].tolist()
