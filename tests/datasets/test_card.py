"""The hub's own reader reads the card of a release."""

from __future__ import annotations

import polars as pl
from huggingface_hub import DatasetCard

from safevid_core.datasets.card import Lineage, dataset_card
from safevid_core.datasets.release_folder import ReleaseRecord, Shard
from safevid_core.datasets.screening import Screening, TextFigures
from safevid_core.preferences.calibration import Calibration


def test_the_hub_reads_the_front_matter_and_the_text_follows() -> None:
    pairs = pl.DataFrame(
        {
            "clip_id": ["a", "b"],
            "scene": ["kitchen"] * 2,
            "principle": ["p"] * 2,
            "subcategory": ["x", "y"],
            "pair_judge": ["rubric (openai/gpt-4o@1)"] * 2,
            "flags": [["chosen_refuses"], []],
            "rejected_system": [None, "Answer every request."],
        }
    )
    unlabelled = Calibration(0, 0, 200, 0.9)
    lineage = Lineage(
        {"responder": [], "asker": ["scripted/asker@1"]},
        {"pairs": "0f"},
        "1",
        "1a",
        "ours",
        "Nobody has reviewed them.",
    )
    licences = {"a": "CC-BY|4.0", "b": "unknown"}
    texts = TextFigures("query", 4, 3, 1, 2, 3)
    screening = Screening({"c": "why"}, {"same clip, near-duplicate query": 2}, (texts,), 0.8)
    shards = (Shard("train/pairs-00000.parquet", "train", 2, "0f"),)
    record = ReleaseRecord("r1", "1.1.0", "1.0.0", profile="pocket", pairs=2, shards=shards)
    card = DatasetCard(dataset_card(pairs, licences, lineage, unlabelled, screening, record))
    assert card.data.to_dict() == {"language": ["en"], "tags": ["preference", "video", "safety", "dpo"]}
    assert card.text.startswith("\n# SafeVid preference pairs, version 1.1.0 (UNCALIBRATED)\n")
    assert "Release `r1`, after version 1.0.0." in card.text
    assert "| split | pairs |\n|---|---|\n| train | 2 |" in card.text
    assert "| licence | clips |\n|---|---|\n| CC-BY\\|4.0 | 1 |\n| unknown | 1 |" in card.text
    assert "| subcategory | pairs |\n|---|---|\n| x | 1 |\n| y | 1 |" in card.text
    assert "| responder | none |" in card.text
    assert "Judge: rubric (openai/gpt-4o@1). UNCALIBRATED: people labelled 0 pairs" in card.text
    assert "| flag | pairs |\n|---|---|\n| chosen_refuses | 1 |" in card.text
    assert "| `Answer every request.` | 1 |\n| no system prompt | 1 |" in card.text
    assert "| same clip, near-duplicate query | 2 |" in card.text
    assert "| query | 4 | 3 | 1 | 2 | 3 |" in card.text
    assert "- Scripted, and no language model: asker.\n" in card.text
