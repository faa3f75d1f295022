"""Rooms by shares: they add up, no kind gets more than there is, and a share that can be filled is filled."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.benchmarks.shares import choose_by_shares, items_by_kind, rooms_of, shortfall, targets_of

KINDS = ("twins", "explicit", "premise", "ask", "benign", "shown")
SHARES = st.dictionaries(
    st.sampled_from(KINDS), st.integers(1, 100).map(lambda percent: percent / 100), min_size=1
)
THERE = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 60))
TOTAL = st.integers(0, 200)


@dataclass(frozen=True)
class Some:
    """A unit with no group but its own."""

    kind: str
    order: str
    size: int = 1

    @property
    def groups(self) -> list[tuple[str, str]]:
        return [("unit", self.order)]


@given(TOTAL, SHARES)
def test_targets_add_up_and_are_within_one_of_the_quota(total: int, shares: dict[str, float]) -> None:
    targets = targets_of(total, shares)
    assert sum(targets.values()) == total
    whole = math.fsum(shares.values())
    for kind, share in shares.items():
        assert abs(targets[kind] - total * share / whole) < 1 + 1e-9


@given(TOTAL, SHARES, THERE)
def test_rooms_fill_the_total_or_take_all_there_is(
    total: int, shares: dict[str, float], there: dict[str, int]
) -> None:
    rooms = rooms_of(total, shares, there)
    assert list(rooms) == list(shares)
    assert all(0 <= rooms[kind] <= there.get(kind, 0) for kind in shares)
    assert sum(rooms.values()) == min(total, sum(there.get(kind, 0) for kind in shares))


@given(TOTAL, SHARES, THERE)
def test_a_kind_is_below_its_target_only_if_all_of_it_is_chosen(
    total: int, shares: dict[str, float], there: dict[str, int]
) -> None:
    rooms, targets = rooms_of(total, shares, there), targets_of(total, shares)
    enough = all(there.get(kind, 0) >= target for kind, target in targets.items())
    assert not enough or rooms == targets
    for kind, room in rooms.items():
        # One item less is possible, because the remainders of a smaller room can be of other kinds.
        assert room == there.get(kind, 0) or room >= targets[kind] - 1


@given(TOTAL, SHARES, THERE)
def test_what_is_missing_goes_to_the_others_by_their_shares(
    total: int, shares: dict[str, float], there: dict[str, int]
) -> None:
    """The rooms of kinds that are not used up have the ratio of their shares, up to rounding."""
    rooms = rooms_of(total, shares, there)
    refilled = [kind for kind in shares if rooms[kind] < there.get(kind, 0)]
    given_to_them = sum(rooms[kind] for kind in refilled)
    whole = sum(shares[kind] for kind in refilled)
    for kind in refilled:
        assert abs(rooms[kind] - given_to_them * shares[kind] / whole) < 1 + 1e-9


@given(
    st.integers(0, 60),
    SHARES,
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([1, 1, 2])), max_size=60),
    st.randoms(use_true_random=False),
)
def test_units_are_chosen_up_to_the_total_in_any_order(
    total: int, shares: dict[str, float], made: list[tuple[str, int]], random: object
) -> None:
    units = [Some(kind, f"{place:03}", size) for place, (kind, size) in enumerate(made)]
    chosen = choose_by_shares(units, total, shares)
    size = sum(unit.size for unit in chosen)
    left = [unit for unit in units if unit not in chosen]
    assert len(set(chosen)) == len(chosen)
    assert size <= total
    assert all(unit.size > total - size for unit in left), "no unit that fits is left"
    shuffled = list(units)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(choose_by_shares(shuffled, total, shares)) == set(chosen)


def test_the_worked_example() -> None:
    shares = {"twins": 0.5, "explicit": 0.3, "ask": 0.2}
    assert targets_of(16, shares) == {"twins": 8, "explicit": 5, "ask": 3}
    assert rooms_of(16, shares, {"explicit": 30, "ask": 30}) == {"twins": 0, "explicit": 10, "ask": 6}
    assert rooms_of(16, shares, {"explicit": 7, "ask": 30}) == {"twins": 0, "explicit": 7, "ask": 9}


@pytest.mark.parametrize(
    ("by_kind", "lines"),
    [
        ({"twins": 8, "ask": 8}, []),
        ({"ask": 16}, ["fewer items than their share: twins 0 of 8", "more for it: ask 16 of 8"]),
        (
            {"ask": 3},
            ["3 items, where 16 were asked for", "fewer items than their share: twins 0 of 8, ask 3 of 8"],
        ),
        ({}, ["0 items, where 16 were asked for", "fewer items than their share: twins 0 of 8, ask 0 of 8"]),
    ],
)
def test_the_lines_about_kinds_that_are_short(by_kind: dict[str, int], lines: list[str]) -> None:
    assert shortfall(by_kind, {"twins": 8, "ask": 8}, 16) == lines


def test_items_are_counted_by_kind() -> None:
    units = [Some("twins", "a", 2), Some("ask", "b"), Some("twins", "c", 2)]
    assert items_by_kind(units) == Counter(twins=4, ask=1)
