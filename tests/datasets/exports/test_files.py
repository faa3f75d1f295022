"""The files themselves: hostile texts come back whole, and samples follow each other in a shard."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.exports import export_pairs, webdataset
from safevid_core.datasets.exports.clip_media import safe_name
from safevid_core.datasets.exports.text_rows import json_objects, write_json_lines, write_json_list
from safevid_core.storage.lake import Lake
from tests.datasets.exports.conftest import TEST_LICENCE

TEXTS = st.none() | st.text()
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a text": TEXTS,
            "number": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
            "list": st.none() | st.lists(TEXTS, max_size=3),
            "nested": st.fixed_dictionaries({"content": TEXTS, "said": st.none() | st.booleans()}),
        }
    ),
    max_size=5,
)
SCHEMA = pl.Schema(
    {
        "a text": pl.String,
        "number": pl.Float64,
        "whole": pl.Int64,
        "list": pl.List(pl.String),
        "nested": pl.Struct({"content": pl.String, "said": pl.Boolean}),
    }
)


@given(rows=ROWS, size=st.integers(1, 4))
def test_rows_are_read_back(
    rows: list[dict[str, Any]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows"
    frame = pl.DataFrame(rows, schema=SCHEMA)
    batches = [json_objects(frame.slice(start, size)) for start in range(0, len(rows) + 1, size)]
    write_json_lines(path, batches)
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == rows
    write_json_list(path, batches)
    assert json.loads(path.read_bytes()) == rows


@given(st.text())
def test_any_id_is_one_part_of_a_path_without_a_dot(name: str) -> None:
    part = safe_name(name)
    assert part == Path(part).name
    assert part
    assert "." not in part
    assert safe_name(part) == part


def test_llava_next_has_a_line_for_each_pair(lake: Lake, tmp_path: Path) -> None:
    export_pairs(lake, "llava-next", tmp_path / "out", validation=0.0)
    lines = (tmp_path / "out" / "train.jsonl").read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines[:-1]]
    pairs = lake.read(RELEASE).sort("pair_id").to_dicts()
    assert len(rows) == len(pairs)
    for row, pair in zip(sorted(rows, key=lambda row: row["id"]), pairs, strict=True):
        assert row == {
            "id": pair["pair_id"],
            "video": str(lake.media.path(pair["media_sha256"])),
            "question": pair["prompt"],
            "prompt": pair["prompt"],
            "answer": pair["chosen"],
            "chosen": pair["chosen"],
            "rejected": pair["rejected"],
            "licence": TEST_LICENCE,
        }


def test_a_shard_holds_whole_samples(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_SHARD", 5)
    export_pairs(lake, "webdataset", tmp_path / "out", frames=3, validation=0.3)
    keys = []
    for path in sorted((tmp_path / "out").iterdir()):
        assert path.suffix == ".tar"
        with tarfile.open(path) as shard:
            names = shard.getnames()
            samples = [names[place : place + 4] for place in range(0, len(names), 4)]
            assert len(samples) <= 5
            for sample in samples:
                key = sample[0].partition(".")[0]
                assert sample == [f"{key}.json", *(f"{key}.{number:03}.jpg" for number in range(3))]
                keys.append(key)
            picture = shard.extractfile(names[1])
            assert picture is not None
            assert Image.open(io.BytesIO(picture.read())).size == (96, 96)
    assert sorted(keys) == sorted(lake.read(RELEASE)["pair_id"])
