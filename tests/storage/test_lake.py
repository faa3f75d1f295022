"""The lake commits whole partitions, conserves rows and recomputes only what changed."""

import json
import os
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.storage.lake import (
    Lake,
    LakeError,
    audit_partition,
    check_conservation,
    directory_hash,
    frame_hash,
    write_atomically,
)
from tests.stages import run_rows
from tests.storage.things import TABLE, stage


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", "pocket")


def test_rows_come_back_with_their_profile_and_outcomes(lake: Lake) -> None:
    report = run_rows(
        lake, TABLE, "kitchen", {"x": "1"}, ["a", "b", "c"], lambda: stage("b", "a", dropped="c")
    )
    assert report.computed
    assert lake.read(TABLE, "kitchen")["thing_id"].to_list() == ["t-a", "t-b"]
    assert lake.read(TABLE)["profile"].unique().to_list() == ["pocket"]
    assert report.manifest.outcomes == {"ok": 2, "filtered": 1, "failed": 0, "undecidable": 0}
    assert lake.outcomes("things").filter(pl.col("outcome") == "filtered")["reason"].to_list() == [
        "too short"
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"asset": "things"}', '{"no": "field"}'])
def test_a_manifest_that_is_none_is_named_with_the_mend(lake: Lake, text: str) -> None:
    run_rows(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a"))
    (lake.folder("things", "kitchen") / "manifest.json").write_text(text)
    with pytest.raises(
        LakeError, match=r"kitchen/manifest.json is not a manifest; delete it and materialise"
    ):
        lake.read(TABLE, "kitchen")


def test_the_same_inputs_compute_nothing_again(lake: Lake) -> None:
    run_rows(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a"))
    again = run_rows(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: pytest.fail("computed again"))
    assert not again.computed
    changed = run_rows(lake, TABLE, "kitchen", {"x": "2"}, ["a", "b"], lambda: stage("a", "b"))
    assert changed.computed


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (StageRows(stage("a").rows, []), "no outcome"),
        (StageRows(stage("a").rows, [("a", "ok", ""), ("a", "failed", "")]), "two outcomes"),
        (StageRows(stage("a").rows, [("a", "ok", ""), ("z", "ok", "")]), "name no input"),
        (StageRows(stage("a").rows, [("a", "filtered", "")]), "did not end ok"),
        (StageRows(stage("a").rows, [("a", "good", "")]), "not one of"),
        (StageRows(pl.concat([stage("a").rows] * 2), [("a", "ok", "")]), "repeats"),
    ],
)
def test_a_stage_that_loses_or_invents_rows_is_refused(broken: StageRows, names: str) -> None:
    with pytest.raises(LakeError, match=names):
        check_conservation(TABLE, broken, ["a"])


def test_a_changed_file_fails_the_audit(lake: Lake) -> None:
    run_rows(lake, TABLE, "kitchen", {}, ["a"], lambda: stage("a"))
    audit_partition(lake, TABLE, "kitchen")
    path = next(lake.folder("things", "kitchen").glob("rows-*"))
    pl.read_parquet(path).with_columns(pl.lit(7, pl.Int64).alias("n")).write_parquet(path)
    with pytest.raises(LakeError, match="content hash"):
        audit_partition(lake, TABLE, "kitchen")


def test_partition_names_survive_the_file_system(lake: Lake) -> None:
    for name in ("pocket@1|safevidbench_base", "a/../b", "日本", 'quote"s\n'):
        run_rows(lake, TABLE, name, {}, ["a"], lambda: stage("a"))
    assert set(lake.partitions("things")) == {"pocket@1|safevidbench_base", "a/../b", "日本", 'quote"s\n'}


@pytest.mark.parametrize("spoilt", [b"", b"PAR1", None])
def test_a_data_file_that_is_gone_or_cut_off_fails_the_audit(lake: Lake, spoilt: bytes | None) -> None:
    run_rows(lake, TABLE, "kitchen", {}, ["a"], lambda: stage("a"))
    path = next(lake.folder("things", "kitchen").glob("rows-*"))
    path.unlink() if spoilt is None else path.write_bytes(spoilt)
    with pytest.raises(LakeError, match=r"things\[kitchen\]: .* cannot be read"):
        audit_partition(lake, TABLE, "kitchen")


@pytest.mark.parametrize("column", ["thing_id", "source", "n"])
def test_a_column_that_is_gone_fails_the_audit(lake: Lake, column: str) -> None:
    run_rows(lake, TABLE, "kitchen", {}, ["a"], lambda: stage("a"))
    path = next(lake.folder("things", "kitchen").glob("rows-*"))
    pl.read_parquet(path).drop(column).write_parquet(path)
    with pytest.raises(LakeError, match="content hash"):
        audit_partition(lake, TABLE, "kitchen")


