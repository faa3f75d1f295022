"""Choosing so many of a set that no group has much more than another."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class Unit(Protocol):
    """What is chosen whole or not at all.

    Attributes:
        size: How much room it takes.
        order: What decides between units that are equally due.
        groups: What is to be balanced, as (kind, name), the most important first; every unit names the
            same kinds.
    """

    @property
    def size(self) -> int: ...
    @property
    def order(self) -> str: ...
    @property
    def groups(self) -> Sequence[tuple[str, str]]: ...


AnyUnit = TypeVar("AnyUnit", bound=Unit)


class Balance:
    """How often each group was chosen; what was used least is chosen next.

    Args:
        chosen: Units that are chosen already.
    """

    def __init__(self, chosen: Iterable[Unit] = ()) -> None:
        self._times: Counter[tuple[str, str]] = Counter()
        for unit in chosen:
            self._times.update(unit.groups)

    def take(self, units: Sequence[AnyUnit], room: int) -> list[AnyUnit]:
        """Units that fit into so much room; a unit that does not fit is passed over."""
        # Ranks only ever rise, so a rank that is still current when it comes up is the least.
        heap = [(self._rank(unit), unit.order, place) for place, unit in enumerate(units)]
        heapq.heapify(heap)
        taken: list[AnyUnit] = []
        while heap and room:
            stale, order, place = heapq.heappop(heap)
            unit = units[place]
            rank = self._rank(unit)
            if stale != rank:
                heapq.heappush(heap, (rank, order, place))
            elif unit.size <= room:
                self._times.update(unit.groups)
                taken.append(unit)
                room -= unit.size
        return taken

    def _rank(self, unit: Unit) -> tuple[int, ...]:
        return tuple(self._times[group] for group in unit.groups)
