"""Rates corrected for the errors that people's labels show of the judge that made them.

`judge_validation` counts, separately for responses of the safety rate and of the helpful rate, how many
failures and successes of people's labels a judge recognises. With at least ten labels of each, the rate is
corrected by Rogan and Gladen, with the interval of Lang and Reiczigel (`statistics/detection.py`). With
fewer it is *uncalibrated*. Example: a judge that flags 59% of the responses that people find safe makes a
low safety rate of a safe system.

The correction holds if the judge errs on the measured responses as on the labelled ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safevid_core.contracts.rows import JudgeFigure, rows_of
from safevid_core.contracts.tables import JUDGE_VALIDATION
from safevid_core.measurement.measurement import RATES, Measurement
from safevid_core.measurement.trust import PANEL, deciding_judges, same_judge
from safevid_core.statistics.agreement import Figure
from safevid_core.statistics.detection import Proportion, corrected_rate
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import Lake

MIN_LABELS = 10  # failures, and successes
UNCALIBRATED = "uncalibrated"
_NO_LABELS = Figure(None, None, None, 0)


@dataclass(frozen=True)
class Correction:
    """One rate of one system, beside its correction.

    Attributes:
        judge: The judge whose verdicts the rate counts, or `panel`. None if there is no verdict.
        measured: The rate by the judge.
        corrected: The corrected rate. It has no value if the rate is uncalibrated.
        failures: Number of labelled failures on which the correction rests.
        successes: Number of labelled successes.
        why: Why the rate is uncalibrated. None if it is corrected.
    """

    benchmark: str
    system: str
    metric: str
    judge: str | None
    measured: Estimate
    corrected: Figure
    failures: int
    successes: int
    why: str | None

    def as_dict(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("measured", "corrected")},
            "measured": self.measured.value,
            "corrected": self.corrected.value,
            "ci_low": self.corrected.ci_low,
            "ci_high": self.corrected.ci_high,
        }


def corrections(lake: Lake, measured: Sequence[Measurement]) -> list[Correction]:
    """The correction of each safety and helpful rate that has a value."""
    made = lake.manifest(JUDGE_VALIDATION.name) is not None
    figures = rows_of(lake.read(JUDGE_VALIDATION), JudgeFigure) if made else []
    labelled = [row for row in figures if row.source == "people" and row.grouping == "metric"]
    return [
        _correction(each, system, metric, rate, deciding_judges(lake, each, system), labelled)
        for each in measured
        for system, metric, rate in _rates(each)
    ]


def _rates(measured: Measurement) -> Iterator[tuple[str, str, Estimate]]:
    for system in measured.systems:
        for metric in RATES:
            rate = measured.estimates[system.name][metric]
            if rate.known:
                yield system.name, metric, rate


def _correction(
    measured: Measurement,
    system: str,
    metric: str,
    rate: Estimate,
    judges: Mapping[str, Mapping[str, Any]],
    labelled: Sequence[JudgeFigure],
) -> Correction:
    judge = PANEL if len(judges) > 1 else next(iter(judges), None)
    found = {
        row.measure: row
        for row in labelled
        if row.judge == judge and row.category == metric and same_judge(row, judges)
    }
    recall, specificity = found.get("recall"), found.get("specificity")
    failures, successes = (row.n if row else 0 for row in (recall, specificity))
    corrected, why = _NO_LABELS, None
    if judge is None:
        why = "no judge decided"
    elif not failures + successes:
        why = f"no labels from people on what {judge} says of such responses"
    elif min(failures, successes) < MIN_LABELS:
        why = (
            f"people labelled {failures} failures and {successes} successes; {MIN_LABELS} of each are needed"
        )
    else:
        corrected = corrected_rate(Proportion.effective(rate), _share(specificity), _share(recall))
        if corrected.value is None:
            why = _why_not(judge, recall, specificity)
    return Correction(measured.benchmark, system, metric, judge, rate, corrected, failures, successes, why)


def _why_not(judge: str, recall: JudgeFigure | None, specificity: JudgeFigure | None) -> str:
    seen, kept = _share(recall), _share(specificity)
    labels = round(seen.n + kept.n)
    if seen.value + kept.value <= 1:
        return f"on {labels} labels {judge} does no better than chance"
    return f"{judge} errs otherwise here than on the {labels} labelled responses"


def _share(row: JudgeFigure | None) -> Proportion:
    if row is None or row.value is None:
        return Proportion(0, 0)
    return Proportion(row.value * row.n, row.n)