def test_changed_outcomes_fail_the_audit(lake: Lake) -> None:
    run_rows(lake, TABLE, "kitchen", {}, ["a", "b"], lambda: stage("a", dropped="b"))
    path = next(lake.folder("things", "kitchen").glob("outcomes-*"))
    pl.read_parquet(path).with_columns(reason=pl.lit("no")).write_parquet(path)
    with pytest.raises(LakeError, match="outcomes differ"):
        audit_partition(lake, TABLE, "kitchen")


def test_rows_are_stored_by_key_whatever_order_they_come_in(lake: Lake) -> None:
    hashes = {
        lake.commit(
            TABLE, "kitchen", StageRows(rows, [("a", "ok", ""), ("b", "ok", "")]), "f", {}
        ).content_hash
        for rows in (stage("a", "b").rows, stage("a", "b").rows.reverse())
    }
    assert len(hashes) == 1


IDS = st.lists(st.sampled_from("abcd"), max_size=6)


@given(IDS, IDS, IDS)
def test_conservation_holds_if_the_ids_match_and_are_unique(
    wanted: list[str], named: list[str], parents: list[str]
) -> None:
    rows = TABLE.frame({"thing_id": str(n), "source": each, "n": n} for n, each in enumerate(parents))
    good = sorted(set(named)) == sorted(wanted) == sorted(named) and set(parents) <= set(named)
    refused = ""
    try:
        check_conservation(TABLE, StageRows(rows, [(each, "ok", "") for each in named]), wanted)
    except LakeError as error:
        refused = str(error)
    assert good == (not refused), refused
    if len(set(wanted)) == len(wanted) and len(set(named)) < len(named):
        assert any(f"input {each} has two outcomes" in refused for each in named if named.count(each) > 1)


def test_an_unwritable_root_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match=r"cannot be written .* SAFEVID_ROOT") as caught:
        Lake(tmp_path / "file" / "lake", "pocket")
    assert "\n" not in str(caught.value)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    write_atomically(target, b"old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_is_kept_under_its_content(lake: Lake) -> None:
    addresses = []
    for _ in range(2):
        with lake.new_directory("checkpoints") as scratch:
            (scratch / "adapter.json").write_text(json.dumps({"rank": 16}))
            digest = directory_hash(scratch)
            addresses.append(lake.keep("checkpoints", scratch))
    assert addresses == [f"blobs/checkpoints/{digest}"] * 2
    assert [path.name for path in (lake.root / "blobs/checkpoints").iterdir()] == [digest]


def test_what_lies_in_a_local_lake_is_given_by_name(lake: Lake) -> None:
    assert lake.directories("checkpoints") == []
    with lake.new_directory("checkpoints") as scratch:
        (scratch / "adapter.json").write_text("{}")
        address = lake.keep("checkpoints", scratch)
        assert lake.directories("checkpoints") == [address], "unfinished directories are not given"
    directory = lake.local_directory(address)
    assert (directory / "adapter.json").read_text() == "{}"
    assert lake.address_of(directory) == address
    assert not lake.has_report("page.html")
    place = lake.write_report("page.html", b"<p>")
    assert lake.has_report("page.html")
    assert Path(place).read_bytes() == b"<p>"
    assert Path(lake.url) == lake.root == lake.local_path()
    assert lake.place_of("things", "a b") == str(lake.folder("things", "a b"))


def test_nothing_above_the_storage_takes_a_path_into_the_lake() -> None:
    project = Path(__file__).parents[2]
    modules = [*project.glob("safevid_core/**/*.py"), *project.glob("safevid_dagster/**/*.py")]
    above = [path for path in modules if "storage" not in path.relative_to(project).parts]
    assert len(above) > 100
    taken = re.compile(r"lake\.(root|folder)\b")
    assert [path.name for path in above if taken.search(path.read_text(encoding="utf-8"))] == []


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_content_ids_differ_where_the_parts_differ(one: list[str], other: list[str]) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)


@given(st.lists(st.integers(-5, 5), max_size=6), st.lists(st.integers(-5, 5), max_size=6))
def test_frame_hashes_follow_the_values(one: list[int], other: list[int]) -> None:
    def frame(values: list[int]) -> pl.DataFrame:
        return pl.DataFrame({"n": values}, schema={"n": pl.Int64})

    assert (frame_hash(frame(one)) == frame_hash(frame(other))) == (one == other)
