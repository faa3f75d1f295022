"""The lake commits whole partitions, conserves rows and recomputes only what changed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.lake import (
    Lake,
    LakeError,
    audit_partition,
    check_conservation,
    directory_hash,
    frame_hash,
    run_stage,
    write_atomically,
)
from safevid_core.records import StageRows, Table, content_id

TABLE = Table(
    "things", "thing_id", "source", pl.Schema({"thing_id": pl.String, "source": pl.String, "n": pl.Int64})
)


def stage(*ids: str, dropped: str | None = None) -> StageRows:
    rows = TABLE.frame({"thing_id": f"t-{i}", "source": i, "n": k} for k, i in enumerate(ids))
    outcomes = [(i, "ok", "") for i in ids] + ([(dropped, "filtered", "too short")] if dropped else [])
    return StageRows(rows, outcomes)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", "pocket")


def test_rows_come_back_with_their_profile_and_outcomes(lake: Lake) -> None:
    report = run_stage(
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
    run_stage(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a"))
    (lake.folder("things", "kitchen") / "manifest.json").write_text(text)
    with pytest.raises(LakeError, match=r"kitchen/manifest.json is no manifest; delete it and materialise"):
        lake.read(TABLE, "kitchen")


def test_the_same_inputs_compute_nothing_again(lake: Lake) -> None:
    run_stage(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a"))
    again = run_stage(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: pytest.fail("computed again"))
    assert not again.computed
    changed = run_stage(lake, TABLE, "kitchen", {"x": "2"}, ["a", "b"], lambda: stage("a", "b"))
    assert changed.computed
    assert len(list(lake.folder("things", "kitchen").iterdir())) == 3, "old data files are removed"


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
    run_stage(lake, TABLE, "kitchen", {}, ["a"], lambda: stage("a"))
    audit_partition(lake, TABLE, "kitchen")
    path = next(lake.folder("things", "kitchen").glob("rows-*"))
    pl.read_parquet(path).with_columns(pl.lit(7, pl.Int64).alias("n")).write_parquet(path)
    with pytest.raises(LakeError, match="content hash"):
        audit_partition(lake, TABLE, "kitchen")


def test_partition_names_survive_the_file_system(lake: Lake) -> None:
    for name in ("pocket@1|safevidbench_base", "a/../b", "日本", 'quote"s\n'):
        run_stage(lake, TABLE, name, {}, ["a"], lambda: stage("a"))
    assert set(lake.partitions("things")) == {"pocket@1|safevidbench_base", "a/../b", "日本", 'quote"s\n'}


def test_an_unwritable_root_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match=r"cannot be written .* SAFEVID_ROOT") as caught:
        Lake(tmp_path / "file" / "lake", "pocket")
    assert "\n" not in str(caught.value)


def test_a_run_killed_while_it_commits_leaves_the_old_partition(lake: Lake, tmp_path: Path) -> None:
    run_stage(lake, TABLE, "kitchen", {"x": "1"}, ["a"], lambda: stage("a"))
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        import safevid_core.lake as lake_module
        from tests.test_lake import TABLE, stage
        lake = lake_module.Lake(Path(sys.argv[1]), "pocket")
        def die(path, data):
            os.kill(os.getpid(), signal.SIGKILL)
        lake_module.write_atomically = die
        lake_module.run_stage(lake, TABLE, "kitchen", {"x": "2"}, ["a", "b"], lambda: stage("a", "b"))
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(lake.root)], cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    assert lake.read(TABLE, "kitchen")["thing_id"].to_list() == ["t-a"]
    audit_partition(lake, TABLE, "kitchen")


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


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_content_ids_differ_where_the_parts_differ(one: list[str], other: list[str]) -> None:
    assert (content_id(*one) == content_id(*other)) == (one == other)


@given(st.lists(st.integers(-5, 5), max_size=6), st.lists(st.integers(-5, 5), max_size=6))
def test_frame_hashes_follow_the_values(one: list[int], other: list[int]) -> None:
    def frame(values: list[int]) -> pl.DataFrame:
        return pl.DataFrame({"n": values}, schema={"n": pl.Int64})

    assert (frame_hash(frame(one)) == frame_hash(frame(other))) == (one == other)
