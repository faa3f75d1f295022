"""Pairs of others: one outcome a row, every form of our own exports read back, and a release of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.tables import IMPORTED_PAIRS, PAIRS, RELEASE, VIDEO_CORPUS
from safevid_core.datasets.exports import export_pairs
from safevid_core.datasets.imports import ImportFilesError, _at
from safevid_core.settings import Settings, SettingsError, load_settings
from safevid_core.storage.lake import Lake, audit_partition
from tests.datasets.exports.conftest import SCENE, own_lake
from tests.datasets.exports.conftest import lake as exported_lake  # noqa: F401
from tests.stages import run_stage

PLAIN = {name: name for name in ("query", "chosen", "rejected", "video")}


@pytest.fixture
def lake(exported_lake: Lake, tmp_path: Path) -> Lake:  # noqa: F811
    return own_lake(tmp_path, exported_lake)


def settings_of(lake: Lake, path: Path, columns: dict[str, str], **more: Any) -> Settings:
    datasets = {"imports": {"theirs": {"path": str(path), "columns": columns}}, **more}
    return load_settings("pocket", overrides={"root": str(lake.root), "datasets": datasets})


def imported(lake: Lake, settings: Settings) -> tuple[pl.DataFrame, dict[str, tuple[str, str]]]:
    run_stage(settings, lake, IMPORTED_PAIRS.name)
    audit_partition(lake, IMPORTED_PAIRS, "all")
    rows = lake.outcomes(IMPORTED_PAIRS.name).iter_rows()
    outcomes = {unit.partition(":")[2]: (outcome, reason) for unit, outcome, reason in rows}
    return lake.read(IMPORTED_PAIRS), outcomes


def test_each_row_ends_with_one_outcome_and_its_reason(lake: Lake, tmp_path: Path) -> None:
    corpus = lake.read(VIDEO_CORPUS)
    train, gone = corpus.filter(split="train").sort("clip_id").to_dicts()[:2]
    held_out = corpus.filter(split="benchmark").row(0, named=True)
    lake.media.path(gone["media_sha256"]).unlink()
    good = {"query": "<video>Why?", "chosen": "No.", "rejected": "Yes.", "video": train["clip_id"]}
    cases: list[tuple[Any, str, str]] = [
        (good, "ok", ""),
        ({**good, "query": "Why? "}, "filtered", "repeats theirs/rows.jsonl:1"),
        ({name: good[name] for name in ("query", "rejected", "video")}, "failed", "the row has no 'chosen'"),
        ({**good, "video": "nobody.mp4"}, "failed", "unknown clip: the corpus holds no video 'nobody.mp4'"),
        ({**good, "rejected": " No."}, "filtered", "chosen and rejected are equal"),
        ({**good, "video": gone["clip_id"]}, "failed", "is gone"),
        ({**good, "chosen": "x" * 10_000_000}, "filtered", "the chosen has 10,000,000 characters"),
        ({**good, "video": held_out["clip_id"]}, "filtered", "is on the side benchmark"),
        ({**good, "query": "<video> "}, "failed", "the query is empty"),
        ({**good, "chosen": 7}, "failed", "chosen: 'chosen' is of type int, not text"),
        ([good], "failed", "query: the row has no 'query'"),
        ("{", "failed", "the line is not JSON"),
        ({**good, "video": f"/elsewhere/{train['file_name']}", "chosen": "Never."}, "ok", ""),
        ({**good, "video": train["media_sha256"], "chosen": "Not at all."}, "ok", ""),
        ("[" * 100_000, "failed", "the line is not JSON (it is nested too deeply)"),
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row, _, _ in cases))
    pairs, outcomes = imported(lake, settings_of(lake, path, PLAIN))
    for number, (_, outcome, words) in enumerate(cases, 1):
        found = outcomes[str(number)]
        assert found[0] == outcome, found
        assert words in found[1]
    assert len(outcomes) == len(cases)
    assert pairs.height == 3
    assert set(pairs["prompt"]) == {"Why?"}
    assert set(pairs["scene"]) == {SCENE}
    assert set(pairs["query_id"]) == {"theirs/rows.jsonl:1", "theirs/rows.jsonl:13", "theirs/rows.jsonl:14"}


# Format -> the file or folder, and where its rows hold query, chosen, rejected and video.
FORMS = {
    "llama-factory": (
        "safevid_train.json", "conversations.0.value", "chosen.value", "rejected.value", "videos.0",
    ),
    "ms-swift": ("train.jsonl", "messages.0.content", "messages.1.content", "rejected_response", "videos.0"),
    "llava-next": ("train.jsonl", "question", "chosen", "rejected", "video"),
    "inspect": ("train.jsonl", "input.0.content.1.text", "target", "metadata.rejected", "metadata.clip_id"),
    "hugging-face": (
        "data", "prompt.0.content.1.text", "chosen.0.content.0.text", "rejected.0.content.0.text",
        "media_sha256",
    ),
    "trl": (
        "train/metadata.parquet", "prompt.0.content", "chosen.0.content", "rejected.0.content", "clip_id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORMS))
def test_an_export_of_ours_is_imported_as_the_pairs_it_came_from(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    file, *places = FORMS[name]
    export_pairs(lake, name, tmp_path / "out", frames=1 if name == "trl" else None, validation=0.0)
    columns = dict(zip(PLAIN, places, strict=True))
    pairs, outcomes = imported(lake, settings_of(lake, tmp_path / "out" / file, columns))
    released = lake.read(RELEASE)
    assert {outcome for outcome, _ in outcomes.values()} == {"ok"}
    compared = ["clip_id", "prompt", "chosen", "rejected", "media_sha256", "scene"]
    key = ["clip_id", "prompt"]
    stripped = released.with_columns(pl.col("prompt").str.strip_chars())
    assert pairs.select(compared).sort(key).equals(stripped.select(compared).sort(key))


def test_imported_pairs_enter_the_release_beside_ours_and_alone(lake: Lake, tmp_path: Path) -> None:
    clip = lake.read(PAIRS)["clip_id"][0]
    path = tmp_path / "rows.json"
    rows = [
        {"q": "Is it hot?", "good": "Yes.", "bad": "No.", "clip": clip, "kind": kind}
        for kind in ("arson_and_dangerous_fire", "their own kind")
    ]
    rows[1]["q"] = "Is it red?"
    path.write_text(json.dumps(rows))
    columns = {"query": "q", "chosen": "good", "rejected": "bad", "video": "clip", "subcategory": "kind"}
    settings = settings_of(lake, path, columns)
    pairs, _ = imported(lake, settings)
    labels = dict(pairs.select("subcategory", "principle").iter_rows())
    assert labels == {"arson_and_dangerous_fire": "harmless", "their own kind": "unlabelled"}
    run_stage(settings, lake, RELEASE.name)
    assert set(lake.read(RELEASE)["pair_id"]) == {*lake.read(PAIRS)["pair_id"], *pairs["pair_id"]}
    alone = settings_of(lake, path, columns, only_imports=True)
    run_stage(alone, lake, RELEASE.name)
    assert set(lake.read(RELEASE)["pair_id"]) == set(pairs["pair_id"])
    assert export_pairs(lake, "ms-swift", tmp_path / "out", validation=0.0).pairs == {"train": 2}


def test_files_that_cannot_be_read_at_all_are_one_line(lake: Lake, tmp_path: Path) -> None:
    for name, content in (("a.txt", ""), ("b.json", "{"), ("c.json", "{}"), ("d.parquet", "no")):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(ImportFilesError, match=f"import theirs: .*{name}") as caught:
            imported(lake, settings_of(lake, path, PLAIN))
        assert "\n" not in str(caught.value)


def test_a_damaged_page_of_a_parquet_file_names_the_import_and_the_file(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    texts = [f"{number} {number * 7919}" for number in range(5_000)]
    pl.DataFrame(dict.fromkeys(PLAIN, texts)).write_parquet(path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:2_000] = bytes(1_996)
    path.write_bytes(content)
    with pytest.raises(ImportFilesError, match=r"import theirs: .*e\.parquet cannot be read"):
        imported(lake, settings_of(lake, path, PLAIN))


def test_a_list_that_is_nested_too_deeply_names_the_import_and_the_file(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ImportFilesError, match=r"import theirs: .*f\.json cannot be read"):
        imported(lake, settings_of(lake, path, PLAIN))


def test_a_map_without_a_needed_column_is_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the map lacks rejected"):
        settings_of(lake, tmp_path, {name: name for name in ("query", "chosen", "video")})


def test_without_imports_there_is_no_such_stage(lake: Lake) -> None:
    from safevid_core.pipeline import build_registry

    settings = load_settings("pocket", overrides={"root": str(lake.root)})
    assert IMPORTED_PAIRS.name not in {stage.name for stage in build_registry(settings)}


JSON = st.recursive(
    st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(JSON, st.text())
def test_no_place_in_any_row_raises(row: Any, place: str) -> None:
    _at({"a": row}, place)
    assert _at({"a": [row]}, "a.0") == row
