"""The build goes on where it was stopped, and comes to the same weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safevid_core.models.video_chat import load_local
from safevid_core.pocket.build.samples import Samples, draw_samples
from safevid_core.settings import VideoModel
from safevid_core.small.builder import CHECKPOINT, REDUCED, build, read_record
from safevid_core.small.reading import FAMILY, Reading, TokenLimitError, learn_reading
from safevid_core.small.vision import Spelling, learn_spelling, seeing_parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_SHORT = Spelling(steps=8, batch=8, every=3)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return draw_samples(12, seed=5)


def learnt(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in seeing_parts(model).state_dict().items()}


def test_a_stopped_training_comes_to_the_same_weights(
    small_model: tuple[Any, Any], samples: Samples, tmp_path: Path
) -> None:
    model, processor = small_model
    words = model.get_input_embeddings().weight.clone()
    begin = learnt(model)

    def train(file: Path, stop: int | None, lines: list[str]) -> None:
        learn_spelling(model, processor, samples, _SHORT, 5, file, lines.append, stop)

    train(tmp_path / "whole.pt", None, [])
    whole = learnt(model)
    seeing_parts(model).load_state_dict(begin)
    train(tmp_path / "stopped.pt", 5, [])
    # What the killed process had in memory is lost; the stored state is that after step 3.
    seeing_parts(model).load_state_dict(begin)
    lines: list[str] = []
    train(tmp_path / "stopped.pt", None, lines)
    assert lines[0] == "spelling: resumed after step 3"
    for name, weight in learnt(model).items():
        torch.testing.assert_close(weight, whole[name], atol=1e-5, rtol=1e-4)
    assert any(not torch.equal(weight, begin[name]) for name, weight in whole.items())
    assert torch.equal(model.get_input_embeddings().weight, words)


def test_a_damaged_state_and_one_of_another_plan_are_begun_anew(
    small_model: tuple[Any, Any], samples: Samples, tmp_path: Path
) -> None:
    file, lines = tmp_path / "state.pt", list[str]()
    file.write_bytes(b"no state")
    learn_spelling(*small_model, samples, _SHORT, 5, file, lines.append)
    assert "cannot be read" in lines[0]
    assert "begun anew" in lines[0]
    lines.clear()
    learn_spelling(*small_model, samples, replace(_SHORT, rate=1e-4), 5, file, lines.append)
    assert "of another plan" in lines[0]


def test_the_second_training_leaves_the_language_model_alone_and_keeps_to_its_tokens(
    small_model: tuple[Any, Any], samples: Samples, tmp_path: Path
) -> None:
    model, processor = small_model
    language = {name: each.clone() for name, each in model.model.language_model.named_parameters()}
    begin, plan = learnt(model), Reading(steps=1, batch=2, every=1)
    read = learn_reading(model, processor, samples, plan, 5, tmp_path / "r.pt", lambda line: None)
    assert 100 < read < 400
    assert all(torch.equal(each, language[n]) for n, each in model.model.language_model.named_parameters())
    assert any(not torch.equal(weight, begin[name]) for name, weight in learnt(model).items())
    few = replace(plan, most_tokens=50)
    with pytest.raises(TokenLimitError, match="passes 50 tokens"):
        learn_reading(model, processor, samples, few, 5, tmp_path / "few.pt", lambda line: None)


def test_a_reduced_build_is_a_checkpoint_with_a_record_of_what_it_sees(tmp_path: Path, weights: None) -> None:
    lines: list[str] = []
    record = build(tmp_path, REDUCED, lines.append)
    assert json.loads((tmp_path / "vision.json").read_text()) == record == read_record(tmp_path)
    assert record["language_model"]["model"] == "SmolLM2-135M-Instruct"
    assert record["vision"] in ("claimed", "text only")
    assert ("event" in record["sees"]) == (record["vision"] == "claimed")
    for rates in record["accuracy"].values():
        assert all(0 <= each["ci_low"] <= each["value"] <= each["ci_high"] <= 1 for each in rates.values())
        assert all(each["n"] == REDUCED.held_out for each in rates.values())
    folder = str(tmp_path / CHECKPOINT)
    load_local(VideoModel.model_validate({"family": FAMILY, "path": folder, "dtype": "float32"}))
    assert not (tmp_path / "building").exists()
    lines.clear()
    assert build(tmp_path, REDUCED, lines.append) == record
    assert lines == [f"{folder} is built already"]
