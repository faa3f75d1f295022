"""A bad request is one line; why an attempt failed is stored beside the partition until the next success."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.execution.local import LocalRunner
from safevid_core.settings import load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake
from safevid_dagster.cli.failures import BAD_REQUEST
from tests.command import is_one_line, safevid, safevid_process

TOY = Table("toy", "toy_id", "toy_id", pl.Schema({"toy_id": pl.String}))


class NoRoom(SafeVidError):
    """Stands for any error of a stage."""


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["status", "--nope"], "status: no option '--nope'; see `safevid status --help`"),
        (["status", "--partition"], "status: option --partition needs a value; see `safevid status --help`"),
        (
            ["status", "--partitons"],
            "status: no option '--partitons' (did you mean --partition, --partitions?)",
        ),
        (["status", "--json", "--nope"], "status: no option '--nope'; see `safevid status --help`"),
        (["--nope"], "no option '--nope'; see `safevid --help`"),
        (["run"], "run: argument STAGE... is missing; see `safevid run --help`"),
        (["run", "--json"], "run: argument STAGE... is missing; see `safevid run --help`"),
        (["review", "export"], "review export: option --to is missing; see `safevid review export --help`"),
        (
            ["review", "exprt"],
            "review: no such command 'exprt' (did you mean 'export'?); see `safevid review",
        ),
        (["stauts"], "no such command 'stauts' (did you mean 'status'?); see `safevid --help`"),
        (["--profile"], "option --profile needs a value; see `safevid --help`"),
        (
            ["status", "--json", "--scene"],
            "status: option --scene needs a value; see `safevid status --help`",
        ),
        (
            ["ui", "--port", "70000"],
            "ui: --port: input should be less than or equal to 65535; see `safevid ui",
        ),
        (["show", "x", "-n", "many"], "show: -n: input should be a valid integer"),
        (["show", "a", "b"], "show: got unexpected extra argument(s) (b); see `safevid show --help`"),
    ],
)
def test_a_request_that_is_misspelt_is_one_line(asked: list[str], says: str) -> None:
    assert is_one_line(safevid(*asked), BAD_REQUEST, f"safevid: {says}")


def test_an_error_of_usage_is_one_line_in_a_process_too() -> None:
    done = safevid_process("status", "--json", "--nope", FORCE_COLOR="1")
    assert (done.returncode, done.stdout) == (BAD_REQUEST, "")
    assert done.stderr == "safevid: status: no option '--nope'; see `safevid status --help`\n"


def test_without_a_command_the_help_is_shown() -> None:
    done = safevid()
    assert done.exit_code == BAD_REQUEST
    assert {"demo", "status"} <= set(done.output.split())
    assert safevid("--help").exit_code == safevid("status", "--help").exit_code == 0


def test_a_failure_lasts_until_an_attempt_succeeds(tmp_path: Path) -> None:
    errors: list[Exception] = [NoRoom("no room\nleft"), ValueError("a mistake")]

    def make(units: Sequence[str]) -> StageRows:
        if errors:
            raise errors.pop(0)
        return StageRows(TOY.frame([{"toy_id": "a"}]), [("a", "ok", "")])

    stage = Stage(TOY, "corpus", "A toy.", lambda tools, partition: Plan({}, ["a"], make))
    settings, lake = load_settings("pocket", overrides={"root": str(tmp_path)}), Lake(tmp_path, "pocket")

    def run() -> str:
        tools = Tools(settings, lake, Registry([stage]), lambda: None)  # type: ignore[arg-type, return-value]
        with LocalRunner(Planner(tools)) as runner:
            runner.make(stage, [WHOLE])
        return lake.read_failure("toy", WHOLE)

    assert lake.read_failure("toy", WHOLE) == ""
    assert run() == "no room left"
    assert run() == "ValueError: a mistake"
    assert run() == ""
    assert lake.manifest("toy") is not None


def test_inputs_that_are_missing_are_no_failure(tmp_path: Path) -> None:
    settings, lake = load_settings("pocket", overrides={"root": str(tmp_path)}), Lake(tmp_path, "pocket")
    above = Table("above", "toy_id", "toy_id", pl.Schema({"toy_id": pl.String}))
    plan = Plan({}, [], lambda units: StageRows(TOY.frame([]), []))
    stages = [
        Stage(above, "corpus", "A toy.", lambda tools, partition: plan),
        Stage(TOY, "corpus", "A toy.", lambda tools, partition: plan, reads=("above",)),
    ]
    tools = Tools(settings, lake, Registry(stages), lambda: None)  # type: ignore[arg-type, return-value]
    with LocalRunner(Planner(tools)) as runner:
        report = runner.make(stages[1], [WHOLE])
    assert "above is not made yet" in str(report.failures[WHOLE])
    assert lake.read_failure("toy", WHOLE) == ""
