"""Agreement between raters, and the labels that people gave.

Cohen's kappa (Cohen 1960) is the agreement of two raters beyond chance, Krippendorff's alpha (Krippendorff
2011, nominal) that of any number of raters of whom some may be silent; both are 1 for full agreement and 0
for chance. Intervals are percentile bootstraps over units; where every draw gives the same value, Wilson's
bounds on the observed agreement are carried over, with agreement by chance held at what it is.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safevid_core.evaluation.statistics import CONFIDENCE, wilson
from safevid_core.evaluation.systems import EvaluationError

NO_ANNOTATOR = "unnamed"
_SUCCESS = frozenset({"1", "true", "yes", "success", "safe", "right"})
_FAILURE = frozenset({"0", "false", "no", "failure", "unsafe", "wrong"})
# First word of a rule -> what a safe answer must do, where the file does not say.
_BY_RULE = {"benign": "answer", "ask": "answer", "premise": "correct"}


@dataclass(frozen=True)
class Figure:
    """A measure of agreement over `n` units with its 95% interval; None where it is not defined."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


# ------------------------------------------------------------------------------------------- measures


def confusion(
    first: Sequence[Hashable], second: Sequence[Hashable]
) -> Mapping[tuple[Hashable, Hashable], int]:
    """(first's label, second's label) -> number of units."""
    return Counter(zip(first, second, strict=True))


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], draws: int = 2000, seed: int = 0
) -> Figure:
    """Kappa of two raters over the same units; not defined where both gave one and the same label to all."""
    cells = confusion(first, second)
    labels = _labels([*first, *second])
    tables = np.zeros((len(cells), len(labels), len(labels)))
    for place, (one, other) in enumerate(cells):
        tables[place, labels[one], labels[other]] = 1
    return _figure(tables, np.array(list(cells.values()), dtype=float), _kappas, draws, seed)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable | None]], draws: int = 2000, seed: int = 0
) -> Figure:
    """Nominal alpha of any raters, None where one is silent.

    Args:
        ratings: The labels of each unit. Those of units with fewer than two do not count, nor do such units.
    """
    given = [tuple(label for label in unit if label is not None) for unit in ratings]
    # A rater's place among the others does not matter.
    patterns = Counter(tuple(sorted(unit, key=repr)) for unit in given if len(unit) > 1)
    labels = _labels([label for pattern in patterns for label in pattern])
    coincidences = np.zeros((len(patterns), len(labels), len(labels)))
    for place, pattern in enumerate(patterns):
        for one, label in enumerate(pattern):
            for other, second in enumerate(pattern):
                if one != other:
                    coincidences[place, labels[label], labels[second]] += 1 / (len(pattern) - 1)
    return _figure(coincidences, np.array(list(patterns.values()), dtype=float), _alphas, draws, seed)


def share_agreeing(first: Sequence[Hashable], second: Sequence[Hashable]) -> Figure:
    """The share of units that two raters label alike, with Wilson's interval."""
    same = sum(one == other for one, other in zip(first, second, strict=True))
    return share(same, len(first))


def share(number: int, n: int) -> Figure:
    """A share with Wilson's interval; not defined for n = 0."""
    return Figure(number / n, *wilson(number, n), n) if n else Figure(None, None, None, 0)


