"""The program of the allocation: a linear program over the pairs of all strata, solved by HiGHS (scipy)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from safevid_core.contracts.errors import SafeVidError
from safevid_core.settings.allocation import AllocationSettings, Axis

# Costs of the program. A unit of a floor outweighs a pair of the target, a pair outweighs every way to fill.
_FLOOR, _PAIR = 3_000.0, 1_000.0
EPSILON = 1e-6


class AllocationError(SafeVidError, ValueError):
    """A target that cannot be met, or no allocation. The message names the constraint and the amount."""


class Stratum(NamedTuple):
    """A stratum of the allocation. `expectation` is what is planned: refuse, correct or answer."""

    scene: str
    principle: str
    dimension: str
    subcategory: str
    style: str
    expectation: str

    @property
    def stratum_id(self) -> str:
        return f"{self.scene}/{self.subcategory}/{self.style}/{self.expectation}"

    @property
    def benign(self) -> bool:
        """Whether the stratum asks for benign counterparts of a harmless subcategory."""
        return self.principle == "harmless" and self.expectation == "answer"


@dataclass(frozen=True)
class Problem:
    """A target and what the corpus can give.

    Attributes:
        strata: The strata, each once.
        shares: Share of the target of each stratum. They sum to 1.
        grounded: Number of clips in which each stratum has ground.
        survival: Expected share of the queries of each stratum that become pairs, above 0.
        clips: Scene -> number of clips that are asked about.
        floors, caps: (axis, share of the even portion).
    """

    target: int
    strata: tuple[Stratum, ...]
    shares: tuple[float, ...]
    grounded: tuple[int, ...]
    survival: tuple[float, ...]
    clips: tuple[tuple[str, int], ...]
    benign_share: float
    floors: tuple[tuple[Axis, float], ...]
    caps: tuple[tuple[Axis, float], ...]
    queries_per_clip: int

    @classmethod
    def of(
        cls,
        target: int,
        strata: Sequence[Stratum],
        shares: Sequence[float],
        grounded: Sequence[int],
        survival: Sequence[float],
        clips: Mapping[str, int],
        settings: AllocationSettings,
    ) -> Problem:
        """A problem with the bounds of the settings."""
        return cls(
            target, tuple(strata), tuple(shares), tuple(grounded), tuple(survival), tuple(clips.items()),
            settings.benign_share, tuple(settings.floors.items()), tuple(settings.caps.items()),
            settings.queries_per_clip,
        )  # fmt: skip


class Group(NamedTuple):
    """The strata with one value on an axis, with the bounds of their sum."""

    axis: Axis
    value: str
    members: list[int]
    floor: int
    cap: int | None


def members_of(strata: Sequence[Stratum], key: Any) -> dict[Any, list[int]]:
    """Value of a key -> indices of the strata with that value."""
    found: dict[Any, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        found[key(stratum)].append(index)
    return found


def capacity_of(problem: Problem) -> np.ndarray:
    """The pairs that each stratum can give, rounded down. With ground in a clip it is at least 1."""
    grounded = np.array(problem.grounded)
    expected = np.floor(np.array(problem.survival) * grounded + EPSILON).astype(np.int64)
    return np.asarray(np.maximum(expected, np.minimum(grounded, 1)))


def queries_per_pair(problem: Problem) -> np.ndarray:
    """The queries that are asked for a pair of each stratum: no more than there are clips with ground."""
    most = np.array(problem.grounded) / np.maximum(capacity_of(problem), 1)
    return np.asarray(np.minimum(1 / np.array(problem.survival), most))


def hubs_of(stratum: Stratum) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The three groups within which a stratum's pairs may be given by others, the nearest first."""
    same = (stratum.principle, stratum.expectation)
    return (*same, stratum.scene, stratum.dimension), (*same, "", stratum.subcategory), same


