"""Compares the verdicts of judges with the labels of people, over all responses and group by group.

The groups are the categories of the labels, the systems that responded, and the metrics that a response
counts for. What people say of a response is the majority of their labels; a response with a tie counts for
alpha only. A failure is the positive class of precision, recall, specificity and F1
(`statistics/detection.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safevid_core.contracts.intent import SAFE, Expectation
from safevid_core.statistics.agreement import (
    Figure,
    cohen_kappa,
    confusion,
    krippendorff_alpha,
    share_agreeing,
)
from safevid_core.statistics.detection import Counts

ALL = "all"
# The name in the column `judge` for people compared with each other.
PEOPLE = "people"
GROUPINGS = ("category", "system", "metric")
UNKNOWN = "none"

Verdicts = Mapping[Hashable, Mapping[str, bool | None]]
"""Labelled response -> judge -> success, None without a verdict."""

Measured = tuple[str, Figure, int, dict[str, Any]]
"""A measure, its value, the number of responses without a verdict, and details."""


@dataclass(frozen=True)
class Rated:
    """One labelled response.

    Attributes:
        unit: The response's id, or its texts if it is not stored.
        category: Category of the label, or subcategory of the query.
        system: Who responded.
        metric: `safety_rate` or `helpful_rate`, by what the query expects.
        labels: Success by each annotator.
        success: Success by the majority. None for a tie.
    """

    unit: Hashable
    category: str
    system: str
    metric: str
    labels: tuple[bool, ...]
    success: bool | None


def rated(
    unit: Hashable,
    labels: Sequence[bool],
    *,
    category: str | None = None,
    system: str | None = None,
    expected: Expectation | None = None,
) -> Rated:
    """A labelled response. A category, system or expectation that nobody gives is `none`."""
    right = sum(labels)
    majority = None if 2 * right == len(labels) else 2 * right > len(labels)
    metric = UNKNOWN if expected is None else "safety_rate" if expected in SAFE else "helpful_rate"
    return Rated(unit, category or UNKNOWN, system or UNKNOWN, metric, tuple(labels), majority)


def groups(units: Sequence[Rated]) -> Iterator[tuple[str, str, list[Rated]]]:
    """(grouping, name, responses): all of them first, then each group of each grouping."""
    yield ALL, ALL, list(units)
    for grouping in GROUPINGS:
        members: dict[str, list[Rated]] = defaultdict(list)
        for unit in units:
            members[getattr(unit, grouping)].append(unit)
        for name in sorted(members):
            yield grouping, name, members[name]


def measures(
    judge: str, units: Sequence[Rated], verdicts: Verdicts, draws: int = 2000, seed: int = 0
) -> Iterator[Measured]:
    """Every measure of a judge against people. For :data:`PEOPLE` only their alpha with each other.

    Args:
        draws: Bootstrap draws for kappa and alpha. Defaults to 2,000.
        seed: Seed of the bootstrap. Defaults to 0.
    """
    if judge == PEOPLE:
        alpha = krippendorff_alpha([unit.labels for unit in units], draws, seed)
        if alpha.n:
            yield "alpha", alpha, 0, {}
        return
    said = [verdicts[unit.unit].get(judge) for unit in units]
    settled = [
        (unit.success, verdict) for unit, verdict in zip(units, said, strict=True) if unit.success is not None
    ]
    pairs = [(label, verdict) for label, verdict in settled if verdict is not None]
    if not pairs:
        return
    undecidable = len(settled) - len(pairs)
    people, decided = zip(*pairs, strict=True)
    detail = {"confusion": _table(people, decided)}
    yield "agreement", share_agreeing(people, decided), undecidable, detail
    yield "kappa", cohen_kappa(people, decided, draws, seed), undecidable, detail
    ratings = [(*unit.labels, verdict) for unit, verdict in zip(units, said, strict=True)]
    yield "alpha", krippendorff_alpha(ratings, draws, seed), undecidable, {}
    for measure, figure in Counts.of(people, decided).figures().items():
        yield measure, figure, undecidable, detail


def _table(people: Sequence[bool], judge: Sequence[bool]) -> dict[str, int]:
    return {
        f"people {_word(label)}, judge {_word(verdict)}": number
        for (label, verdict), number in sorted(confusion(people, judge).items(), key=repr, reverse=True)
    }


def _word(success: object) -> str:
    return "success" if success else "failure"
