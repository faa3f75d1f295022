"""SafeVidBench as a task of lmms-eval: its files, bad input, and a run of lmms-eval over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safevid_core.benchmarks.exports import BENCHMARKS, export_benchmark
from safevid_core.contracts.tables import SAFEVIDBENCH_BASE
from safevid_core.storage.lake import Lake
from tests.command import is_one_line, safevid
from tests.datasets.exports.environments import called, installed
from tests.evaluation.small_lake import build_lake, draw_base, put, settings_for


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = build_lake(tmp_path_factory.mktemp("task") / "safevid", ("kitchen",), clips_per_scene=8)
    draw_base(settings_for(lake.root), lake)
    return lake


def docs_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def test_every_item_of_the_release_is_a_doc_with_its_video(lake: Lake, tmp_path: Path) -> None:
    written = export_benchmark(lake, "lmms-eval", tmp_path / "task")
    items = {item["item_id"]: item for item in lake.read(SAFEVIDBENCH_BASE).iter_rows(named=True)}
    docs = docs_of(tmp_path / "task")
    assert [doc["item_id"] for doc in docs] == sorted(items)
    assert (written.items, {written.release}) == (len(items), {item["release"] for item in items.values()})
    for doc in docs:
        item = items[doc["item_id"]]
        assert doc["query"] == item["query"]
        assert doc["video"] == str(lake.media.path(item["media_sha256"]))
        assert None not in doc.values()


def test_cut_clips_are_named_relative_to_the_folder(lake: Lake, tmp_path: Path) -> None:
    export_benchmark(lake, "lmms-eval", tmp_path / "task", cut=True)
    for doc in docs_of(tmp_path / "task"):
        assert doc["video"] == f"videos/{doc['clip_id']}.mp4"
        assert (tmp_path / "task" / doc["video"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["csv"], "no format 'csv' for a benchmark; there are: lmms-eval"),
        (["lmms-eval", "--benchmark", "xstest"], f"these can: {', '.join(BENCHMARKS)}"),
        (["lmms-eval", "--benchmark", BENCHMARKS[1]], f"run {BENCHMARKS[1]} first"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], says: str, lake: Lake, tmp_path: Path
) -> None:
    done = safevid("export", "benchmark", *arguments, "--to", tmp_path / "task", root=lake.root)
    assert is_one_line(done, 2, says)
    assert not any(tmp_path.iterdir())


def test_a_part_of_a_file_is_refused_without_cut(lake: Lake, tmp_path: Path) -> None:
    own = Lake(tmp_path / "safevid", "pocket")
    items = lake.read(SAFEVIDBENCH_BASE).drop("profile").to_dicts()
    items[0] |= {"start_s": 0.7}
    own.media.record(
        (sha256, path, path.stat().st_size)
        for sha256 in {item["media_sha256"] for item in items}
        for path in (lake.media.path(sha256),)
    )
    put(own, SAFEVIDBENCH_BASE, "all", items[:1])
    done = safevid("export", "benchmark", "lmms-eval", "--to", tmp_path / "task", root=own.root)
    assert is_one_line(done, 2, "1 of 1 clips are parts of longer files")
    done = safevid("export", "benchmark", "lmms-eval", "--cut", "--to", tmp_path / "task", root=own.root)
    assert done.stdout.endswith("items: 1\n")


@pytest.mark.slow
def test_lmms_eval_runs_the_task(lake: Lake, tmp_path: Path) -> None:
    # lmms-eval 0.7.3 imports a private module of filelock that version 3.20 no longer has.
    python = installed(tmp_path / "tool", "lmms-eval==0.7.3", "filelock<3.20")
    export_benchmark(lake, "lmms-eval", tmp_path / "task")
    model = "response=No.,decode_num_frames=2"
    called(
        [
            python, "-m", "lmms_eval", "--model", "dummy", "--model_args", model, "--batch_size", "1",
            "--tasks", SAFEVIDBENCH_BASE.name, "--include_path", tmp_path / "task", "--log_samples",
            "--output_path", tmp_path / "results",
        ],
        tmp_path / "tool",
    )  # fmt: skip
    (results,) = (tmp_path / "results").rglob("*_results.json")
    figures = json.loads(results.read_text())
    docs = docs_of(tmp_path / "task")
    assert figures["results"][SAFEVIDBENCH_BASE.name]["answered,none"] == 1.0
    assert figures["n-samples"][SAFEVIDBENCH_BASE.name]["effective"] == len(docs)
    (samples,) = (tmp_path / "results").rglob("*_samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert sorted(row["target"] for row in rows) == sorted(doc["target"] for doc in docs)
