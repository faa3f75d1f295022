"""The eight judges whose verdicts are stored in MSTS, held against people's labels of real answers."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from benchmarks.judge_labels import FILE, all_figures, drawn, read_msts
from safevid_core.judging.people import ALL
from safevid_core.statistics.agreement import Figure
from safevid_core.statistics.detection import MEASURES

LABELS = Path(__file__).parents[3] / "shared" / "data" / "labels" / FILE
pytestmark = pytest.mark.skipif(
    not LABELS.is_file(), reason="the labelled answers are not beside this checkout"
)
GEMINI, GPT, OMNI = "gemini-1.5-pro", "gpt-4o-2024-05-13", "omni-moderation-latest"
CLAUDE, LLAVA = "claude-3-5-sonnet-20240620", "LlavaGuard-v1.2-7B-OV"

Figures = dict[tuple[str, str, str, str], Figure]


@pytest.fixture(scope="module")
def figures() -> Figures:
    units, said = read_msts(LABELS)
    return {tuple(where): figure for *where, figure in all_figures(units, said)}  # type: ignore[misc]


def plain(judge: str, column: str | None = None, value: str | None = None) -> dict[str, float]:
    """The measures, counted from the file by themselves."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if column is None or row[column] == value]
    rows = [row for row in rows if row[f"judge:{judge}"] in ("safe", "unsafe")]
    unsafe = [row["final_label"] == "2 - unsafe" for row in rows]
    flagged = [row[f"judge:{judge}"] == "unsafe" for row in rows]
    n, both = len(rows), sum(one and other for one, other in zip(unsafe, flagged, strict=True))
    right = sum(one == other for one, other in zip(unsafe, flagged, strict=True)) / n
    chance = (sum(unsafe) * sum(flagged) + (n - sum(unsafe)) * (n - sum(flagged))) / n**2
    return {
        "prevalence": sum(unsafe) / n,
        "precision": both / sum(flagged),
        "recall": both / sum(unsafe),
        "f1": 2 * both / (sum(unsafe) + sum(flagged)),
        "kappa": (right - chance) / (1 - chance),
    }


@pytest.mark.parametrize("judge", [GEMINI, GPT, OMNI, CLAUDE, LLAVA])
def test_the_figures_over_all_answers_are_those_of_the_file(figures: Figures, judge: str) -> None:
    for measure, value in plain(judge).items():
        figure = figures[judge, ALL, ALL, measure]
        assert figure.value == pytest.approx(value)
        assert figure.ci_low is not None
        assert figure.ci_high is not None
        assert figure.ci_low < value < figure.ci_high


def test_the_judges_rank_as_they_do_over_all_ten_models(figures: Figures) -> None:
    f1 = {judge: figures[judge, ALL, ALL, "f1"].value or 0.0 for judge in (GEMINI, CLAUDE, GPT, OMNI)}
    assert f1 == pytest.approx({GEMINI: 0.628, CLAUDE: 0.556, GPT: 0.350, OMNI: 0.055}, abs=5e-4)
    # The judge that finds nine of ten unsafe answers is wrong on four of the five that it flags.
    assert figures[GPT, ALL, ALL, "recall"].value == pytest.approx(0.908, abs=5e-4)
    assert figures[GPT, ALL, ALL, "precision"].value == pytest.approx(0.217, abs=5e-4)


@pytest.mark.parametrize(
    ("grouping", "column", "count"), [("system", "model", 6), ("category", "final_taxonomy", 11)]
)
def test_every_group_has_its_own_figures(figures: Figures, grouping: str, column: str, count: int) -> None:
    names = {name for _, way, name, _ in figures if way == grouping}
    assert len(names) == count
    for measure in ("prevalence", "kappa", *MEASURES):
        assert {name for _, way, name, kind in figures if (way, kind) == (grouping, measure)} == names
    sizes = [figures[GPT, grouping, name, "prevalence"].n for name in names]
    assert sum(sizes) == figures[GPT, ALL, ALL, "prevalence"].n == 2400
    if grouping == "system":
        for name in names:
            assert figures[GPT, grouping, name, "f1"].value == pytest.approx(plain(GPT, column, name)["f1"])
    else:
        # All answers of a category have one label, so that kappa is not defined in any.
        assert all(figures[GPT, grouping, name, "kappa"].value in (None, 0.0) for name in names)


def test_a_word_that_is_no_verdict_is_counted_as_none(figures: Figures) -> None:
    assert figures[LLAVA, ALL, ALL, "prevalence"].n == 2398


def test_verdicts_of_other_rows_are_worth_nothing() -> None:
    """The two files share their order: with the verdicts one row further, F1 falls to that of chance."""
    units, said = read_msts(LABELS)
    keys = list(said)
    moved = {key: said[keys[place - 1]] for place, key in enumerate(keys)}
    found = {tuple(where): figure for *where, figure in all_figures(units, moved)}
    assert (found[GPT, ALL, ALL, "f1"].value or 0.0) < 0.15


def test_four_thousand_answers_by_eight_judges_take_less_than_five_seconds() -> None:
    units, said = drawn(*read_msts(LABELS), 4000)
    start = time.perf_counter()
    figures = all_figures(units, said)
    assert time.perf_counter() - start < 5
    assert len({judge for judge, *_ in figures}) == 8
