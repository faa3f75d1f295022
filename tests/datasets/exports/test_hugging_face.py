"""The folder for `datasets`: loaded by `load_dataset`, card and Croissant read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from huggingface_hub import DatasetCard

from safevid_core.contracts.tables import RELEASE, VIDEO_CORPUS
from safevid_core.datasets.exports import export_pairs, hugging_face
from safevid_core.storage.lake import Lake
from tests.datasets.exports.conftest import HOSTILE, SCENE, TEST_LICENCE, own_lake
from tests.evaluation.small_lake import put, settings_for
from tests.stages import run_stage


@pytest.fixture(scope="module")
def folder(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export below folders whose names `datasets` would take for splits."""
    folder = tmp_path_factory.mktemp("test") / "eval_dev_training"
    export_pairs(lake, "hugging-face", folder, validation=0.3)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> datasets.DatasetDict:
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path_factory.mktemp("cache")))


def text_of(messages: list[dict[str, Any]]) -> str:
    ((message,), parts) = (messages, [part for part in messages[0]["content"] if part["type"] == "text"])
    assert message["role"] in ("user", "assistant")
    (part,) = parts
    return part["text"]


def test_load_dataset_gives_the_splits_the_features_and_the_licence(
    loaded: datasets.DatasetDict, lake: Lake
) -> None:
    assert set(loaded) == {"train", "validation"}
    assert sum(map(len, loaded.values())) == lake.read(RELEASE).height
    for split in loaded.values():
        assert split.features == datasets.Features.from_arrow_schema(hugging_face.arrow_schema())
        assert split.info.license == TEST_LICENCE.lower()
        assert set(split["licence"]) == {TEST_LICENCE}
    assert not set(loaded["train"]["source_id"]) & set(loaded["validation"]["source_id"])


def test_every_text_and_figure_survives(loaded: datasets.DatasetDict, lake: Lake) -> None:
    rows = {row["pair_id"]: row for split in loaded.values() for row in split}
    released = lake.read(RELEASE)
    assert any(HOSTILE in text for text in released["chosen"])
    for pair in released.iter_rows(named=True):
        row = rows[pair["pair_id"]]
        assert row["prompt"][0]["content"][0] == {"type": "video", "text": None}
        assert {name: text_of(row[name]) for name in ("prompt", "chosen", "rejected")} == {
            name: pair[name] for name in ("prompt", "chosen", "rejected")
        }
        known = [name for name in hugging_face.COLUMNS if name in pair]
        assert {name: row[name] for name in known} == {name: pair[name] for name in known}


def test_no_column_of_a_pair_is_forgotten() -> None:
    left_out = {"chosen_request_key", "rejected_request_key", "split"}
    assert set(RELEASE.schema) - left_out <= {"prompt", "chosen", "rejected", *hugging_face.COLUMNS}


def test_many_shards_are_read_as_one(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: datasets.DatasetDict
) -> None:
    monkeypatch.setattr(hugging_face, "_SHARD", 7)
    export_pairs(lake, "hugging-face", tmp_path / "out", validation=0.3)
    shards = sorted(path.name for path in (tmp_path / "out" / "data").glob("train-*.parquet"))
    assert len(shards) == -(-len(loaded["train"]) // 7)
    assert shards[0] == f"train-00000-of-{len(shards):05}.parquet"
    again = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert again["train"]["pair_id"] == loaded["train"]["pair_id"]


def test_the_hub_reads_the_card(folder: Path, lake: Lake) -> None:
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == TEST_LICENCE.lower()
    assert card.data.to_dict()["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"},
        {"split": "validation", "path": "data/validation-*.parquet"},
    ]
    release = lake.read(RELEASE)["release"][0]
    assert card.text.startswith("\n# SafeVid preference pairs, version 1.0.0")
    assert f"Release `{release}`" in card.text
    assert "`media_sha256` (SHA-256" in card.text
    assert "release.json" not in card.text
    for section in (
        "## Warnings", "## Licences of the pairs", "## Splits", "## Access", "## Pair judge",
        "## Label noise", "## Who wrote what", "## Lineage", "## How to cite",
    ):  # fmt: skip
        assert card.text.count(section) == 1


def test_the_card_asks_for_a_gate(folder: Path) -> None:
    """The kinds of fields are those that the Hub knows: text, checkbox, date_picker, country, select."""
    data = DatasetCard.load(folder / "README.md").data.to_dict()
    fields = data["extra_gated_fields"]
    assert list(fields)[:3] == ["Name", "Affiliation", "Intended use"]
    assert set(fields.values()) == {"text", "checkbox"}
    assert "unsafe on purpose" in data["extra_gated_prompt"]
    assert data["tags"][-1] == "not-for-all-audiences"


def test_several_licences_are_other_and_listed(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    clips = lake.read(VIDEO_CORPUS, SCENE).drop("profile").to_dicts()
    released = set(lake.read(RELEASE)["clip_id"])
    first = next(clip for clip in clips if clip["clip_id"] in released)
    first["licence"] = None
    put(lake, VIDEO_CORPUS, SCENE, clips)
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    export_pairs(lake, "hugging-face", tmp_path / "out")
    data = DatasetCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (data["license"], data["license_link"]) == ("other", "LICENSE")
    assert "unknown: 2 pairs" in (tmp_path / "out" / "LICENSE").read_text()
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert sorted(set(loaded["train"]["licence"])) == [TEST_LICENCE, "unknown"]


def test_croissant_has_a_field_for_each_column(folder: Path) -> None:
    document = json.loads((folder / "croissant.json").read_text())
    columns = hugging_face.arrow_schema().names
    assert [record_set["@id"] for record_set in document["recordSet"]] == ["train", "validation"]
    for record_set in document["recordSet"]:
        assert [field["name"] for field in record_set["field"]] == columns
    files = [each for each in document["distribution"] if each["@type"] == "cr:FileObject"]
    assert all((folder / file["contentUrl"]).is_file() for file in files)
    assert pl.read_parquet(folder / files[0]["contentUrl"]).columns == columns
