"""What a run's log and an asset's metadata tell of questions to models: how far, how many, at what cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from safevid_core.models.progress import Progress, Spend


class ProgressLog:
    """Tells the log of a run how its questions go, by one line every `every_s` seconds at most.

    Attributes:
        log: Of the run.
        part: What is at work, in front of each line: `kitchen (3 of 30): `. Empty where there is one part.
    """

    def __init__(self, every_s: float) -> None:
        self.log = dg.get_dagster_logger()
        self.part = ""
        self._every_s = every_s
        self._told = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told >= self._every_s:
            self._told = now
            self.log.info("%s%s", self.part, progress)


def spend_metadata(spend: Spend) -> dict[str, float]:
    """What a run asked and paid for one asset, for its metadata; nothing where it asked nothing."""
    return {f"run/{name}": value for name, value in spend.figures().items()} if spend.asked else {}


# Called with the partition at work, its number from 1 and how many there are.
TellPartition = Callable[[str, int, int], None]
_watchers: list[TellPartition] = []


@contextmanager
def watching_partitions(tell: TellPartition) -> Iterator[None]:
    """While the block lasts, tell which partition a run in this process is making."""
    _watchers.append(tell)
    try:
        yield
    finally:
        _watchers.remove(tell)


def tell_watchers(partition: str, number: int, of: int) -> None:
    """Tell everyone who watches this process that it makes the next partition."""
    for tell in list(_watchers):
        tell(partition, number, of)
