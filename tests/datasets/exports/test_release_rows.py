"""What every export reads: the pairs of one release, in a stable order, split by source video."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.tables import PAIRS, RELEASE, VIDEO_CORPUS
from safevid_core.datasets.exports.release_rows import ReleaseMissing, read_release, side_of
from safevid_core.storage.lake import Lake
from tests.datasets.exports.conftest import SCENE, TEST_LICENCE, own_lake
from tests.evaluation.small_lake import put, settings_for
from tests.stages import run_stage


def test_the_rows_are_those_of_the_release_by_id(lake: Lake) -> None:
    rows = read_release(lake, validation=0.3)
    released = lake.read(RELEASE).sort("pair_id")
    assert rows.pairs.select(PAIRS.schema.names()).equals(released.select(PAIRS.schema.names()))
    assert rows.release == released["release"][0]
    assert rows.licences == {TEST_LICENCE: released.height}
    batches = pl.concat(batch for split in rows.splits for batch in rows.batches(split))
    assert batches["pair_id"].sort().equals(released["pair_id"])
    assert (batches["file_name"] == "film " + batches["source_id"] + ".mp4").all()


def test_a_source_video_is_on_one_side(lake: Lake) -> None:
    rows = read_release(lake, validation=0.3)
    assert set(rows.splits) == {"train", "validation"}
    sides = rows.pairs.group_by("source_id").agg(pl.col("split").n_unique())
    assert sides["split"].to_list() == [1] * sides.height


def test_a_split_without_pairs_is_none(lake: Lake) -> None:
    assert set(read_release(lake, validation=0.0).splits) == {"train"}


@given(st.text(), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers())
def test_a_larger_share_moves_sources_to_validation_only(
    source: str, share: float, other: float, seed: int
) -> None:
    few, many = sorted((share, other))
    if side_of(source, few, seed) == "validation":
        assert side_of(source, many, seed) == "validation"
    assert side_of(source, 0.0, seed) == "train"


def test_the_share_is_that_of_the_sources() -> None:
    sides = [side_of(f"source {number}", 0.05, 0) for number in range(20_000)]
    four_standard_errors = 4 * (0.05 * 0.95 / len(sides)) ** 0.5
    assert sides.count("validation") / len(sides) == pytest.approx(0.05, abs=four_standard_errors)
    assert sides != [side_of(f"source {number}", 0.05, 1) for number in range(20_000)]


def test_a_release_that_is_no_longer_in_the_table_is_read_from_its_folder(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    before = read_release(lake)
    pairs = lake.read(PAIRS, SCENE).drop("profile").to_dicts()
    put(lake, PAIRS, SCENE, pairs[:4])
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    assert read_release(lake).pairs.height == 4
    again = read_release(lake, before.release[:8])
    assert again.release == before.release
    without_keys = [name for name in PAIRS.schema.names() if not name.endswith("request_key")]
    assert again.pairs.select(without_keys).equals(before.pairs.select(without_keys))
    assert again.card == before.card
    with pytest.raises(ReleaseMissing, match=f"no release 'zz'; the lake holds: .*{before.release}"):
        read_release(lake, "zz")
    with pytest.raises(ReleaseMissing, match=f"'' begins several releases: .*{before.release}"):
        read_release(lake, "")


def test_no_release_and_an_empty_one_are_said(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ReleaseMissing, match="holds no release; run safevid_350k_release first"):
        read_release(Lake(tmp_path / "bare", "pocket"))
    lake = own_lake(tmp_path, lake)
    put(lake, PAIRS, SCENE, [])
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    with pytest.raises(ReleaseMissing, match="holds no pair"):
        read_release(lake)


def test_a_clip_that_the_corpus_no_longer_lists_is_its_own_source(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    clips = lake.read(VIDEO_CORPUS, SCENE).drop("profile").to_dicts()
    gone = lake.read(RELEASE)["clip_id"][0]
    put(lake, VIDEO_CORPUS, SCENE, [clip for clip in clips if clip["clip_id"] != gone])
    rows = read_release(lake).pairs.filter(pl.col("clip_id") == gone)
    assert set(rows["source_id"]) == {gone}
    assert set(rows["licence"]) == {"unknown"}
