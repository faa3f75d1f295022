"""The hub's own reader reads the card of a release."""

from __future__ import annotations

import polars as pl
from huggingface_hub import DatasetCard

from safevid_core.datasets.card import Lineage, dataset_card


def test_the_hub_reads_the_front_matter_and_the_text_follows() -> None:
    pairs = pl.DataFrame(
        {"clip_id": ["a", "b"], "scene": ["kitchen"] * 2, "principle": ["p"] * 2, "subcategory": ["x", "y"]}
    )
    lineage = Lineage({"responder": []}, {"pairs": "0f"}, "1", "1a", "ours", "Nobody has reviewed them.")
    card = DatasetCard(dataset_card(pairs, {"a": "CC-BY|4.0", "b": "unknown"}, lineage, "r1", "pocket"))
    assert card.data.to_dict() == {"language": ["en"], "tags": ["preference", "video", "safety", "dpo"]}
    assert card.text.startswith("\n# SafeVid preference pairs, release r1\n")
    assert "| licence | clips |\n|---|---|\n| CC-BY\\|4.0 | 1 |\n| unknown | 1 |" in card.text
    assert "| subcategory | pairs |\n|---|---|\n| x | 1 |\n| y | 1 |" in card.text
    assert "| responder | none |" in card.text
