"""The command line: what it writes, and one line on what is wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.evaluation.exports.__main__ import main
from safevid_core.evaluation.exports.runs import file_part
from safevid_core.lake import Lake
from safevid_core.records import SAFEVIDBENCH_BASE
from tests.evaluation.conftest import BENCHMARK
from tests.evaluation.exports.conftest import CONTROL, SYSTEM
from tests.evaluation.small_lake import put


def test_it_prints_the_paths_that_it_wrote(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--root", str(lake.root), "--to", str(tmp_path), "--system", SYSTEM, "--system", CONTROL]
    assert main(asked) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert len(paths) == 2
    assert all(zipfile.is_zipfile(path) and path.suffix == ".eval" for path in paths)
    assert main([*asked, "--format", "lmms-eval", "--benchmark", BENCHMARK]) == 0
    assert sum(line.endswith("_results.json") for line in capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--system", "nobody"], "system 'nobody' has no verdicts in this lake; those that have: "),
        (["--benchmark", "xstest"], f"'xstest' has no verdicts in this lake; those that have: {BENCHMARK}"),
        (["--root", "nowhere"], "nowhere holds no lake"),
        (["--settings", "none.yaml"], "none.yaml does not exist"),
        (["--to", "/proc/none"], "/proc/none"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_writes_nothing(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], says: str
) -> None:
    assert main(["--root", str(lake.root), "--to", str(tmp_path / "out"), *asked]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_lake_without_verdicts_has_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lake: Lake
) -> None:

    bare = Lake(tmp_path / "bare", "pocket")
    put(bare, SAFEVIDBENCH_BASE, "all", lake.read(SAFEVIDBENCH_BASE).drop("profile").to_dicts())
    assert main(["--root", str(bare.root), "--to", str(tmp_path / "out")]) == 1
    assert "materialise benchmark_scores first" in capsys.readouterr().err


def test_an_unknown_format_is_refused_by_the_parser(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(lake.root), "--to", str(tmp_path), "--format", "csv"])
    assert ended.value.code == 2


@given(st.text(max_size=40))
def test_any_name_is_one_part_of_a_path(name: str) -> None:
    part = file_part(name)
    assert part == Path(part).name
    assert part not in ("", ".", "..")
    assert file_part(part) == part
