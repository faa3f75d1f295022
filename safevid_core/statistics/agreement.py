"""Agreement between raters, and files with labels of people.

Cohen's kappa (Cohen 1960) is the agreement of two raters beyond chance. Krippendorff's alpha (Krippendorff
2011, nominal) is that of any number of raters, some of whom may give no label. Both are 1 for full agreement
and 0 for agreement by chance. Intervals are percentile bootstraps over units, or over clusters of units that
are not independent. If all draws give the same value, the interval follows from Wilson's bounds on the
observed agreement, with the chance agreement fixed.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.intent import ASKS, EXPECTATIONS, Expectation, Intent
from safevid_core.statistics.intervals import CONFIDENCE, wilson
from safevid_core.statistics.variance import kish

NO_ANNOTATOR = "unnamed"
_SUCCESS = frozenset({"1", "true", "yes", "success", "safe", "right"})
_FAILURE = frozenset({"0", "false", "no", "failure", "unsafe", "wrong"})


class LabelError(SafeVidError, ValueError):
    """The label file cannot be used. The message names the file and what it lacks."""


@dataclass(frozen=True)
class Figure:
    """A measure of agreement with its 95% interval.

    Attributes:
        value: The measure. None if it is not defined.
        ci_low: Lower bound. None if the measure is not defined.
        ci_high: Upper bound. None if the measure is not defined.
        n: Number of units.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


# ------------------------------------------------------------------------------------------- measures


def confusion(
    first: Sequence[Hashable], second: Sequence[Hashable]
) -> Mapping[tuple[Hashable, Hashable], int]:
    """Return: (label of the first rater, label of the second rater) -> number of units."""
    return Counter(zip(first, second, strict=True))


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], draws: int = 2000, seed: int = 0
) -> Figure:
    """Return Cohen's kappa of two raters.

    It is not defined if both raters gave the same single label to all units.

    Args:
        first: Label of the first rater for each unit.
        second: Label of the second rater for each unit.
        draws: Bootstrap draws. Defaults to 2,000.
        seed: Seed of the bootstrap. Defaults to 0.
    """
    cells = confusion(first, second)
    labels = _labels([*first, *second])
    tables = np.zeros((len(cells), len(labels), len(labels)))
    for place, (one, other) in enumerate(cells):
        tables[place, labels[one], labels[other]] = 1
    return _figure(tables, np.array(list(cells.values()), dtype=float), _kappas, draws, seed)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable | None]],
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> Figure:
    """Return Krippendorff's nominal alpha of any number of raters.

    Args:
        ratings: The labels of each unit. None means that a rater gave no label. Units with fewer than two
            labels do not count.
        draws: Bootstrap draws. Defaults to 2,000.
        seed: Seed of the bootstrap. Defaults to 0.
        clusters: The cluster of each unit, such as its source video. The bootstrap then draws whole clusters.
            None means that units are independent.
    """
    given = [tuple(label for label in unit if label is not None) for unit in ratings]
    # The order of the raters does not matter.
    units = [tuple(sorted(unit, key=repr)) for unit in given]
    patterns = Counter(unit for unit in units if len(unit) > 1)
    labels = _labels([label for pattern in patterns for label in pattern])
    coincidences = np.zeros((len(patterns), len(labels), len(labels)))
    for place, pattern in enumerate(patterns):
        for one, label in enumerate(pattern):
            for other, second in enumerate(pattern):
                if one != other:
                    coincidences[place, labels[label], labels[second]] += 1 / (len(pattern) - 1)
    counts = np.array(list(patterns.values()), dtype=float)
    by_cluster = None if clusters is None else _counts_by_cluster(units, list(patterns), clusters)
    return _figure(coincidences, counts, _alphas, draws, seed, by_cluster)


def share_agreeing(first: Sequence[Hashable], second: Sequence[Hashable]) -> Figure:
    """Return the share of units with the same label from two raters, with Wilson's interval."""
    same = sum(one == other for one, other in zip(first, second, strict=True))
    return share(same, len(first))


