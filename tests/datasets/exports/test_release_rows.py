"""What every export reads: the pairs of one release, in a stable order, split by source video."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.tables import PAIRS, RELEASE, VIDEO_CORPUS
from safevid_core.datasets import release_folder
from safevid_core.datasets.exports import release_rows
from safevid_core.datasets.exports.release_rows import ReleaseRows, read_release
from safevid_core.datasets.kept_releases import ReleaseMissing
from safevid_core.datasets.splits import split_of
from safevid_core.storage.lake import Lake
from tests.datasets.exports.conftest import SCENE, TEST_LICENCE, own_lake
from tests.datasets.old_release import write_old_release
from tests.evaluation.small_lake import put, settings_for
from tests.stages import run_stage


def whole(rows: ReleaseRows) -> pl.DataFrame:
    """All pairs with their texts, by id."""
    batches = [batch for split in rows.splits for batch in rows.batches(split)]
    return pl.concat(batches).drop("video", "frames").sort("pair_id")


def test_the_rows_are_those_of_the_release(lake: Lake) -> None:
    rows = read_release(lake, validation=0.3)
    released = lake.read(RELEASE).sort("pair_id")
    pairs = whole(rows)
    assert pairs.select(PAIRS.schema.names()).equals(released.select(PAIRS.schema.names()))
    assert rows.release == released["release"][0]
    assert rows.licences == {TEST_LICENCE: released.height}
    assert (pairs["file_name"] == "film " + pairs["source_id"] + ".mp4").all()


def test_shards_and_batches_of_any_size_hold_each_pair_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(read_release(lake, validation=0.3))
    lake = own_lake(tmp_path, lake)
    monkeypatch.setattr(release_folder, "_SHARD_ROWS", 7)
    monkeypatch.setattr(release_rows, "_BATCH", 3)
    settings = settings_for(lake.root)
    split = settings.datasets.model_copy(update={"validation_share": 0.2})
    run_stage(settings.model_copy(update={"datasets": split}), lake, "safevid_350k_release")
    rows = read_release(lake, validation=0.3)
    folder = lake.local_directory(str(lake.manifest(RELEASE.name).info["path"]))
    assert len(list(folder.glob("train/*.parquet"))) > 1
    assert list(folder.glob("validation/*.parquet"))
    assert max(batch.height for batch in rows.batches("train")) == 3
    assert whole(rows).drop("release").equals(before.drop("release"))
    for name, part in rows.splits.items():
        batches = pl.concat(rows.batches(name))
        assert batches["pair_id"].to_list() == part["pair_id"].to_list()
        assert set(batches["split"]) == {name}


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
    if split_of(source, few, seed) == "validation":
        assert split_of(source, many, seed) == "validation"
    assert split_of(source, 0.0, seed) == "train"


def test_the_share_is_that_of_the_sources() -> None:
    sides = [split_of(f"source {number}", 0.05, 0) for number in range(20_000)]
    four_standard_errors = 4 * (0.05 * 0.95 / len(sides)) ** 0.5
    assert sides.count("validation") / len(sides) == pytest.approx(0.05, abs=four_standard_errors)
    assert sides != [split_of(f"source {number}", 0.05, 1) for number in range(20_000)]


def test_a_release_that_is_no_longer_in_the_table_is_read_from_its_folder(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    before = read_release(lake)
    whole_before = whole(before)
    pairs = lake.read(PAIRS, SCENE).drop("profile").to_dicts()
    put(lake, PAIRS, SCENE, pairs[:4])
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    assert read_release(lake).pairs.height == 4
    again = read_release(lake, before.release[:8])
    assert again.release == before.release
    assert whole(again).equals(whole_before)
    assert read_release(lake, "1.0.0").release == before.release
    assert (before.version, again.version, read_release(lake).version) == ("1.0.0", "1.0.0", "1.1.0")
    assert again.card == before.card
    with pytest.raises(ReleaseMissing, match=f"no release 'zz'; the lake holds: .*{before.release}"):
        read_release(lake, "zz")
    with pytest.raises(ReleaseMissing, match=f"no release ''; the lake holds: .*{before.release}"):
        read_release(lake, "")


def test_no_release_and_an_empty_one_are_said(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ReleaseMissing, match="holds no release; run safevid_350k_release first"):
        read_release(Lake(tmp_path / "bare", "pocket"))
    lake = own_lake(tmp_path, lake)
    put(lake, PAIRS, SCENE, [])
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    with pytest.raises(ReleaseMissing, match="holds no pair"):
        read_release(lake)


def test_a_clip_that_the_corpus_no_longer_lists_keeps_what_was_released(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    before = whole(read_release(lake))
    clips = lake.read(VIDEO_CORPUS, SCENE).drop("profile").to_dicts()
    gone = lake.read(RELEASE)["clip_id"][0]
    put(lake, VIDEO_CORPUS, SCENE, [clip for clip in clips if clip["clip_id"] != gone])
    assert whole(read_release(lake)).drop("file_name").equals(before.drop("file_name"))


def test_a_folder_of_an_earlier_version_is_read(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    now = read_release(lake)
    with lake.new_directory("release") as folder:
        write_old_release(folder, whole(now).to_dicts(), "0123456789")
        lake.keep("release", folder)
    old = read_release(lake, "01234")
    assert (old.release, old.version) == ("0123456789", "")
    known = [name for name in whole(now).columns if name not in ("release", "licence")]
    kept = [name for name in known if not name.endswith("request_key")]
    assert whole(old).select(kept).equals(whole(now).select(kept))
    assert old.licences == {"CC0-1.0": now.pairs.height}


def test_a_release_with_a_split_keeps_it(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    settings = settings_for(lake.root)
    split = settings.datasets.model_copy(update={"validation_share": 0.3})
    run_stage(settings.model_copy(update={"datasets": split}), lake, "safevid_350k_release")
    rows = read_release(lake)
    assert set(rows.splits) == {"train", "validation"}
    assert whole(rows)["split"].equals(lake.read(RELEASE).sort("pair_id")["split"])
    assert set(read_release(lake, validation=0.0).splits) == {"train"}
