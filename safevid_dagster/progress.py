"""Reports the progress and the cost of questions to models in a run's log and an asset's metadata."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from safevid_dagster.interrupts import raise_lost_interrupt

if TYPE_CHECKING:
    from safevid_core.models.progress import Progress, Spend


class ProgressLog:
    """Writes the progress of a run's questions to its log, at most one line every `every_s` seconds.

    Attributes:
        log: The log of the run.
        part: The partition that is being made, as a prefix of each line. Example: `kitchen (3 of 30): `.
            Empty if the run makes one partition only.
    """

    def __init__(self, every_s: float) -> None:
        self.log = dg.get_dagster_logger()
        self.part = ""
        self._every_s = every_s
        self._said_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._said_at >= self._every_s:
            self._said_at = now
            self.log.info("%s%s", self.part, progress)


def spend_metadata(spend: Spend) -> dict[str, float]:
    """A run's calls and cost for one asset, as metadata. Empty if it asked nothing."""
    return {f"run/{name}": value for name, value in spend.figures().items()} if spend.asked else {}


# Called with the partition that is being made, its number from 1, and the number of partitions.
TellPartition = Callable[[str, int, int], None]
_watchers: list[TellPartition] = []


@contextmanager
def watching_partitions(tell: TellPartition) -> Iterator[None]:
    """While the block lasts, call `tell` for each partition that a run in this process makes."""
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def tell_watchers(partition: str, number: int, of: int) -> None:
    """Call the functions of :func:`watching_partitions` with the partition that is made next.

    Raises:
        BaseException: If Ctrl-C came before and was lost.
    """
    raise_lost_interrupt()
    for tell in list(_watchers):
        tell(partition, number, of)