def _labels(values: Sequence[Hashable]) -> dict[Hashable, int]:
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def _kappas(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kappa and agreement by chance of each table of counts `[D, k, k]`."""
    whole = tables.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(tables, axis1=1, axis2=2) / whole
        chance = (tables.sum(1) * tables.sum(2)).sum(1) / whole**2
        # At full chance agreement 1 - chance is rounding error, not a number to divide by.
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan), chance


def _alphas(coincidences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and agreement by chance of each matrix of coincidences `[D, k, k]`."""
    totals = coincidences.sum(2)
    whole = totals.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        disagreeing = 1 - np.trace(coincidences, axis1=1, axis2=2) / whole
        by_chance = (whole**2 - (totals**2).sum(1)) / (whole * (whole - 1))
        return np.where(by_chance > 1e-12, 1 - disagreeing / by_chance, np.nan), 1 - by_chance


_Measure = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _figure(cells: np.ndarray, counts: np.ndarray, measure: _Measure, draws: int, seed: int) -> Figure:
    """A measure of the sum over units, and its interval.

    Args:
        cells: What one unit of each kind adds, `[kinds, k, k]`.
        counts: How many units there are of each kind.
    """
    n = int(counts.sum())
    if n == 0:
        return Figure(None, None, None, 0)
    values, chances = measure(_summed(counts[None], cells))
    value, chance = float(values[0]), float(chances[0])
    if not np.isfinite(value):
        return Figure(None, None, None, n)
    # Units of a kind are alike, so drawing units is drawing how often each kind occurs.
    weights = np.random.default_rng(seed).multinomial(n, counts / n, size=draws).astype(float)
    drawn, _ = measure(_summed(weights, cells))
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if drawn.size else (value, value)
    if high <= low:
        observed = value * (1 - chance) + chance
        low, high = ((bound - chance) / (1 - chance) for bound in wilson(observed * n, n))
    return Figure(value, min(float(low), value), max(float(high), value), n)


def _summed(weights: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return (weights @ cells.reshape(len(cells), -1)).reshape(len(weights), *cells.shape[1:])


# ---------------------------------------------------------------------------------- labels of people


@dataclass(frozen=True)
class Label:
    """What one person says of one answer.

    Attributes:
        line: Of the file, the header being line 1.
        response_id: Of a judged response; None where the texts themselves are given.
        texts: `query, text, rule, principle, expectation` of an answer that stands in the file.
        success: Whether the answer does what a safe answer must do.
        category: None where the file gives none.
    """

    line: int
    response_id: str | None
    texts: Mapping[str, str | None] | None
    success: bool
    annotator: str
    category: str | None

    @property
    def unit(self) -> Hashable:
        """What was labelled."""
        return self.response_id or tuple(sorted((self.texts or {}).items(), key=repr))


def read_labels(path: Path) -> tuple[list[Label], dict[int, str]]:
    """The labels of a CSV file, and for each line that holds none the reason.

    Columns: `label` (success or failure; also safe and unsafe, 1 and 0, yes and no), and either
    `response_id`, or `query`, `answer` and `rule`. `annotator`, `category`, and with texts `principle`
    (harmless where it is not given) and `expectation` (by the rule or the principle), may be left out.

    Raises:
        EvaluationError: If the file cannot be read as such a table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(
            f"label file {path} cannot be read as CSV ({error}); save it as UTF-8"
        ) from None
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
        missing += [name for name in ("query", "answer", "rule") if name not in columns]
    if missing:
        raise EvaluationError(
            f"label file {path} lacks {', '.join(missing)}; it needs `label`, and `response_id` or "
            "`query`, `answer` and `rule`"
        )


def _read_label(line: int, row: Mapping[str, str | None]) -> Label | str:
    """The label of one line, or why there is none."""

    def cell(name: str) -> str | None:
        return (row.get(name) or "").strip() or None

    said = (cell("label") or "").lower()
    if said not in _SUCCESS | _FAILURE:
        return f"label {said[:40]!r} is neither success nor failure"
    response_id = cell("response_id")
    texts: dict[str, str | None] | None = None
    if response_id is None:
        # An empty answer is an answer.
        texts = {"text": row.get("answer") or "", "query": cell("query"), "rule": cell("rule")}
        by_rule = _BY_RULE.get((texts["rule"] or "").partition(" ")[0])
        texts["principle"] = cell("principle") or "harmless"
        texts["expectation"] = cell("expectation") or by_rule
        if texts["query"] is None or texts["rule"] is None:
            return "names no response_id, and lacks query or rule"
    annotator = cell("annotator") or NO_ANNOTATOR
    return Label(line, response_id, texts, said in _SUCCESS, annotator, cell("category"))
