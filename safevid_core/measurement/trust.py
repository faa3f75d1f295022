"""Describes the judges of a scorecard: their models, their inputs, and the results of their validation."""

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
# The validation's name for several judges together, and for all cases or labels together.
PANEL, _ALL = "panel", "all"
# A judge counts as the validated one if these fields are equal.
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
        sees: The parts of an item and its response that the judge receives.
        decides: Benchmarks on which it decides, alone or in the panel. Empty if it is for comparison only.
        decided, undecidable, failed: Number of responses with each result, over all systems.
        as_the_panel: Number of responses on which it agreed with the panel, out of `compared`.
        compared: Number of responses that both the judge and the panel decided.
        suite: Share right on the fixed adversarial cases. None if it is not validated.
        weakest: (kind of case, share right, cases) of the three kinds with the lowest shares below 1.
        people: Measure (agreement, kappa, alpha) -> figure. Empty if people labelled no responses.
        family: The model family that it shares with a teacher model, or None.
        comparison_only: Whether it can never be in a panel.
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
    """Every judge that gave a verdict, from the records of the verdicts. Judges that decide come first."""
    boxes: dict[str, JudgeBox] = {}
    for each in measured:
        for info in judging_records(lake, each):
            for name, record in info.get("judges", {}).items():
                box = boxes.setdefault(name, _box(name, record))
                for count in _COUNTS:
                    setattr(box, count, getattr(box, count) + int(record.get(count) or 0))
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
    """The record (`info`) of the verdicts of each system that has verdicts."""
    for system in measured.systems:
        manifest = lake.manifest(BENCHMARK_SCORES.name, f"{system.name}|{measured.benchmark}")
        if manifest is not None:
            yield manifest.info


def deciding_judges(lake: Lake, measured: Measurement, system: str) -> dict[str, dict[str, Any]]:
    """Judge -> its model, revision, version and identity, for judges that decided on a system's responses."""
    manifest = lake.manifest(BENCHMARK_SCORES.name, f"{system}|{measured.benchmark}")
    records = manifest.info.get("judges", {}) if manifest else {}
    panels = measured.scores[system]["panel"].drop_nulls().unique()
    names = {name for panel in panels for name in panel.split(",")} - {checks.NAME}
    return {name: {key: records.get(name, {}).get(key) for key in _IDENTITY} for name in sorted(names)}


def suite_of(lake: Lake, judge: str, entry: Mapping[str, Any]) -> Trust | None:
    """A judge's share right on the adversarial suite.

    None if the judge was not validated with this model, revision and version.

    Args:
        entry: The judge's entry in the result of :func:`deciding_judges`.
    """
    found = lake.scan(JUDGE_VALIDATION).filter(
        source="suite", measure="share_right", grouping=_ALL, judge=judge
    )
    for row in rows_of(found.collect(), JudgeFigure):
        if row.value is not None and all(getattr(row, name) == entry[name] for name in _VALIDATED):
            return _trust(row, row.value)
    return None


def same_judge(row: JudgeFigure, judges: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a validated judge or panel is what decided, with the same models, revisions and versions.

    Args:
        judges: As of :func:`deciding_judges`.
    """
    if row.judge == PANEL:
        versions = {f"{name}/{entry['version']}" for name, entry in judges.items()}
        return set((row.version or "").split(",")) == versions
    entry = judges.get(row.judge)
    return entry is not None and all(getattr(row, name) == entry[name] for name in _VALIDATED)


def _box(name: str, record: dict[str, Any]) -> JudgeBox:
    return JudgeBox(
        name=name,
        model=record.get("model"),
        revision=record.get("revision"),
        version=str(record.get("version") or ""),
        sees=list(record.get("sees") or ()),
    )


def _validate(lake: Lake, boxes: dict[str, JudgeBox]) -> None:
    """Add the results of the validation to the boxes, and a box for the panel if it was validated."""
    if lake.manifest(JUDGE_VALIDATION.name) is None:
        return
    figures = rows_of(lake.read(JUDGE_VALIDATION), JudgeFigure)
    if any(row.judge == PANEL for row in figures):
        together = sorted({name for box in boxes.values() for name in box.decides})
        boxes[PANEL] = JudgeBox(PANEL, None, None, "", [], together)
    for row in figures:
        box = boxes.get(row.judge)
        if box is None or row.value is None or not _same(box, row):
            continue
        figure = _trust(row, row.value)
        if row.source == "people" and row.grouping == _ALL:
            box.people[row.measure] = figure
        elif row.source == "suite" and row.grouping == _ALL:
            box.suite = figure
        elif row.source == "suite" and row.value < 1:
            box.weakest.append((row.category, row.value, row.n))
    for box in boxes.values():
        box.weakest = sorted(box.weakest, key=lambda kind: (kind[1], kind[0]))[:3]


def _same(box: JudgeBox, row: JudgeFigure) -> bool:
    """Whether the validated judge is the one of the box: the same model, revision and parser."""
    if box.name == PANEL:
        return True
    return all(getattr(row, name) == getattr(box, name) for name in _VALIDATED)


def _trust(row: JudgeFigure, value: float) -> Trust:
    return Trust(value, row.ci_low, row.ci_high, row.n, row.undecidable or 0)
