"""The training process that the asset `dpo_checkpoint` starts through Dagster Pipes.

It runs :mod:`safevid_core.alignment.train` and also writes its progress to the log of the run. If the process
dies, Dagster goes on.
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
    """Writes the progress of a training to the log of the Dagster run.

    Args:
        seconds: Least time between two lines. The last step always has a line.
    """

    def __init__(self, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self._seconds = seconds
        self._said_at = 0.0

    def __call__(self, job: Job, figures: Mapping[str, Any]) -> None:
        """Write a line about a step of a job, or a warning."""
        log = open_dagster_pipes().log
        if "warning" in figures:
            log.warning(f"{job.name}: {figures['warning']}")
        is_last = figures["step"] == figures["steps"]
        if "loss" in figures and (is_last or time.monotonic() - self._said_at > self._seconds):
            self._said_at = time.monotonic()
            log.info(line(job, figures))


def line(job: Job, figures: Mapping[str, Any]) -> str:
    """A step in one line: its number, loss, margin, accuracy, log-probabilities, speed and seconds left."""
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
