"""SmolLM2 inside the video model is the published one: its template, its tokens and its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from safevid_core.models.families import build_inputs, conversation
from safevid_core.models.video_chat import load_local
from safevid_core.settings import VideoModel
from safevid_core.small.architecture import FRAMES, TOKENS_A_FRAME, multimodal_template
from safevid_core.small.builder import save_whole
from safevid_core.small.reading import FAMILY, as_frames
from safevid_core.video.decoding import blank_like

pytestmark = pytest.mark.slow


def test_a_conversation_of_text_is_rendered_as_by_the_published_template(
    small_model: tuple[Any, Any], language_folder: Path
) -> None:
    from transformers import AutoTokenizer

    published = AutoTokenizer.from_pretrained(language_folder)
    for system in (None, "Be brief."):
        parts = conversation("How are you?", system=system, video=False)
        plain = [{**each, "content": each["content"][0]["text"]} for each in parts]
        mine = small_model[1].apply_chat_template(parts, add_generation_prompt=True, tokenize=False)
        assert mine == published.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
        assert ("named SmolLM" in mine) == (system is None)


def test_a_template_that_is_built_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="has changed"):
        multimodal_template("{{ messages }}")


def test_text_has_the_logits_of_the_published_model_and_no_new_token_is_written(
    small_model: tuple[Any, Any], language_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model, processor = small_model
    alone = AutoModelForCausalLM.from_pretrained(language_folder, dtype=torch.float32)
    inputs = build_inputs(FAMILY, processor, [conversation("What is a kite?", video=False)], [None])
    with torch.inference_mode():
        mine, theirs = model(**inputs).logits, alone(**inputs).logits
    known = theirs.shape[-1]
    torch.testing.assert_close(mine[..., :known], theirs, atol=1e-4, rtol=1e-4)
    assert (mine[..., known:].max(-1).values < theirs.max(-1).values - 5).all()


def test_a_clip_has_at_most_64_tokens_and_the_saved_checkpoint_answers_alike(
    small_model: tuple[Any, Any], tmp_path: Path
) -> None:
    model, processor = small_model
    grey = as_frames([blank_like(FRAMES, 96, 96)])
    inputs = build_inputs(FAMILY, processor, [conversation("What is shown?")], grey)
    shown = int((inputs["input_ids"] == model.config.video_token_index).sum())
    assert shown == FRAMES * TOKENS_A_FRAME <= 64
    save_whole(model, processor, tmp_path / "it")
    settings = VideoModel.model_validate({"family": FAMILY, "path": str(tmp_path / "it"), "dtype": "float32"})
    loaded, again = load_local(settings)
    with torch.inference_mode():
        one = model(**inputs).logits
        other = loaded(**build_inputs(FAMILY, again, [conversation("What is shown?")], grey)).logits
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
