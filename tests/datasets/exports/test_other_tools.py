"""Each export read by the loader of its own tool, in an environment of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.exports import EXPORTS, export_pairs
from safevid_core.datasets.exports.release_rows import read_release
from safevid_core.storage.lake import Lake
from tests.datasets.exports.conftest import TEST_LICENCE
from tests.datasets.exports.environments import asked, installed

pytestmark = pytest.mark.slow

INSPECT = """
import json, sys
from inspect_ai.dataset import json_dataset
print(json.dumps([
    {"pair_id": s.id, "chosen": s.target, "rejected": s.metadata["rejected"],
     "video": s.input[0].content[0].video, "prompt": s.input[0].content[1].text}
    for s in json_dataset(sys.argv[1] + "/train.jsonl")
]))
"""
LLAMA_FACTORY = """
import json, sys
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import Seq2SeqTrainingArguments
folder = sys.argv[1]
arguments = DataArguments(dataset_dir=folder, dataset="safevid_train", media_dir=folder, template="qwen2_vl")
(attributes,) = get_dataset_list(["safevid_train"], folder)
rows = _load_single_dataset(
    attributes, ModelArguments(model_name_or_path="none"), arguments, Seq2SeqTrainingArguments("out")
)
print(json.dumps([
    {"prompt": r["_prompt"][0]["content"], "chosen": r["_response"][0]["content"],
     "rejected": r["_response"][1]["content"], "video": r["_videos"][0]}
    for r in rows
]))
"""
MS_SWIFT = """
import json, sys
from swift.dataset import load_dataset
from swift.template import TemplateInputs
rows, _ = load_dataset(sys.argv[1] + "/train.jsonl")
found = []
for row in rows:
    both = TemplateInputs.from_dict({name: value for name, value in row.items() if name != "dataset"})
    assert both.chosen.videos == both.rejected.videos and len(both.rejected.videos) == 1
    found.append({"prompt": both.chosen.messages[0]["content"], "chosen": both.chosen.messages[1]["content"],
                  "rejected": both.rejected.messages[1]["content"], "video": both.rejected.videos[0]})
print(json.dumps(found))
"""
WEBDATASET = """
import json, pathlib, sys
import numpy
import webdataset
shards = sorted(map(str, pathlib.Path(sys.argv[1]).glob("train-*.tar")))
rows = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
print(json.dumps([
    {"pair_id": r["__key__"], **{n: r["json"][n] for n in ("prompt", "chosen", "rejected")},
     "frames": [float(numpy.asarray(r[n]).std()) for n in sorted(r) if n.endswith(".jpg")]}
    for r in rows
]))
"""
CROISSANT = """
import json, sys
import mlcroissant
metadata = mlcroissant.Dataset(sys.argv[1] + "/croissant.json")
rows = []
for split in ("train", "validation"):
    for record in metadata.records(split):
        rows.append({name.split("/")[1]: value for name, value in record.items()})
def text(value):
    return value.decode() if isinstance(value, bytes) else value
print(json.dumps([
    {**{n: text(r[n][0]) for n in ("prompt", "chosen", "rejected")}, "pair_id": text(r["pair_id"]),
     "criteria": [text(each) for each in r["criteria"]], "margin": r["margin"]}
    for r in rows
] + [list(metadata.metadata.license), sorted(metadata.metadata.ctx.issues.errors)]))
"""


def exported(lake: Lake, name: str, to: Path) -> dict[str, dict[str, Any]]:
    """An export, and the pairs of its training split by id."""
    frames = 2 if EXPORTS[name].media == "frames" else None
    export_pairs(lake, name, to, frames=frames, validation=0.3)
    rows = read_release(lake, validation=0.3)
    return {pair["pair_id"]: pair for batch in rows.batches("train") for pair in batch.iter_rows(named=True)}


def texts(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((row["prompt"].removeprefix("<video>"), row["chosen"], row["rejected"]) for row in rows)


def videos_of(lake: Lake, pairs: dict[str, dict[str, Any]]) -> set[str]:
    return {str(lake.media.path(pair["media_sha256"])) for pair in pairs.values()}


def test_inspect_ai_reads_the_samples(lake: Lake, tmp_path: Path) -> None:
    python = installed(tmp_path / "tool", "inspect_ai")
    pairs = exported(lake, "inspect", tmp_path / "out")
    rows = asked(python, INSPECT, tmp_path / "out")
    assert [row["pair_id"] for row in rows] == list(pairs)
    assert texts(rows) == texts(list(pairs.values()))
    assert {row["video"] for row in rows} == videos_of(lake, pairs)


def test_llama_factory_loads_the_ranking(lake: Lake, tmp_path: Path) -> None:
    python = installed(tmp_path / "tool", "llamafactory==0.9.5")
    pairs = exported(lake, "llama-factory", tmp_path / "out")
    rows = asked(python, LLAMA_FACTORY, tmp_path / "out")
    assert texts(rows) == texts(list(pairs.values()))
    assert all(row["prompt"].startswith("<video>") for row in rows)
    assert {row["video"] for row in rows} == videos_of(lake, pairs)


def test_llama_factory_finds_cut_clips_below_the_folder(lake: Lake, tmp_path: Path) -> None:
    python = installed(tmp_path / "tool", "llamafactory==0.9.5")
    export_pairs(lake, "llama-factory", tmp_path / "out", cut=True, validation=0.0)
    rows = asked(python, LLAMA_FACTORY, tmp_path / "out")
    assert {Path(row["video"]) for row in rows} == set((tmp_path / "out" / "videos").iterdir())


def test_ms_swift_loads_both_sides_with_their_video(lake: Lake, tmp_path: Path) -> None:
    python = installed(tmp_path / "tool", "ms-swift==4.6.0")
    pairs = exported(lake, "ms-swift", tmp_path / "out")
    rows = asked(python, MS_SWIFT, tmp_path / "out")
    assert texts(rows) == texts(list(pairs.values()))
    assert {row["video"] for row in rows} == videos_of(lake, pairs)


def test_webdataset_reads_the_shards(lake: Lake, tmp_path: Path) -> None:
    python = installed(tmp_path / "tool", "webdataset", "pillow")
    pairs = exported(lake, "webdataset", tmp_path / "out")
    rows = asked(python, WEBDATASET, tmp_path / "out")
    assert [row["pair_id"] for row in rows] == list(pairs)
    assert texts(rows) == texts(list(pairs.values()))
    assert all(len(row["frames"]) == 2 and min(row["frames"]) > 0 for row in rows)


def test_mlcroissant_reads_the_records(lake: Lake, tmp_path: Path) -> None:
    python = installed(tmp_path / "tool", "mlcroissant[parquet]")
    exported(lake, "hugging-face", tmp_path / "out")
    *rows, licence, errors = asked(python, CROISSANT, tmp_path / "out")
    released = {pair["pair_id"]: pair for pair in lake.read(RELEASE).iter_rows(named=True)}
    assert {row["pair_id"] for row in rows} == set(released)
    for row in rows:
        assert row == {name: released[row["pair_id"]][name] for name in row}
    assert licence == [TEST_LICENCE.lower()]
    assert errors == []
