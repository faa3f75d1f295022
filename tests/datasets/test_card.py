"""The hub's own reader reads the card of a release."""

from __future__ import annotations

import re

import polars as pl
from huggingface_hub import DatasetCard

from safevid_core.datasets.card import Lineage, dataset_card
from safevid_core.datasets.citation import how_to_cite
from safevid_core.datasets.release_folder import ReleaseRecord, Shard
from safevid_core.datasets.screening import Screening, TextFigures
from safevid_core.datasets.writers import Writer, who_wrote_what, writers_of
from safevid_core.preferences.calibration import Calibration
from safevid_core.preferences.noise import PairNoise
from safevid_core.queries.prompts import WALK
from safevid_core.settings import load_settings


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
    card = DatasetCard(dataset_card(pairs, licences, lineage, unlabelled, screening, PairNoise(), record))
    assert card.data.to_dict() == {"language": ["en"], "tags": ["preference", "video", "safety", "dpo"]}
    assert card.text.startswith("\n# SafeVid preference pairs, version 1.1.0 (UNCALIBRATED)\n")
    assert "Release `r1`, after version 1.0.0." in card.text
    assert "| split | pairs |\n|---|---|\n| train | 2 |" in card.text
    assert "| licence | clips |\n|---|---|\n| CC-BY\\|4.0 | 1 |\n| unknown | 1 |" in card.text
    assert "| subcategory | pairs |\n|---|---|\n| x | 1 |\n| y | 1 |" in card.text
    assert "| responder | none | – | – | – |" in card.text
    assert "Not measured: the setting `preferences.second_judge` names no judge." in card.text
    assert "@misc{safevid_pairs_r1," in card.text
    assert "Judge: rubric (openai/gpt-4o@1). UNCALIBRATED: people labelled 0 pairs" in card.text
    assert "| flag | pairs |\n|---|---|\n| chosen_refuses | 1 |" in card.text
    assert "| `Answer every request.` | 1 |\n| no system prompt | 1 |" in card.text
    assert "| same clip, near-duplicate query | 2 |" in card.text
    assert "| query | 4 | 3 | 1 | 2 | 3 |" in card.text
    assert "- Scripted, and no language model: asker.\n" in card.text


def test_the_card_says_how_every_model_was_asked() -> None:
    settings = load_settings("paper")
    models = {
        "asker": ["gemini/gemini-2.5-pro@1"],
        "unaligned model": ["a"],
        "second judge": ["b"],
        "guest": ["c"],
    }
    text = who_wrote_what(models, writers_of(settings))
    assert re.search(
        r"\| asker \| gemini/gemini-2\.5-pro@1 \| 0\.7 \| 16384 "
        r"\| walk \(`[0-9a-f]{12}`\), candidates \(`[0-9a-f]{12}`\) \|",
        text,
    )
    assert "| unaligned model | a | 0.7 | 512 | none |" in text
    assert "| guest | c | – | – | – |" in text
    assert text.count("<details>") == 3  # two of the asker, one of the second judge
    assert f"```text\n{WALK}\n```" in text


def test_one_prompt_of_two_roles_is_printed_once_and_no_fence_ends_it() -> None:
    prompt = "Judge.\n```\nExample\n```"
    writers = [Writer("one judge", "0", "9", {"a": prompt}), Writer("other judge", "0", "9", {"b": prompt})]
    text = who_wrote_what({"one judge": ["m@1"], "other judge": ["n@1"]}, writers)
    assert text.count(f"````text\n{prompt}\n````") == 1
    assert "</code>: one judge (a), other judge (b)</summary>" in text


def test_both_citations_are_bibtex_entries_with_balanced_braces() -> None:
    text = how_to_cite("4780eddc", "paper", 350_000)
    entries = re.findall(r"```bibtex\n(.*?)\n```", text, re.DOTALL)
    assert [entry.split("{")[0] for entry in entries] == ["@misc", "@article"]
    for entry in entries:
        assert entry.count("{") == entry.count("}")
    assert "350000 pairs, profile paper" in entries[0]
    assert "arXiv:2505.11926" in entries[1]
    assert "Its authors did not make this release" in text
