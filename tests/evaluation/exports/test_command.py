"""The command line: what it writes, and one line on what is wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.tables import SAFEVIDBENCH_BASE
from safevid_core.reporting.exports import FORMATS
from safevid_core.reporting.exports.runs import file_part
from safevid_core.storage.lake import Lake
from tests.command import is_one_line, safevid
from tests.evaluation.conftest import BENCHMARK
from tests.evaluation.exports.conftest import CONTROL, SYSTEM
from tests.evaluation.small_lake import put


def test_it_prints_the_paths_that_it_wrote(lake: Lake, tmp_path: Path) -> None:
    chosen = ["--to", tmp_path, "--system", SYSTEM, "--system", CONTROL]
    done = safevid("export", "runs", "inspect", *chosen, root=lake.root)
    assert done.exit_code == 0
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert len(paths) == 2
    assert all(zipfile.is_zipfile(path) and path.suffix == ".eval" for path in paths)
    result = safevid(
        "export", "runs", "lmms-eval", *chosen, "--benchmark", BENCHMARK, "--json", root=lake.root
    )
    assert sum(name.endswith("_results.json") for name in json.loads(result.stdout)["files"]) == 4


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (["--system", "nobody"], 2, "system 'nobody' has no verdicts in this lake; those that have: "),
        (["--benchmark", "xstest"], 2, f"has no verdicts in this lake; those that have: {BENCHMARK}"),
        (["--to", "/proc/none"], 1, "/proc/none"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_writes_nothing(
    lake: Lake, tmp_path: Path, asked: list[str], code: int, says: str
) -> None:
    done = safevid("export", "runs", "inspect", "--to", tmp_path / "out", *asked, root=lake.root)
    assert is_one_line(done, code, says)
    assert not (tmp_path / "out").exists()


def test_a_root_or_settings_that_are_not_there_are_one_line(lake: Lake, tmp_path: Path) -> None:
    nowhere = safevid("export", "runs", "inspect", "--to", tmp_path / "out", root=tmp_path / "nowhere")
    assert is_one_line(nowhere, 2, "nowhere holds no lake")
    without = safevid("--settings", "none.yaml", "export", "runs", "inspect", root=lake.root)
    assert is_one_line(without, 2, "none.yaml does not exist")


def test_a_lake_without_verdicts_has_no_run(tmp_path: Path, lake: Lake) -> None:
    bare = Lake(tmp_path / "bare", "pocket")
    put(bare, SAFEVIDBENCH_BASE, "all", lake.read(SAFEVIDBENCH_BASE).drop("profile").to_dicts())
    done = safevid("export", "runs", "inspect", "--to", tmp_path / "out", root=bare.root)
    assert is_one_line(done, 2, "materialise benchmark_scores first")


def test_an_unknown_format_is_one_line(lake: Lake) -> None:
    done = safevid("export", "runs", "csv", root=lake.root)
    assert is_one_line(done, 2, f"no format 'csv' for runs; there are: {', '.join(FORMATS)}")


def test_a_format_in_the_place_of_a_kind_is_answered_with_the_whole_command(lake: Lake) -> None:
    done = safevid("export", "inspect", "--to", "runs", root=lake.root)
    assert is_one_line(done, 2, "write `safevid export pairs inspect` or `safevid export runs inspect`")


@given(st.text(max_size=40))
def test_any_name_is_one_part_of_a_path(name: str) -> None:
    part = file_part(name)
    assert part == Path(part).name
    assert part not in ("", ".", "..")
    assert file_part(part) == part
