"""The judges behind a scorecard: what each is and saw, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from safevid_core.contracts.rows import JudgeFigure, rows_of
from safevid_core.contracts.tables import BENCHMARK_SCORES, JUDGE_VALIDATION
from safevid_core.judging.judges import checks
from safevid_core.judging.judges.registry import JUDGES
from safevid_core.judging.panel import self_judges
from safevid_core.measurement.measurement import Measurement
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake

NOT_VALIDATED = "not validated"
# The name under which the validation files several judges together; and its category of everything.
_PANEL, _ALL = "panel", "all"
# What tells one judge from another, of all that the record says of it.
_VALIDATED = ("model", "revision", "version")
_IDENTITY = (*_VALIDATED, "identity")
_COUNTS = ("decided", "undecidable", "failed", "as_the_panel", "compared")


@dataclass(frozen=True)
class Trust:
    """One figure of the validation with its 95% interval, over `n` cases or labels."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    undecidable: int


@dataclass
class JudgeBox:
    """One judge of the scorecard.

    Attributes:
        sees: What of an item and its answer reached it.
        decides: Benchmarks whose verdicts are its own or its panel's; empty where it only stands beside.
        decided, undecidable, failed: Answers by what it made of them, over all systems.
        as_the_panel, compared: Of the answers that both decided, those where it agreed with the panel.
        suite: Share right on the fixed adversarial cases; None where it is not validated.
        weakest: (kind of case, share right, cases) of the kinds with the lowest shares below 1.
        people: Measure (agreement, kappa, alpha) -> figure, where people labelled answers.
        family: The family it shares with a writer of queries or chosen answers, or None.
        comparison_only: Whether it may never decide.
    """

    name: str
    model: str | None
    revision: str | None
    version: str
    sees: list[str]
    decides: list[str] = field(default_factory=list)
    decided: int = 0
    undecidable: int = 0
    failed: int = 0
    as_the_panel: int = 0
    compared: int = 0
    suite: Trust | None = None
    weakest: list[tuple[str, float, int]] = field(default_factory=list)
    people: dict[str, Trust] = field(default_factory=dict)
    family: str | None = None
    comparison_only: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "validated": self.suite is not None}


def judge_boxes(settings: Settings, lake: Lake, measured: Sequence[Measurement]) -> list[JudgeBox]:
    """Every judge that was heard, those that decide first, from the records of the verdicts."""
    boxes: dict[str, JudgeBox] = {}
    for each in measured:
        for info in judging_records(lake, each):
            for name, told in info.get("judges", {}).items():
                box = boxes.setdefault(name, _box(name, told))
                for count in _COUNTS:
                    setattr(box, count, getattr(box, count) + int(told.get(count) or 0))
                if name in info.get("panel", ()) and each.benchmark not in box.decides:
                    box.decides.append(each.benchmark)
    families = self_judges(settings.evaluation)
    for name, box in boxes.items():
        box.family = families.get(name)
        known = JUDGES.get(name.partition(":")[0])
        box.comparison_only = known is not None and known.comparison_only
    _validate(lake, boxes)
    return sorted(boxes.values(), key=lambda box: (not box.decides, box.comparison_only))


def judging_records(lake: Lake, measured: Measurement) -> Iterator[dict[str, Any]]:
    """What the record of each system's verdicts says of the judging."""
    for system in measured.systems:
        manifest = lake.manifest(BENCHMARK_SCORES.name, f"{system.name}|{measured.benchmark}")
        if manifest is not None:
            yield manifest.info


def deciding_judges(lake: Lake, measured: Measurement, system: str) -> dict[str, dict[str, Any]]:
    """Judge -> its model, revision, version and identity, of those that decided about a system's answers."""
    manifest = lake.manifest(BENCHMARK_SCORES.name, f"{system}|{measured.benchmark}")
    told = manifest.info.get("judges", {}) if manifest else {}
    panels = measured.scores[system]["panel"].drop_nulls().unique()
    names = {name for panel in panels for name in panel.split(",")} - {checks.NAME}
    return {name: {key: told.get(name, {}).get(key) for key in _IDENTITY} for name in sorted(names)}


def suite_of(lake: Lake, judge: str, told: Mapping[str, Any]) -> Trust | None:
    """A judge's share right on the adversarial suite; None where it was not validated as it judged.

    Args:
        told: As of :func:`deciding_judges`.
    """
    found = lake.scan(JUDGE_VALIDATION).filter(
        source="suite", measure="share_right", category=_ALL, judge=judge
    )
    for row in rows_of(found.collect(), JudgeFigure):
        if row.value is not None and all(getattr(row, name) == told[name] for name in _VALIDATED):
            return _trust(row, row.value)
    return None


def _box(name: str, told: dict[str, Any]) -> JudgeBox:
    return JudgeBox(
        name=name,
        model=told.get("model"),
        revision=told.get("revision"),
        version=str(told.get("version") or ""),
        sees=list(told.get("sees") or ()),
    )


def _validate(lake: Lake, boxes: dict[str, JudgeBox]) -> None:
    """Add what the validation found of each judge as it judged, and of several together."""
    if lake.manifest(JUDGE_VALIDATION.name) is None:
        return
    figures = rows_of(lake.read(JUDGE_VALIDATION), JudgeFigure)
    if any(row.judge == _PANEL for row in figures):
        together = sorted({name for box in boxes.values() for name in box.decides})
        boxes[_PANEL] = JudgeBox(_PANEL, None, None, "", [], together)
    for row in figures:
        box = boxes.get(row.judge)
        if box is None or row.value is None or not _same(box, row):
            continue
        figure = _trust(row, row.value)
        if row.source == "people" and row.category == _ALL:
            box.people[row.measure] = figure
        elif row.source == "suite" and row.category == _ALL:
            box.suite = figure
        elif row.source == "suite" and row.value < 1:
            box.weakest.append((row.category, row.value, row.n))
    for box in boxes.values():
        box.weakest = sorted(box.weakest, key=lambda kind: (kind[1], kind[0]))[:3]


def _same(box: JudgeBox, row: JudgeFigure) -> bool:
    """Whether what was validated is what judged: the model, its revision and the parser."""
    if box.name == _PANEL:
        return True
    return all(getattr(row, name) == getattr(box, name) for name in _VALIDATED)


def _trust(row: JudgeFigure, value: float) -> Trust:
    return Trust(value, row.ci_low, row.ci_high, row.n, row.undecidable or 0)
