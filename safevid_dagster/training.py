"""The training process as the asset `dpo_checkpoint` starts it, through Dagster Pipes.

It is :mod:`safevid_core.alignment.train`, which also tells the run's log how it goes. Dagster lives on when
it dies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dagster_pipes import open_dagster_pipes

from safevid_core.alignment.job import Job
from safevid_core.alignment.processes import is_first_process
from safevid_core.alignment.train import main as train

SECONDS_BETWEEN_LINES = 10.0


class RunLog:
    """Writes lines of a training into the log of the Dagster run, at most one so often but for the last."""

    def __init__(self, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self._seconds = seconds
        self._told = 0.0

    def __call__(self, job: Job, figures: Mapping[str, Any]) -> None:
        """Tell of a step of a job."""
        log = open_dagster_pipes().log
        if "warning" in figures:
            log.warning(f"{job.name}: {figures['warning']}")
        is_last = figures["step"] == figures["steps"]
        if "loss" in figures and (is_last or time.monotonic() - self._told > self._seconds):
            self._told = time.monotonic()
            log.info(line(job, figures))


def line(job: Job, figures: Mapping[str, Any]) -> str:
    """A step in a line: where it stands, how it learns, how fast, and what is left."""
    left = figures.get("seconds_left")
    return (
        f"{job.name}: step {figures['step']} of {figures['steps']}, loss {figures['loss']:.4f}, "
        f"reward margin {figures['rewards/margins']:.3f}, accuracy {figures['rewards/accuracies']:.0%}, "
        f"log-probabilities {figures['logps/chosen']:.1f} chosen {figures['logps/rejected']:.1f} rejected, "
        f"{figures['tokens/s']:,.0f} tokens/s" + ("" if left is None else f", {left:,.0f} s left")
    )


def main(arguments: Sequence[str]) -> int:
    if not is_first_process():
        return train(arguments)
    with open_dagster_pipes():
        return train(arguments, RunLog())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
