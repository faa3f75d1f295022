"""Tables and archives from strangers: what survives whole, and what is refused in one line."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safevid_core.benchmarks.benchmark import OUTSIDE, read_source
from safevid_core.benchmarks.definition import Refused
from safevid_core.benchmarks.official_files import (
    FilesError,
    RowError,
    media_below,
    read_json,
    read_records,
    read_table,
    shown,
)
from safevid_core.settings import BenchmarkFiles
from tests.evaluation.benchmarks.conftest import commit
from tests.evaluation.benchmarks.layouts import video_rows

# Every character that UTF-8 can hold, with those that tables trip over drawn often.
TEXTS = st.text(
    st.one_of(st.sampled_from("\",'\t\r\n ;|\\\ufeff\x00\u2028é漢🦊"), st.characters(codec="utf-8"))
)
SOME_FILES = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SOME_FILES
@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=6), tab=st.booleans())
def test_odd_texts_survive_a_table(rows: list[tuple[str, str, str]], tab: bool, tmp_path: Path) -> None:
    delimiter = "\t" if tab else ","
    path = tmp_path / "table"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("a", "b", "c"), *rows])
    found = read_table(path, ("a", "b"), delimiter)
    assert [tuple(record.values.values()) for record in found] == rows
    for record, row in zip(found, rows, strict=True):
        if row[0].strip():
            assert record.text("a") == row[0]
        else:
            with pytest.raises(RowError):
                record.text("a")


@SOME_FILES
@given(rows=st.lists(st.dictionaries(TEXTS, TEXTS, max_size=4), min_size=1, max_size=5), question=TEXTS)
def test_odd_texts_survive_json(rows: list[dict[str, str]], question: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([*rows, {"question": question}]), encoding="utf-8")
    assert [dict(record.values) for record in read_records(path, ("question",))][:-1] == rows


@SOME_FILES
@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_table_or_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    for read in (lambda: read_table(path, ("a",)), lambda: read_json(path)):
        message = ""
        try:
            read()
        except FilesError as error:
            message = str(error)
        assert not message or "any'" in message
        assert "\n" not in message


@SOME_FILES
@given(
    rows=st.lists(
        st.one_of(
            st.none(),
            st.integers(),
            st.lists(st.integers(), max_size=2),
            st.dictionaries(
                st.sampled_from([*video_rows("benign")[0], "other"]),
                st.one_of(st.text(max_size=9), st.integers(), st.none(), st.just("video/a.mp4")),
            ),
        ),
        max_size=5,
    )
)
def test_any_json_rows_end_as_items_or_refusals(rows: list[object], tmp_path: Path) -> None:
    whole = video_rows("harmful")[0]
    for split in ("harmful", "benign"):
        text = json.dumps([*rows, {**whole, "question_id": "the whole one"}])
        (tmp_path / f"{split}_data.json").write_text(text)
    found = read_source(OUTSIDE["video_safetybench"], BenchmarkFiles.model_validate({"path": tmp_path}))
    assert len(found) == 2 * (len(rows) + 1)
    assert len({row.source_row for row in found}) == len(found)
    for row in found:
        if isinstance(row, Refused):
            assert row.outcome == "failed"
            assert row.reason
            assert "\n" not in row.reason
        else:
            assert row.query.strip()
            assert row.path is not None
            assert row.path.is_relative_to(tmp_path)


@given(place=st.text(st.sampled_from("./ab\\\x00~ ")))
def test_no_path_leaves_the_folder(place: str) -> None:
    folder = Path("/made/for/a/test")
    try:
        found = media_below(folder, place)
    except RowError:
        return
    assert ".." not in found.parts
    assert found.is_relative_to(folder)


@pytest.mark.parametrize("place", ["../x.mp4", "a/../../x.mp4", "/etc/passwd", "//host/x", "a\0b.mp4", ".."])
def test_paths_out_of_the_folder_are_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(RowError, match="outside the benchmark's folder"):
        media_below(tmp_path, place)


def test_a_row_with_too_many_or_few_values_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3\n\n4,5,6\n7,8\n")
    found = read_table(path, ("a", "b"))
    assert [record.problem for record in found] == [
        "", "it has 1 values; the header has 2", "it has 3 values; the header has 2", "",
    ]  # fmt: skip
    with pytest.raises(RowError, match="it has 1 values"):
        found[1].text("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("b,c\n1,2\n", "has no 'a'; its columns: 'b', 'c'"),
        ("a,b,a\n1,2,3\n", "has column 'a' twice"),
        ('a,b\n1,"2\n3,4\n5,6\n', "line 4: unexpected end of data"),
        ("a,b\n" + "x" * 200_000 + ",2\n", "field larger than field limit"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(FilesError, match=message):
        read_table(path, ("a",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is no JSON"),
        (b"[" * 100_000, "nested too deeply|is no JSON"),
        (b'{"a": 1}', "must hold a JSON list of rows; found an object"),
        (b'{"a": 1, "a": 2}', "a key stands twice"),
        (b"[]", "has no 'a'; its columns: none"),
        (b"\xff\xfe[\x00", "is no UTF-8 text"),
        (b"[1" + b"0" * 9000 + b"]", "is no JSON|has no 'a'"),
    ],
)
def test_a_list_that_cannot_be_read_says_why(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(data)
    with pytest.raises(FilesError, match=message):
        read_records(path, ("a",))


def test_a_table_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with open(path, "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(FilesError, match="3,221,225,472 bytes"):
        read_json(path)


def _zip(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)


def _tar(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("archive", ["files.zip", "files.tar", "files.tar.gz", "disguised.csv"])
@pytest.mark.parametrize("kind", ["a path that climbs", "a bomb"])
def test_an_archive_is_never_unpacked(archive: str, kind: str, tmp_path: Path) -> None:
    """Neither one that writes outside nor one that fills the disk gets so far."""
    place = tmp_path / "deep" / "down"
    place.mkdir(parents=True)
    member, data = ("../../climbed.csv", b"x") if kind == "a path that climbs" else ("t.csv", bytes(30 << 20))
    pack = _zip if archive.endswith((".zip", ".csv")) else _tar
    pack(place / archive, member, data)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    for name in ("strongreject", "video_safetybench"):
        with pytest.raises(FilesError, match="is an archive, and none is unpacked here; unpack it"):
            commit(tmp_path / "lake", name, place / archive)
    after = {path: path.stat().st_size for path in tmp_path.rglob("*") if "lake" not in path.parts}
    assert after == before


def test_a_folder_that_holds_only_an_archive_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    _zip(folder / "MM-SafetyBench(imgs).zip", "../x", b"")
    for name in sorted(OUTSIDE):
        with pytest.raises(FilesError, match=r"holds no .*imgs\).zip, which must be unpacked first.*arXiv"):
            commit(tmp_path / "lake", name, folder)


def test_a_path_that_is_not_there_or_of_the_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="gone' does not exist; its files: the GitHub"):
        commit(tmp_path / "lake", "xstest", tmp_path / "gone")
    (tmp_path / "one.json").write_text("[]")
    with pytest.raises(FilesError, match="is a file; give the folder"):
        commit(tmp_path / "lake", "vlbreakbench_base", tmp_path / "one.json")


def test_a_foreign_text_in_a_message_is_short_and_on_one_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("é" * 10_000)) < 100
