"""A stage whose batches a pool of processes can make, and a run of it for a process that is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from safevid_core.contracts.outcomes import StageRows
from safevid_core.execution.local import LocalRunner, RunReport
from safevid_core.settings import Settings, load_settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Needs, Plan, Stage, Tools
from safevid_core.storage.lake import Lake
from tests.stages.toy import rows_of, stage

UNITS = [f"{'u' * (number % 5)}{number}" for number in range(10)]
SIZE = 3


def batches_of(settings: Settings) -> Registry:
    """The stage `words` in batches of three; a file beside the lake notes each batch that is made.

    The process that makes the unit named in the file `deadly` kills itself. The one that makes the unit named
    in the file `slow` takes two minutes.
    """
    root = settings.root.parent

    def make(units: Sequence[str]) -> StageRows:
        deadly = root / "deadly"
        if deadly.exists() and deadly.read_text() in units:
            os.kill(os.getpid(), signal.SIGKILL)
        slow = root / "slow"
        if slow.exists() and slow.read_text() in units:
            (root / "waits").touch()
            time.sleep(120)
        with (root / "made").open("a") as made:
            made.write(f"{units[0]}\n")
        rows = rows_of("words", units)
        return StageRows(rows.rows, rows.outcomes, {"letters": sum(map(len, units)), "name": "x"})

    def plan(tools: Tools, partition: str) -> Plan:
        return Plan({"given": "1"}, UNITS, make)

    return Registry([stage("words", plan=plan, needs=Needs(batch=SIZE))])


def words_of(lake: Lake) -> Stage:
    return batches_of(load_settings("pocket", overrides={"root": str(lake.root)}))["words"]


def run(lake: Lake, processes: int) -> RunReport:
    """Make `words`; with more than one process in a pool."""
    settings = load_settings("pocket", overrides={"root": str(lake.root)})
    planner = Planner(Tools(settings, lake, batches_of(settings), _no_gateway))
    with LocalRunner(planner, build_registry=batches_of, processes=processes) as runner:
        return runner.run(planner.registry["words"])


def _no_gateway() -> None:
    raise AssertionError("this stage asks no model")


if __name__ == "__main__":
    run(Lake(Path(sys.argv[1]), "pocket"), int(sys.argv[2]))
