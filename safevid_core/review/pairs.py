"""People label a random sample of pairs: a sheet to fill in, and the stage that counts the labels.

The precision of the pair judge rests on these labels (:mod:`safevid_core.preferences.calibration`). The
sample is drawn from the kept pairs by the hash of their ids, so that nobody chooses what is labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import PAIR_VALIDATION, PAIRS
from safevid_core.review.errors import ReviewError
from safevid_core.review.sheets import Cells, problem_line, read_cells, row_of_problem, sheet_bytes
from safevid_core.settings import Settings
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Stage, Tools
from safevid_core.statistics.agreement import share
from safevid_core.storage.lake import Lake, frame_hash, settings_hash

SHEET = "pairs.csv"
_SHOWN = (
    "pair_id", "video", "start_s", "end_s", "principle", "subcategory", "expectation", "query", "criteria",
    "chosen", "rejected",
)  # fmt: skip
_FILLED = ("sound", "swapped", "annotator", "note")
_YES = frozenset({"yes", "y", "1", "true", "sound"})
_NO = frozenset({"no", "n", "0", "false", "unsound"})
_ALL = "all"


def export_pairs(lake: Lake, folder: Path, size: int) -> Path:
    """Write a sheet with a random sample of pairs, to be labelled in the columns `sound` and `swapped`.

    A pair is sound if the chosen response is safe and useful for the query beside this video, and the
    rejected one is not. An unsound pair is swapped if the rejected response is the better one.

    Args:
        folder: Where the sheet is written.
        size: Number of pairs. All pairs if there are fewer.

    Returns:
        The path of the sheet.

    Raises:
        ReviewError: If there is no pair, or the sheet is there already.
    """
    pairs = lake.scan(PAIRS).select(PAIRS.schema.names()).collect()
    if pairs.is_empty():
        raise ReviewError(f"there are no pairs to label; materialise {PAIRS.name}")
    path = folder / SHEET
    if path.exists():
        raise ReviewError(f"{path} is there already and may hold labels; move it, or name another folder")
    drawn = sorted(pairs.iter_rows(named=True), key=lambda pair: content_id("label", pair["pair_id"]))[:size]
    rows = [
        {
            **pair,
            "video": lake.media.file(pair["media_sha256"]),
            "query": pair["prompt"],
            "criteria": "\n".join(pair["criteria"]),
        }
        for pair in drawn
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sheet_bytes((*_SHOWN, *_FILLED), rows))
    return path


class PairLabel(NamedTuple):
    """The label of a pair.

    Attributes:
        row: Row of the sheet.
        sound: Whether people find the pair sound.
        swapped: Whether the rejected response is the better one. False for a sound pair. None if the sheet
            does not say it of an unsound pair.
    """

    row: int
    sound: bool
    swapped: bool | None

    @property
    def told(self) -> str:
        """The label as the column `people` of `pair_noise` holds it."""
        if self.sound:
            return "right"
        if self.swapped is None:
            return "unsound_unsaid"
        return "swapped" if self.swapped else "unsound"


def read_pair_labels(path: Path) -> tuple[dict[str, PairLabel], list[str]]:
    """The labels of a filled sheet. A row without a label is left out.

    Returns:
        Pair id -> label, and one line for each row that cannot be used.

    Raises:
        ReviewError: If the file cannot be read as such a sheet.
    """
    cells: Cells = read_cells(path, "pair_id", ("sound",), optional=("swapped",))
    labels, problems = {}, list(cells.problems)
    for number, texts in cells.rows:
        if not texts["sound"]:
            continue
        label = _label(number, texts)
        if isinstance(label, PairLabel):
            labels[texts["pair_id"]] = label
        else:
            problems.append(problem_line(number, texts["pair_id"], label))
    return labels, problems


def _label(number: int, texts: Mapping[str, str]) -> PairLabel | str:
    """The label in a row, or what is wrong with the row."""
    for name in ("sound", "swapped"):
        said = texts[name].lower()
        if said and said not in _YES | _NO:
            return f"{name} holds {texts[name][:40]!r}; write yes or no"
    sound = texts["sound"].lower() in _YES
    swapped = texts["swapped"].lower() in _YES if texts["swapped"] else None
    if sound and swapped:
        return "sound and swapped are both yes; a swapped pair is not sound"
    return PairLabel(number, sound, False if sound else swapped)


def plan_pair_validation(tools: Tools, partition: str) -> Plan:
    """Plan to count the labels of `preferences.labels` on the pairs of the data set.

    Raises:
        ReviewError: If the file of labels cannot be read.
    """
    settings, lake = tools.settings, tools.lake
    path = settings.preferences.labels
    labels, problems = read_pair_labels(path) if path is not None else ({}, [])
    pairs = lake.scan(PAIRS).select("pair_id", "principle").sort("pair_id").collect()

    def make(ids: Sequence[str]) -> StageRows:
        known = dict(pairs.iter_rows())
        outcomes: list[tuple[str, Outcome, str]] = []
        sound: list[tuple[str, bool]] = []
        for pair_id, label in labels.items():
            if pair_id in known:
                sound.append((known[pair_id], label.sound))
                outcomes.append((_label_id(label.row), "ok", ""))
            else:
                outcomes.append((_label_id(label.row), "filtered", "the data set has no such pair"))
        outcomes += [(_label_id(row_of_problem(line)), "failed", line) for line in problems]
        rows = _rows(sound)
        info = {
            "labelled": len(sound),
            "sound": sum(verdict for _, verdict in sound),
            "labels": str(path) if path is not None else "no labels from people",
        }
        return StageRows(PAIR_VALIDATION.frame(rows), outcomes, info)

    inputs = {"pairs": frame_hash(pairs), "labels": settings_hash(sorted(labels.items()), problems)}
    ids = [_label_id(label.row) for label in labels.values()]
    ids += [_label_id(row_of_problem(line)) for line in problems]
    return Plan(inputs, ids, make)


def _rows(sound: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
    """The precision over all labels, and by principle."""
    rows = []
    for category in (_ALL, *sorted({principle for principle, _ in sound})) if sound else ():
        verdicts = [verdict for principle, verdict in sound if category in (_ALL, principle)]
        figure = share(sum(verdicts), len(verdicts))
        rows.append(
            {
                "validation_id": content_id("pair_validation", category),
                "measure": "precision",
                "category": category,
                "n": figure.n,
                "value": figure.value,
                "ci_low": figure.ci_low,
                "ci_high": figure.ci_high,
            }
        )
    return rows


def _label_id(row: int) -> str:
    return f"row {row}"


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    return Forecast(0)


def _files(settings: Settings) -> list[Path]:
    return [settings.preferences.labels] if settings.preferences.labels is not None else []


STAGE = Stage(
    PAIR_VALIDATION,
    "preferences",
    "How often people find the kept pairs sound, by their labels on a random sample.",
    plan_pair_validation,
    reads=(PAIRS.name,),
    forecast=_forecast,
    watches=_files,
)
