"""`safevid status`: counts that add up, reasons, and plain text in a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.storage.lake import WHOLE, Lake
from safevid_dagster.cli.status import CONDITIONS, standing
from tests.command import PROJECT, is_one_line, safevid, safevid_process
from tests.stages.test_planner import Release


def test_a_new_root_has_missing_and_blocked_partitions_only(tmp_path: Path) -> None:
    document = json.loads(safevid("status", "--json", root=tmp_path).stdout)
    assert set(document) == {"root", "profile", "calls", "cost_usd", "stages"}
    assert document["root"] == str(tmp_path)
    stages = {stage["stage"]: stage for stage in document["stages"]}
    assert stages["pocket_clips"]["missing"] == 1
    assert stages["descriptions"]["blocked"] == stages["descriptions"]["partitions"] == 30
    for stage in document["stages"]:
        assert sum(stage[condition] for condition in CONDITIONS) == stage["partitions"]
        assert stage["fresh"] == stage["stale"] == stage["rows"] == 0


def test_a_partition_has_its_condition_and_reason(lake: Lake) -> None:
    done = safevid("status", "descriptions", "clip_manifest", "--partitions", "--json", root=lake.root)
    found = {(each["stage"], each["partition"]): each for each in json.loads(done.stdout)["partitions"]}
    assert len(found) == 31
    airport = found["descriptions", "airport"]
    assert airport["condition"] == "blocked"
    assert airport["reason"] == "video_corpus[airport] is not made yet"
    assert found["descriptions", "kitchen"]["rows"] == 1


def test_the_last_failure_is_reported_until_an_attempt_succeeds(lake: Lake) -> None:
    lake.write_failure("pocket_clips", "all", "no room left on the disk")
    done = safevid("status", "pocket_clips", root=lake.root)
    assert "pocket_clips[all] failed: no room left on the disk" in done.stdout
    assert "1 partitions: 1 failed" in done.stdout
    lake.write_failure("pocket_clips", "all", "")
    assert "failed:" not in safevid("status", "pocket_clips", root=lake.root).stdout


def test_scores_of_an_earlier_release_are_stale_until_the_responses_are_made_again(tmp_path: Path) -> None:
    """The middle of an upgrade: the benchmark was drawn anew, and nothing else has run since."""
    made = Release(Lake(tmp_path, "pocket"), SafeVidError("figures of different releases do not compare"))
    made.release = "2"
    made.make("items")
    planner = made.planner()
    found = {stage.name: standing(planner, stage, WHOLE) for stage in made.stages}
    assert {name: each.condition for name, each in found.items()} == {
        "items": "fresh", "responses": "stale", "scores": "stale",
    }  # fmt: skip
    assert found["scores"].reason.startswith("responses is to be made again first (figures of different")
    assert found["scores"].rows == 1


def test_scenes_choose_partitions(tmp_path: Path) -> None:
    done = safevid("status", "descriptions", "--scene", "kitchen", "--scene", "park", root=tmp_path)
    assert "2 partitions: 2 blocked" in done.stdout


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["status", "descriptons"], "no stage 'descriptons'; did you mean descriptions"),
        (["status", "--scene", "kitchn"], "no scene 'kitchn'; did you mean kitchen?"),
        (["status", "descriptions", "--partition", "kitchen2"], "no partition 'kitchen2' of descriptions"),
        (["show", "nothing"], "no stage 'nothing'"),
        (["estimate", "descriptons"], "did you mean descriptions"),
        (["run", "descriptons"], "did you mean descriptions"),
        (["run", "descriptions", "--scene", "kitchn"], "did you mean kitchen?"),
        (["run", "pocket_clips", "--to", "scorcard"], "did you mean scorecard"),
        (["run", "descriptions", "--to", "corpus_split"], "corpus_split is not made from descriptions"),
        (["--profile", "papr", "status"], "profile 'papr' does not exist"),
        (["--settings", "none.yaml", "status"], "settings file none.yaml does not exist"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_one_line(tmp_path: Path, asked: list[str], says: str) -> None:
    assert is_one_line(safevid(*asked, root=tmp_path), 2, says)


def test_a_pipe_gets_plain_lines(lake: Lake) -> None:
    done = safevid_process("--root", lake.root, "status", "descriptions", "--partitions", FORCE_COLOR="")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_lake_whose_manifest_is_damaged_is_one_line(lake: Lake) -> None:
    (lake.folder("descriptions", "kitchen") / "manifest.json").write_text("{")
    done = safevid("status", "descriptions", root=lake.root)
    assert is_one_line(done, 2, "is not a manifest; delete it and materialise descriptions again")


def test_it_loads_neither_dagster_nor_models(lake: Lake) -> None:
    source = (
        "import sys; from tests.command import safevid; from pathlib import Path; "
        f"assert safevid('status', root=Path({str(lake.root)!r})).exit_code == 0; "
        "print(sorted({'dagster', 'torch', 'litellm', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_loads_typer_alone() -> None:
    source = (
        "import sys, safevid_dagster.cli.commands; "
        "print(sorted({'dagster', 'polars', 'pydantic', 'numpy', 'torch', 'litellm'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
