"""`safevid show`: names of files, reasons, and folded texts."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.storage.lake import WHOLE, Lake
from tests.cli.conftest import LONG_QUERY, REJECTED
from tests.command import is_one_line, safevid


def test_rows_have_the_names_of_their_files(lake: Lake) -> None:
    done = safevid("show", "descriptions", root=lake.root)
    heads, row = done.stdout.splitlines()
    assert heads.split()[:3] == ["clip_id", "file", "scene"]
    assert row.split()[:3] == ["c2", "stove.mp4", "kitchen"]


def test_harmful_texts_are_folded_unless_asked_for(lake: Lake) -> None:
    for given in (("show", "safevid_350k_pairs"), ("show", "safevid_350k_pairs", "--clip", "stove.mp4")):
        for form in ((), ("--json",)):
            done = safevid(*given, *form, root=lake.root)
            assert done.exit_code == 0
            assert REJECTED not in done.stdout
            assert LONG_QUERY[:40] not in done.stdout
    whole = json.loads(safevid("show", "safevid_350k_pairs", "--full", "--json", root=lake.root).stdout)
    assert whole["rows"][0]["rejected"] == REJECTED
    assert whole["rows"][0]["prompt"] == LONG_QUERY


@pytest.mark.parametrize("word", ["c1", "beach.mp4"])
def test_a_clip_by_its_id_or_file_has_its_reason(lake: Lake, word: str) -> None:
    document = json.loads(safevid("show", "descriptions", "--clip", word, "--json", root=lake.root).stdout)
    assert document["rows"] == []
    assert document["reasons"] == [
        {"input": "c1", "file": "beach.mp4", "outcome": "undecidable",
         "reason": "the witnesses name different scenes"}
    ]  # fmt: skip


def test_inputs_without_rows_have_their_reasons(lake: Lake) -> None:
    done = safevid("show", "clip_manifest", "--failed", root=lake.root)
    assert "broken.mp4: no video stream" in done.stdout
    assert "beach.mp4" not in done.stdout
    assert "every input has a row" in safevid("show", "safevid_350k_pairs", "--failed", root=lake.root).stdout


def test_no_more_rows_than_asked_for(lake: Lake) -> None:
    done = safevid("show", "clip_manifest", "-n", "1", root=lake.root)
    assert done.stdout.splitlines()[-1] == "1 of 2 rows; -n shows more"


def test_a_clip_or_stage_that_is_not_there_is_one_line(lake: Lake) -> None:
    unknown = safevid("show", "descriptions", "--clip", "beech.mp4", root=lake.root)
    assert is_one_line(unknown, 2, "no clip 'beech.mp4'; did you mean beach.mp4")
    unmade = safevid("show", "taxonomy_queries", root=lake.root)
    assert is_one_line(unmade, 2, "taxonomy_queries is not made yet; make it with `safevid run")
    unmade = safevid("show", "descriptions", "--scene", "farm", root=lake.root)
    assert is_one_line(unmade, 2, "make it with `safevid run descriptions --scene farm --upstream`")


def test_a_file_that_gave_no_clip_has_its_reason(lake: Lake) -> None:
    for stage in ("clip_manifest", "descriptions"):
        done = safevid("show", stage, "--clip", "broken.mp4", root=lake.root)
        assert is_one_line(done, 2, "no clip of 'broken.mp4': failed, broken.mp4: no video stream")


def test_a_stage_of_ones_own_shows_its_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lengths.py").write_text(
        "import polars as pl\n"
        "from safevid_core.contracts.outcomes import StageRows\n"
        "from safevid_core.contracts.tables import Table\n"
        "from safevid_core.stages.stage import Plan, Stage\n"
        "SCHEMA = pl.Schema({'length_id': pl.String, 'words': pl.Int64})\n"
        "TABLE = Table('lengths', 'length_id', 'length_id', SCHEMA)\n"
        "PLAN = Plan({}, [], lambda units: StageRows(TABLE.frame([]), []))\n"
        "STAGES = (Stage(TABLE, 'queries', 'Lengths.', lambda tools, partition: PLAN),)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAFEVID_STAGES", '["lengths"]')
    lengths = Table(
        "lengths", "length_id", "length_id", pl.Schema({"length_id": pl.String, "words": pl.Int64})
    )
    rows = StageRows(lengths.frame([{"length_id": "a", "words": 7}]), [("a", "ok", "")])
    Lake(tmp_path / "lake", "pocket").commit(lengths, WHOLE, rows, "by hand", {})
    shown = safevid("show", "lengths", root=tmp_path / "lake").stdout.splitlines()
    assert [line.split() for line in shown] == [["length_id", "words", "profile"], ["a", "7", "pocket"]]