def solve(
    problem: Problem, portion: np.ndarray, floor: np.ndarray, most: np.ndarray, groups: Sequence[Group]
) -> np.ndarray:
    """The pairs of each stratum.

    The variables of a stratum are the pairs that nobody gives, those that it leaves to each of its hubs, and
    those that it takes from each. A floor has a variable for the part that is not met.

    Args:
        portion: The even portion of each stratum.
        floor: The least pairs of each stratum.
        most: The most pairs of each stratum.
        groups: Strata whose sum is bounded.
    """
    from scipy.optimize import linprog

    number = len(portion)
    floors = [([int(index)], int(floor[index])) for index in np.flatnonzero(floor > 0)]
    floors += [(group.members, group.floor) for group in groups if group.floor > 0]
    pairs, balance = _moves(problem, len(floors))
    queries, room = _clip_rows(problem)
    benign = _benign_row(problem)
    above, limits = _bounds(pairs, portion, most, floors, groups, queries, room, benign)
    cost = np.concatenate(
        [np.full(number, _PAIR), np.zeros(3 * number), *(np.full(number, tier) for tier in (1.0, 2.0, 3.0)),
         np.full(len(floors), _FLOOR)]
    )  # fmt: skip
    highest = np.concatenate([np.tile(portion, 4), np.tile(most, 3), np.full(len(floors), np.inf)])
    solved = linprog(
        cost, A_ub=above, b_ub=limits, A_eq=balance, b_eq=np.zeros(balance.shape[0]),
        bounds=np.column_stack([np.zeros(len(highest)), highest]), method="highs",
    )  # fmt: skip
    if solved.x is None:
        raise AllocationError(f"the allocation cannot be solved ({solved.message}); report the settings")
    exact = portion + pairs @ solved.x
    planned = np.round(exact).astype(np.int64)
    open_ = np.flatnonzero(np.abs(exact - planned) > EPSILON)
    if len(open_):
        planned[open_] = np.floor(exact[open_]).astype(np.int64)
        planned[open_] += _rounded_up(problem, planned, portion, open_, room, queries, benign, groups)
    return _with_benign_share(planned, benign)


def _moves(problem: Problem, floors: int) -> tuple[Any, Any]:
    """The pairs of each stratum beyond its portion by the variables, and the balance of each hub.

    A hub gives as many pairs as it gets.
    """
    import scipy.sparse as sp

    number = len(problem.strata)
    hubs: dict[tuple[str, ...], int] = {}
    tiers = [[hubs.setdefault(hub, len(hubs)) for hub in some] for some in map(hubs_of, problem.strata)]
    to_hub = [
        sp.csr_matrix(
            (np.ones(number), ([tier[level] for tier in tiers], np.arange(number))), shape=(len(hubs), number)
        )
        for level in range(3)
    ]
    nobody = sp.csr_matrix((len(hubs), number))
    balance = sp.hstack([nobody, *(-each for each in to_hub), *to_hub, sp.csr_matrix((len(hubs), floors))])
    own = sp.identity(number, format="csr")
    pairs = sp.hstack([-own, -own, -own, -own, own, own, own, sp.csr_matrix((number, floors))])
    return pairs.tocsr(), balance.tocsr()


def _clip_rows(problem: Problem) -> tuple[Any, np.ndarray]:
    """The queries of each scene by the pairs of its strata, and the most queries of each scene."""
    import scipy.sparse as sp

    places = {scene: place for place, (scene, _) in enumerate(problem.clips)}
    of_strata = [places[stratum.scene] for stratum in problem.strata]
    queries = sp.csr_matrix(
        (queries_per_pair(problem), (of_strata, np.arange(len(of_strata)))),
        shape=(len(places), len(of_strata)),
    )
    return queries, problem.queries_per_clip * np.array([clips for _, clips in problem.clips], dtype=float)