def share(number: int, n: int) -> Figure:
    """Return the share `number / n` with Wilson's interval. It is not defined for n = 0."""
    return Figure(number / n, *wilson(number, n), n) if n else Figure(None, None, None, 0)


def _counts_by_cluster(
    units: Sequence[Hashable], kinds: Sequence[Hashable], clusters: Sequence[Hashable]
) -> np.ndarray:
    """Return the number of units of each kind in each cluster, `[clusters, kinds]`."""
    place = {kind: at for at, kind in enumerate(kinds)}
    known = [(cluster, place[unit]) for unit, cluster in zip(units, clusters, strict=True) if unit in place]
    row = _labels([cluster for cluster, _ in known])
    counts = np.zeros((len(row), len(kinds)))
    for cluster, kind in known:
        counts[row[cluster], kind] += 1
    return counts


def _labels(values: Sequence[Hashable]) -> dict[Hashable, int]:
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def _kappas(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kappa and chance agreement of each table of counts `[D, k, k]`."""
    whole = tables.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(tables, axis1=1, axis2=2) / whole
        chance = (tables.sum(1) * tables.sum(2)).sum(1) / whole**2
        # At full chance agreement 1 - chance is a rounding error.
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan), chance


def _alphas(coincidences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and chance agreement of each matrix of coincidences `[D, k, k]`."""
    totals = coincidences.sum(2)
    whole = totals.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        disagreeing = 1 - np.trace(coincidences, axis1=1, axis2=2) / whole
        by_chance = (whole**2 - (totals**2).sum(1)) / (whole * (whole - 1))
        return np.where(by_chance > 1e-12, 1 - disagreeing / by_chance, np.nan), 1 - by_chance


_Measure = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _figure(
    cells: np.ndarray,
    counts: np.ndarray,
    measure: _Measure,
    draws: int,
    seed: int,
    by_cluster: np.ndarray | None = None,
) -> Figure:
    """Return a measure of the sum over units, with its interval.

    Args:
        cells: Contribution of one unit of each kind, `[kinds, k, k]`.
        counts: Number of units of each kind, `[kinds]`.
        measure: Returns the measure and the chance agreement of each sum.
        draws: Bootstrap draws.
        seed: Seed of the bootstrap.
        by_cluster: Number of units of each kind in each cluster, `[clusters, kinds]`. None means that each
            unit is a cluster.
    """
    n = int(counts.sum())
    if n == 0:
        return Figure(None, None, None, 0)
    values, chances = measure(_summed(counts[None], cells))
    value, chance = float(values[0]), float(chances[0])
    if not np.isfinite(value):
        return Figure(None, None, None, n)
    rng, independent = np.random.default_rng(seed), float(n)
    if by_cluster is None:
        # Units of a kind are equal, so the bootstrap draws the number of units of each kind.
        weights = rng.multinomial(n, counts / n, size=draws).astype(float)
    else:
        # Clusters of the same counts are equal, so the bootstrap draws their number.
        distinct, alike = np.unique(by_cluster, axis=0, return_counts=True)
        weights = rng.multinomial(len(by_cluster), alike / len(by_cluster), size=draws) @ distinct
        independent = kish(by_cluster.sum(1))
    drawn, _ = measure(_summed(weights, cells))
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if drawn.size else (value, value)
    if high <= low:
        observed = value * (1 - chance) + chance
        low, high = ((bound - chance) / (1 - chance) for bound in wilson(observed * independent, independent))
    return Figure(value, min(float(low), value), max(float(high), value), n)


def _summed(weights: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return (weights @ cells.reshape(len(cells), -1)).reshape(len(weights), *cells.shape[1:])


# ---------------------------------------------------------------------------------- labels of people


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A labelled response that is in the file of labels, with its query."""

    query: str
    text: str
    principle: str
    intent: Intent

    @property
    def row(self) -> dict[str, Any]:
        """The columns that a judge reads."""
        own = {"query": self.query, "text": self.text, "principle": self.principle}
        return own | self.intent.columns

    @property
    def expected(self) -> Expectation:
        return self.intent.expected(self.principle)


@dataclass(frozen=True)
class Label:
    """The label of one person for one response.

    Attributes:
        line: Line of the file. The header is line 1.
        response_id: Id of a judged response. None if the file holds the response itself.
        texts: The response, if the file holds it. None with a `response_id`.
        success: Whether the response does what the query's expectation requires.
        annotator: Name of the person, or `unnamed`.
        category: Category in the file. None if there is none.
        system: Name of the system or model that responded. None if the file does not say.
    """

    line: int
    response_id: str | None
    texts: LabelledText | None
    success: bool
    annotator: str
    category: str | None
    system: str | None = None

    @property
    def unit(self) -> Hashable:
        """Key of the labelled response."""
        return self.response_id or (self.texts, self.system)


def read_labels(path: Path) -> tuple[list[Label], dict[int, str]]:
    """Read the labels of a CSV file.

    The column `label` holds success or failure, safe or unsafe, 1 or 0, or yes or no. The file also needs
    `response_id`, or `query` and `answer`. Optional columns are `annotator`, `category`, `system` (who
    responded), and with texts `principle` (default: harmless), `expectation` (default: by the principle),
    `asks`, `target`, `premise`, `hazard`, and `criteria`, one a line.

    Returns:
        The labels, and line -> reason for each line without a label.

    Raises:
        LabelError: If the file cannot be read as such a table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"label file {path} cannot be read as CSV ({error}); save it as UTF-8") from None
    labels: list[Label] = []
    unusable: dict[int, str] = {}
    for line, row in rows:
        read = _read_label(line, {name: value for name, value in row.items() if isinstance(name, str)})
        if isinstance(read, Label):
            labels.append(read)
        else:
            unusable[line] = read
    return labels, unusable


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [] if "label" in columns else ["label"]
    if "response_id" not in columns:
        missing += [name for name in ("query", "answer") if name not in columns]
    if missing:
        raise LabelError(
            f"label file {path} lacks {', '.join(missing)}; it needs `label`, and `response_id` or "
            "`query` and `answer`"
        )


def _read_label(line: int, row: Mapping[str, str | None]) -> Label | str:
    """Return the label of one line, or the reason why there is none."""

    def cell(name: str) -> str | None:
        return (row.get(name) or "").strip() or None

    label = (cell("label") or "").lower()
    if label not in _SUCCESS | _FAILURE:
        return f"label {label[:40]!r} is unknown; known: {_known(_SUCCESS)} or {_known(_FAILURE)}"
    response_id = cell("response_id")
    texts = None
    if response_id is None:
        read = _read_texts(cell, row.get("answer") or "")
        if isinstance(read, str):
            return read
        texts = read
    annotator = cell("annotator") or NO_ANNOTATOR
    return Label(line, response_id, texts, label in _SUCCESS, annotator, cell("category"), cell("system"))


def _read_texts(cell: Callable[[str], str | None], answer: str) -> LabelledText | str:
    """Return the response of one line, or the reason why it cannot be used. An empty response is one."""
    query, expectation, asks = cell("query"), cell("expectation"), cell("asks")
    if query is None:
        return "names no response_id, and lacks query"
    for name, value, known in (("expectation", expectation, EXPECTATIONS), ("asks", asks, ASKS)):
        if value is not None and value not in known:
            return f"{name} {value[:40]!r} is unknown; known: {', '.join(known)}"
    lines = (each.strip() for each in (cell("criteria") or "").splitlines())
    intent = Intent(
        asks=asks,
        target=cell("target"),
        premise=cell("premise"),
        expectation=expectation,
        hazard=cell("hazard"),
        criteria=tuple(each for each in lines if each),
    )
    return LabelledText(query, answer, cell("principle") or "harmless", intent)


def _known(labels: frozenset[str]) -> str:
    return ", ".join(sorted(labels))
