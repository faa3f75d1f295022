"""The allocation of a target: how many pairs each stratum of the plan is to give.

A stratum is a scene, a subcategory, a style and an expectation. Its *even portion* is its share of the
target. Its *capacity* is the number of pairs that its clips can give. A linear program finds the pairs of
each stratum:

- No stratum exceeds its capacity or its cap. No scene is asked more queries than its clips may have.
- The benign counterparts keep their share of the pairs of harmless subcategories.
- What a stratum cannot give is given by its neighbours, which have the same principle and expectation. Strata
  of the same dimension in the same scene come first, then the same subcategory in other scenes, then others.
- In this order: floors are met as far as possible, the sum of pairs is as large as possible, and the
  neighbours are as near as possible.

The program is solved by HiGHS (scipy). Its solution is integral unless the clips of a scene are used up. The
few fractional strata are then rounded by a second, small integer program.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from safevid_core.contracts.ids import content_id
from safevid_core.queries.allocation_program import (
    EPSILON,
    AllocationError,
    Group,
    Problem,
    Stratum,
    capacity_of,
    hubs_of,
    members_of,
    queries_per_pair,
    solve,
)
from safevid_core.settings.allocation import Axis

_TIERS = ("same dimension, same scene", "same subcategory, other scene", "same principle")
_MOST_LINES = 3  # about floors of one axis


class Refill(NamedTuple):
    """Pairs that a neighbour gives instead of a stratum. The strata are indices, `tier` names the rule."""

    short: int
    neighbour: int
    pairs: int
    tier: str


@dataclass(frozen=True)
class Allocation:
    """The pairs of each stratum. All arrays are integers and have an entry for each stratum.

    Attributes:
        portion: The even portion.
        floor, cap: Bounds of the stratum alone.
        capacity: Pairs that the clips with ground are expected to give, rounded down, and 1 where that is 0.
        planned: The pairs to be made.
        asked: The queries to be asked for them.
        shortage: Part of the even portion that neither the stratum nor a neighbour gives.
        problems: One line for each constraint for which the target or a floor cannot be met.
    """

    portion: np.ndarray
    floor: np.ndarray
    cap: np.ndarray
    capacity: np.ndarray
    planned: np.ndarray
    asked: np.ndarray
    shortage: np.ndarray
    refills: tuple[Refill, ...]
    problems: tuple[str, ...]


def allocate(problem: Problem) -> Allocation:
    """The best allocation of a target. The same problem gives the same allocation.

    Raises:
        AllocationError: If there is no stratum, or no clip to ask about.
    """
    clips = sum(number for _, number in problem.clips)
    if not problem.strata or not clips:
        raise AllocationError(
            f"datasets.target_pairs is {problem.target:,}, and the corpus has {clips} training clips and "
            f"{len(problem.strata)} strata; add clips to corpus.sources"
        )
    real = problem.target * np.array(problem.shares)
    portion = even_portions(problem)
    capacity = capacity_of(problem)
    floors, caps = dict(problem.floors), dict(problem.caps)
    floor = np.floor(floors.get("stratum", 0.0) * real + EPSILON).astype(np.int64)
    whole = np.full(len(real), problem.target, dtype=np.int64)
    cap = np.ceil(caps["stratum"] * real - EPSILON).astype(np.int64) if "stratum" in caps else whole
    groups = list(_groups(problem, portion))
    planned = solve(problem, portion, floor, np.minimum(capacity, cap), groups)
    refills, shortage = _refills(problem.strata, portion, planned)
    asked = _asked(problem, planned)
    found = tuple(_problems(problem, portion, floor, cap, capacity, planned, groups))
    return Allocation(portion, floor, cap, capacity, planned, asked, shortage, refills, found)


# ------------------------------------------------------------------------------------- the even portions


def even_portions(problem: Problem) -> np.ndarray:
    """Integers near the real portions, which sum to the target. The benign share is kept within half a pair.

    Remainders go to the expectations first, then to the scenes, then to strata in an order by hash.
    """
    strata, real = problem.strata, problem.target * np.array(problem.shares)
    classes = members_of(strata, lambda stratum: (stratum.principle, stratum.expectation))
    totals = dict(
        zip(classes, _rounded([real[some].sum() for some in classes.values()], problem.target), strict=True)
    )
    harmful, benign = ("harmless", "refuse"), ("harmless", "answer")
    if harmful in totals and benign in totals:
        both = totals[harmful] + totals[benign]
        totals[benign] = math.floor(problem.benign_share * both + 0.5)
        totals[harmful] = both - totals[benign]
    out = np.zeros(len(strata), dtype=np.int64)
    for name, some in classes.items():
        scenes: dict[str, list[int]] = defaultdict(list)
        for index in some:
            scenes[strata[index].scene].append(index)
        scale = totals[name] / max(real[some].sum(), 1e-12)
        of_scenes = _rounded([scale * real[each].sum() for each in scenes.values()], totals[name])
        for scene, total in zip(scenes, of_scenes, strict=True):
            inside = scenes[scene]
            weights = real[inside] / max(real[inside].sum(), 1e-12)
            out[inside] = _rounded(
                list(total * weights), total, [content_id(strata[index].stratum_id) for index in inside]
            )
    return out


def _rounded(values: Sequence[float], total: int, ties: Sequence[Any] | None = None) -> list[int]:
    """Integers that sum to `total`: the values rounded down, and one more for the largest remainders."""
    floors = [math.floor(value + 1e-9) for value in values]
    ties = range(len(values)) if ties is None else ties
    order = sorted(range(len(values)), key=lambda each: (-round(values[each] - floors[each], 9), ties[each]))
    for each in order[: total - sum(floors)]:
        floors[each] += 1
    return floors


def _groups(problem: Problem, portion: np.ndarray) -> Iterator[Group]:
    floors, caps = dict(problem.floors), dict(problem.caps)
    axes: tuple[Axis, ...] = ("scene", "subcategory", "style", "expectation")
    for axis in axes:
        if axis in floors or axis in caps:
            for value, some in members_of(
                problem.strata, lambda stratum, axis=axis: getattr(stratum, axis)
            ).items():
                even = int(portion[some].sum())
                cap = math.ceil(caps[axis] * even - EPSILON) if axis in caps else None
                yield Group(axis, value, some, math.floor(floors.get(axis, 0.0) * even + EPSILON), cap)


# ------------------------------------------------------------------------------------------ the results


def _refills(
    strata: Sequence[Stratum], portion: np.ndarray, planned: np.ndarray
) -> tuple[tuple[Refill, ...], np.ndarray]:
    """Which neighbour gives what a stratum cannot give, and what nobody gives. Nearest neighbours first."""
    missing, extra = np.maximum(portion - planned, 0), np.maximum(planned - portion, 0)
    refills = []
    for level, tier in enumerate(_TIERS):
        givers: dict[Any, list[int]] = defaultdict(list)
        for index in map(int, np.flatnonzero(extra)):
            givers[hubs_of(strata[index])[level]].append(index)
        for short in map(int, np.flatnonzero(missing)):
            for giver in givers.get(hubs_of(strata[short])[level], ()):
                pairs = int(min(missing[short], extra[giver]))
                if pairs:
                    refills.append(Refill(short, giver, pairs, tier))
                    missing[short] -= pairs
                    extra[giver] -= pairs
                if not missing[short]:
                    break
    return tuple(refills), missing


def _asked(problem: Problem, planned: np.ndarray) -> np.ndarray:
    """The queries for the planned pairs. The sum of a scene is rounded up, and not that of each stratum."""
    exact = planned * queries_per_pair(problem)
    out = np.zeros(len(planned), dtype=np.int64)
    room = {scene: problem.queries_per_clip * clips for scene, clips in problem.clips}
    for scene, some in members_of(problem.strata, lambda stratum: stratum.scene).items():
        values = exact[some]
        total = min(math.ceil(values.sum() - EPSILON), room[scene])
        out[some] = _rounded(list(values), total, [problem.strata[index].stratum_id for index in some])
    return out


def _problems(
    problem: Problem,
    portion: np.ndarray,
    floor: np.ndarray,
    cap: np.ndarray,
    capacity: np.ndarray,
    planned: np.ndarray,
    groups: Sequence[Group],
) -> Iterator[str]:
    """One line for each constraint that keeps the target or a floor from being met."""
    target = problem.target
    yield from _contradictory_bounds(problem, portion, groups)
    yield from _below_floors(capacity, planned, groups)
    below = np.flatnonzero(planned < floor)
    if len(below):
        first = int(below[0])
        yield (
            f"strata below their floors: {len(below)}, by {int((floor - planned)[below].sum()):,} pairs; the "
            f"first is {problem.strata[first].stratum_id} with {planned[first]} of {floor[first]}; lower "
            "datasets.allocation.floors.stratum"
        )
    short = target - int(planned.sum())
    if not short:
        return
    yield f"datasets.target_pairs is {target:,}, and {target - short:,} can be planned, {short:,} fewer"
    clips = sum(number for _, number in problem.clips)
    needed = float((portion / np.array(problem.survival)).sum())
    if needed > problem.queries_per_clip * clips:
        yield (
            f"the target needs {needed:,.0f} queries at the expected survival, {needed / clips:.1f} for each "
            f"of {clips:,} clips, and datasets.allocation.queries_per_clip is {problem.queries_per_clip}; "
            f"raise it to {math.ceil(needed / clips)}, or add clips"
        )
    able = np.minimum(capacity, cap)
    if int(able.sum()) < target:
        yield (
            f"the clips give ground for {int(capacity.sum()):,} pairs, {int(able.sum()):,} "
            "of them within the caps of the strata; add clips or styles, or raise "
            "datasets.allocation.caps.stratum"
        )
    for (principle, expectation), some in members_of(
        problem.strata, lambda stratum: (stratum.principle, stratum.expectation)
    ).items():
        left = int(portion[some].sum() - planned[some].sum())
        if left:
            yield (
                f"{principle} queries with the expectation {expectation}: {left:,} of "
                f"{int(portion[some].sum()):,} pairs are short; the clips give at most "
                f"{int(able[some].sum()):,} within the caps"
            )


def _contradictory_bounds(problem: Problem, portion: np.ndarray, groups: Sequence[Group]) -> Iterator[str]:
    """Floors that sum to more than the target, and caps that sum to less."""
    target = problem.target
    for axis in dict.fromkeys(group.axis for group in groups):
        some = [group for group in groups if group.axis == axis]
        floors, caps = sum(group.floor for group in some), [group.cap for group in some]
        if floors > target:
            yield (
                f"the floors of datasets.allocation.floors.{axis} sum to {floors:,} pairs, "
                f"{floors - target:,} more than the target of {target:,}; give at most 1"
            )
        most = sum(cap for cap in caps if cap is not None)
        if None not in caps and most < target:
            yield (
                f"the caps of datasets.allocation.caps.{axis} sum to {most:,} pairs, {target - most:,} fewer "
                f"than the target of {target:,}; give at least 1"
            )


def _below_floors(capacity: np.ndarray, planned: np.ndarray, groups: Sequence[Group]) -> Iterator[str]:
    for axis in dict.fromkeys(group.axis for group in groups):
        some = [group for group in groups if group.axis == axis]
        below = [group for group in some if planned[group.members].sum() < group.floor]
        for group in below[:_MOST_LINES]:
            given, can = int(planned[group.members].sum()), int(capacity[group.members].sum())
            yield (
                f"{axis} {group.value}: {given:,} pairs can be planned, {group.floor - given:,} fewer than "
                f"its floor of {group.floor:,}; its clips give at most {can:,}; lower "
                f"datasets.allocation.floors.{axis}"
            )
        if len(below) > _MOST_LINES:
            yield f"{len(below) - _MOST_LINES} more values of {axis} are below their floors"