def _bounds(
    pairs: Any,
    portion: np.ndarray,
    most: np.ndarray,
    floors: Sequence[tuple[list[int], int]],
    groups: Sequence[Group],
    queries: Any,
    room: np.ndarray,
    benign: np.ndarray,
) -> tuple[Any, np.ndarray]:
    """The rows and limits of the program: each row times the variables is at most its limit."""
    import scipy.sparse as sp

    share = sp.csr_matrix(benign)
    above = [pairs, -pairs, queries @ pairs, share @ pairs, -share @ pairs]
    limits = [
        most - portion, portion, room - queries @ portion,
        [0.5 - benign @ portion], [0.5 + benign @ portion],
    ]  # fmt: skip
    first = pairs.shape[1] - len(floors)
    for place, (members, least) in enumerate(floors):
        unmet = sp.csr_matrix(([1.0], ([0], [first + place])), shape=(1, pairs.shape[1]))
        above.append(-(sp.csr_matrix(pairs[members].sum(axis=0)) + unmet))
        limits.append([portion[members].sum() - least])
    for group in groups:
        if group.cap is not None:
            above.append(sp.csr_matrix(pairs[group.members].sum(axis=0)))
            limits.append([group.cap - portion[group.members].sum()])
    return sp.vstack(above).tocsr(), np.concatenate(limits)


def _benign_row(problem: Problem) -> np.ndarray:
    """Coefficients of the pairs of each stratum in: benign pairs less their share of the harmless ones."""
    share = problem.benign_share
    kinds = {(stratum.principle, stratum.expectation) for stratum in problem.strata}
    if not {("harmless", "refuse"), ("harmless", "answer")} <= kinds:
        return np.zeros(len(problem.strata))
    harmless = np.array([stratum.principle == "harmless" for stratum in problem.strata])
    return np.array([stratum.benign for stratum in problem.strata]) - share * harmless


def _rounded_up(
    problem: Problem,
    planned: np.ndarray,
    portion: np.ndarray,
    open_: np.ndarray,
    room: np.ndarray,
    queries: Any,
    benign: np.ndarray,
    groups: Sequence[Group],
) -> np.ndarray:
    """For each fractional stratum, rounded down in `planned`, whether it is rounded up: 0 or 1."""
    import scipy.sparse as sp
    from scipy.optimize import Bounds, LinearConstraint, milp

    classes = members_of(problem.strata, lambda stratum: (stratum.principle, stratum.expectation))
    rows = [queries[:, open_], sp.csr_matrix(benign[open_]), *_sums(classes.values(), open_, len(planned))]
    most = [room - queries @ planned, [0.5 - benign @ planned]]
    most += [[portion[some].sum() - planned[some].sum()] for some in classes.values()]
    capped = [group for group in groups if group.cap is not None]
    rows += _sums([group.members for group in capped], open_, len(planned))
    most += [[(group.cap or 0) - planned[group.members].sum()] for group in capped]
    least = np.full(len(np.concatenate(most)), -np.inf)
    for lowest in (-0.5 - benign @ planned, -np.inf):  # the benign share is restored afterwards if need be
        least[len(room)] = lowest
        solved = milp(
            -np.ones(len(open_)),
            constraints=LinearConstraint(sp.vstack(rows).tocsr(), least, np.concatenate(most) + EPSILON),
            bounds=Bounds(0, 1),
            integrality=np.ones(len(open_)),
            options={"node_limit": 2_000},
        )
        if solved.x is not None:
            return np.round(solved.x).astype(np.int64)
    return np.zeros(len(open_), dtype=np.int64)


def _sums(groups: Any, columns: np.ndarray, number: int) -> list[Any]:
    """A row for each group with a 1 for each of its members among the columns."""
    import scipy.sparse as sp

    rows = []
    for members in groups:
        inside = np.zeros(number)
        inside[members] = 1
        rows.append(sp.csr_matrix(inside[columns]))
    return rows


def _with_benign_share(planned: np.ndarray, benign: np.ndarray) -> np.ndarray:
    """The pairs less those by which one side exceeds its share by more than half a pair."""
    while abs(float(benign @ planned)) > 0.5 + EPSILON:
        heavy = np.sign(benign) == np.sign(benign @ planned)
        planned[int(np.argmax(np.where(heavy, planned, -1)))] -= 1
    return planned
