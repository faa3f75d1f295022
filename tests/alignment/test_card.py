"""The hub's own reader reads the card of an adapter."""

from __future__ import annotations

from huggingface_hub import ModelCard

from safevid_core.alignment.card import model_card
from safevid_core.alignment.job import RunResult
from safevid_core.settings import Policy, Settings


def test_the_hub_reads_the_front_matter_and_the_text_follows(settings: Settings) -> None:
    result = RunResult(8, 2, 0.7, 0.5, 0.1, 1.0, 3.0, {"a": ("failed", "no frames")}, [], {})
    base = ("org/base: 7B", "0f1e")
    text = model_card("aligned", "paper", "r1", base, Policy(), 0.5, 1, settings.alignment, result)
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "base_model": "org/base: 7B",
        "library_name": "peft",
        "tags": ["safevid", "dpo", settings.alignment.finetuning, "video-text-to-text", "profile:paper"],
    }
    assert card.text.startswith("\n# aligned: org/base: 7B aligned by SafeVid\n\n")
    assert "| release | r1 |\n| data scale | 0.5 |\n" in card.text
    assert card.text.endswith("| reward accuracy | 1.0000 |\n")
