"""Time of the validation of eight judges on 4,000 labelled answers, and what the judges of MSTS come to.

The figures of every judge (agreement, kappa, alpha, prevalence, precision, recall, specificity, F1, each
with its interval) are made over all answers, by taxonomy and by answering model. With the file
`msts_english_6_models.csv` (columns `model, final_label, final_taxonomy` and
`judge:NAME`, one a judge) in the folder of `--labels`, else of `SAFEVID_LABELS`, else in
`../shared/data/labels` beside the checkout, the answers are drawn from it with replacement; without it they
are random. The goal is 5 s. The peer is scikit-learn's `precision_recall_fscore_support` and
`cohen_kappa_score` with a bootstrap of 200 draws in a loop, which is timed where scikit-learn is installed.

Run with ``python -m benchmarks.judge_labels``.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import print_result
from safevid_core.judging.people import ALL, Rated, groups, measures, rated
from safevid_core.statistics.agreement import Figure

ANSWERS, JUDGES, GOAL_S = 4_000, 8, 5.0
PEER_DRAWS = 200
FOLDER = Path(__file__).parents[2] / "shared" / "data" / "labels"
FILE = "msts_english_6_models.csv"
_JUDGE = "judge:"
# What a judge's stored verdict says. Other words, such as "unsupported", are no verdict.
_SUCCESS = {"safe": True, "unsafe": False}

Said = dict[Hashable, dict[str, bool | None]]


def read_msts(path: Path) -> tuple[list[Rated], Said]:
    """The labelled answers of MSTS, and the stored verdicts of eight judges on each."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    units: list[Rated] = []
    said: Said = {}
    for row in rows:
        unit = (row["case_id"], row["prompt_type"], row["prompt_text"], row["model"])
        # The adjudicated label is that of all people together.
        safe = row["final_label"] == "1 - safe"
        units.append(
            rated(unit, [safe], category=row["final_taxonomy"], system=row["model"], expected="rebut")
        )
        said[unit] = {
            name.removeprefix(_JUDGE): _SUCCESS.get(verdict)
            for name, verdict in row.items()
            if name.startswith(_JUDGE)
        }
    return units, said


def all_figures(
    units: Sequence[Rated], said: Mapping[Hashable, Mapping[str, bool | None]]
) -> list[tuple[str, str, str, str, Figure]]:
    """(judge, grouping, name, measure, figure) of every judge and group."""
    judges = list(next(iter(said.values())))
    return [
        (judge, grouping, name, measure, figure)
        for grouping, name, some in groups(units)
        for judge in judges
        for measure, figure, _, _ in measures(judge, some, said)
    ]


def drawn(units: Sequence[Rated], said: Said, n: int) -> tuple[list[Rated], Said]:
    """`n` answers drawn with replacement, each with a key of its own."""
    places = np.random.default_rng(0).integers(0, len(units), n)
    chosen = [units[place] for place in places]
    renamed = [Rated(place, *_rest(unit)) for place, unit in enumerate(chosen)]
    return renamed, {place: said[unit.unit] for place, unit in enumerate(chosen)}


def made_up(n: int) -> tuple[list[Rated], Said]:
    """`n` random answers of ten systems in eleven categories, 6% of them unsafe."""
    rng = np.random.default_rng(0)
    units: list[Rated] = []
    said: Said = {}
    for unit in range(n):
        safe = bool(rng.random() > 0.06)
        category, system = (
            f"{word} {rng.integers(number)}" for word, number in (("type", 11), ("model", 10))
        )
        units.append(rated(unit, [safe], category=category, system=system, expected="rebut"))
        said[unit] = {f"judge {judge}": safe != bool(rng.random() < 0.1) for judge in range(JUDGES)}
    return units, said


def peer_seconds(units: Sequence[Rated], said: Said) -> float | None:
    """Seconds of scikit-learn in a bootstrap loop, over all answers alone; None if it is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        return None
    from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

    people = np.array([not unit.success for unit in units])
    rng, start = np.random.default_rng(0), time.perf_counter()
    for judge in next(iter(said.values())):
        flagged = np.array([said[unit.unit][judge] is False for unit in units])
        for _ in range(PEER_DRAWS):
            places = rng.integers(0, len(people), len(people))
            precision_recall_fscore_support(
                people[places], flagged[places], average="binary", zero_division=0
            )
            cohen_kappa_score(people[places], flagged[places])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, default=Path(os.environ.get("SAFEVID_LABELS", FOLDER)))
    path = parser.parse_args().labels / FILE
    cases: list[dict[str, Any]] = []
    if path.is_file():
        units, said = read_msts(path)
        for judge, grouping, _, measure, figure in all_figures(units, said):
            if grouping == ALL:
                cases.append({"case": f"{judge}: {measure}", **_rounded(figure)})
        units, said = drawn(units, said, ANSWERS)
    else:
        units, said = made_up(ANSWERS)
    start = time.perf_counter()
    figures = all_figures(units, said)
    seconds = time.perf_counter() - start
    peers = {"goal": GOAL_S, "scikit-learn, all answers alone": peer_seconds(units, said)}
    cases.append({"case": f"{len(figures)} figures, s", "ours": round(seconds, 2), "peers": peers})
    print_result("judge_labels", "s", ANSWERS, cases, round(GOAL_S / seconds, 1), judges=JUDGES)


def _rest(unit: Rated) -> tuple[Any, ...]:
    return unit.category, unit.system, unit.metric, unit.labels, unit.success


def _rounded(figure: Figure) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value, 3)
        for name, value in (
            ("ours", figure.value), ("ci_low", figure.ci_low), ("ci_high", figure.ci_high), ("n", figure.n),
        )
    }  # fmt: skip


if __name__ == "__main__":
    main()
