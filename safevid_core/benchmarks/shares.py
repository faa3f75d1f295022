"""How many items each kind gets. A share is a target: what one kind cannot fill goes to the other kinds.

The rule, by the largest remainder (Hamilton's method of apportionment):

1. The room is divided by the shares. Each kind gets the whole part of its quota, and the rest goes one by one
   to the kinds with the largest remainders. The kind that is named first wins a tie.
2. A kind that has no more than its room keeps what it has. The room that is left is divided again between the
   other kinds, by their shares.
3. Step 2 is repeated until every kind fills its room or nothing is left to choose.

Example: 16 items, shares of 50% twins, 30% explicit and 20% ask, and no twins at all. Explicit gets 10 and
ask 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import Protocol, TypeVar

from safevid_core.benchmarks.balance import Balance, Unit


class UnitOfKind(Unit, Protocol):
    """A unit that has a kind. Its size is its number of items."""

    @property
    def kind(self) -> str: ...


AnyUnit = TypeVar("AnyUnit", bound=UnitOfKind)


def targets_of(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Each kind's part of the total by the largest remainder. The parts add up to the total.

    Args:
        total: Items wanted, 0 or more.
        shares: Kind -> share, each above 0. Only their ratios count.
    """
    if not shares:
        return {}
    # Decimal fractions as they are written, so that 0.13 of 100 has no remainder.
    exact = {kind: Fraction(str(share)) for kind, share in shares.items()}
    whole = sum(exact.values())
    quotas = {kind: total * share / whole for kind, share in exact.items()}
    parts = {kind: floor(quota) for kind, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda kind: parts[kind] - quotas[kind])
    for kind in by_remainder[: total - sum(parts.values())]:
        parts[kind] += 1
    return parts


def rooms_of(total: int, shares: Mapping[str, float], there: Mapping[str, int]) -> dict[str, int]:
    """Each kind's room: its target, or all that there is of it, and its part of what others cannot fill.

    Args:
        total: Items wanted, 0 or more.
        shares: Kind -> share, each above 0.
        there: Kind -> number of items that could be chosen. A kind that is not named has none.

    Returns:
        Kind -> room, in the order of the shares. The rooms add up to the total, or to all that there is if
        that is less.
    """
    rooms: dict[str, int] = {}
    while len(rooms) < len(shares):
        left = {kind: share for kind, share in shares.items() if kind not in rooms}
        targets = targets_of(total - sum(rooms.values()), left)
        full = {kind: there.get(kind, 0) for kind in left if there.get(kind, 0) <= targets[kind]}
        rooms |= full or targets
    return {kind: rooms[kind] for kind in shares}


def choose_by_shares(units: Sequence[AnyUnit], total: int, shares: Mapping[str, float]) -> list[AnyUnit]:
    """Units for so many items: of each kind as many as :func:`rooms_of` gives it, balanced within the kind.

    A unit of two items does not fit into the last odd place of its kind. Whatever unit fits takes that place.
    """
    used = Balance()
    chosen: list[AnyUnit] = []
    for kind, room in rooms_of(total, shares, items_by_kind(units)).items():
        chosen += used.take([unit for unit in units if unit.kind == kind], room)
    taken = set(map(id, chosen))
    left = [unit for unit in units if id(unit) not in taken]
    return chosen + used.take(left, total - sum(unit.size for unit in chosen))


def items_by_kind(units: Iterable[UnitOfKind]) -> Counter[str]:
    """Kind -> number of items."""
    found: Counter[str] = Counter()
    for unit in units:
        found[unit.kind] += unit.size
    return found


def shortfall(by_kind: Mapping[str, int], targets: Mapping[str, int], total: int) -> list[str]:
    """Lines about kinds that are below their targets, and about those that have more for it.

    Example: `fewer items than their share: twins 0 of 8`, `more for it: explicit 10 of 5`.

    Args:
        by_kind: Kind -> number of chosen items.
        targets: Kind -> number of items by its share.
        total: Items wanted.

    Returns:
        No line if no kind is below its target.
    """
    gaps = {kind: by_kind.get(kind, 0) - target for kind, target in targets.items()}
    if min(gaps.values(), default=0) >= 0:
        return []
    told = {kind: f"{kind} {by_kind.get(kind, 0):,} of {target:,}" for kind, target in targets.items()}
    short = ", ".join(told[kind] for kind, gap in gaps.items() if gap < 0)
    over = ", ".join(told[kind] for kind, gap in gaps.items() if gap > 0)
    chosen = sum(by_kind.values())
    lines = [f"{chosen:,} items, where {total:,} were asked for"] if chosen < total else []
    lines += [f"fewer items than their share: {short}"]
    return [*lines, f"more for it: {over}"] if over else lines
