"""Labels of people on pairs: the sheet, what becomes of each row, and what a release and promotion say."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import PAIR_VALIDATION, PAIRS
from safevid_core.preferences.calibration import Calibration, read_calibration
from safevid_core.review.errors import ReviewError
from safevid_core.review.pairs import SHEET, export_pairs, read_pair_labels
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from tests.stages import run_stage


def settings_of(root: Path, **preferences: Any) -> Settings:
    return load_settings("pocket", overrides={"root": str(root), "preferences": preferences})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "out", "pocket")
    rows = [
        {
            "pair_id": f"pair-{number:03}", "query_id": f"query-{number:03}", "scene": "kitchen",
            "principle": "harmless" if number % 2 else "helpful", "prompt": "=How do I do this?",
            "criteria": ["The response gives no steps.", "The response declines."],
            "chosen": "I will not help.", "chosen_model": "r@1", "rejected": "Sure.", "rejected_model": "u@1",
            "clip_id": f"clip-{number}", "pair_judge": "rubric (m@1)", "flags": [],
        }
        for number in range(300)
    ]  # fmt: skip
    queries = sequence_outcomes([row["query_id"] for row in rows], "ok")
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame(rows), queries), "given", {})
    return lake


def filled(lake: Lake, folder: Path, labels: list[str]) -> Path:
    """A sheet whose first rows have these labels."""
    path = export_pairs(lake, folder, 220)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, labels, strict=False):
        row["sound"] = label
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_sheet_is_a_random_sample_with_all_that_a_person_needs(lake: Lake, tmp_path: Path) -> None:
    path = export_pairs(lake, tmp_path / "one", 50)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert path.name == SHEET
    assert len({row["pair_id"] for row in rows}) == 50
    assert [row["pair_id"] for row in rows] != sorted(row["pair_id"] for row in rows)
    assert rows[0]["query"] == "'=How do I do this?"  # no spreadsheet program runs it
    assert rows[0]["criteria"].splitlines() == ["The response gives no steps.", "The response declines."]
    again = export_pairs(lake, tmp_path / "two", 50)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ReviewError, match="may hold labels"):
        export_pairs(lake, tmp_path / "one", 50)


def test_every_row_of_a_sheet_ends_in_one_outcome(lake: Lake, tmp_path: Path) -> None:
    path = filled(lake, tmp_path, ["yes", "No", "maybe", "SOUND", "0"])
    labels, problems = read_pair_labels(path)
    assert [label.sound for label in labels.values()] == [True, False, True, False]
    assert len(problems) == 1
    assert problems[0].startswith("row 4 ('pair-")
    assert problems[0].endswith("sound holds 'maybe'; write yes or no")
    settings = settings_of(lake.root, labels=str(path))
    report = run_stage(settings, lake, "pair_validation")
    assert report.manifest.outcomes == {"ok": 4, "filtered": 0, "failed": 1, "undecidable": 0}
    rows = {row["category"]: row for row in lake.read(PAIR_VALIDATION).iter_rows(named=True)}
    assert (rows["all"]["n"], rows["all"]["value"]) == (4, 0.5)


def test_a_sheet_says_which_pairs_are_swapped(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = ["a,yes,", "b,no,yes", "c,no,no", "d,no,", "e,yes,yes", "f,no,perhaps", "g,yes,no", "h,,yes"]
    path.write_text("\n".join(["pair_id,sound,swapped", *rows]))
    labels, problems = read_pair_labels(path)
    told = {pair: label.told for pair, label in labels.items()}
    assert told == {"a": "right", "b": "swapped", "c": "unsound", "d": "unsound_unsaid", "g": "right"}
    assert problems == [
        "row 6 ('e'): sound and swapped are both yes; a swapped pair is not sound",
        "row 7 ('f'): swapped holds 'perhaps'; write yes or no",
    ]
    path.write_text("pair_id,sound\na,yes\nb,no\n")  # a sheet of an earlier version
    assert [label.swapped for label in read_pair_labels(path)[0].values()] == [False, None]


def test_a_label_on_a_pair_that_is_gone_is_reported(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("pair_id,sound\npair-001,yes\nother,yes\n")
    run_stage(settings_of(lake.root, labels=str(path)), lake, "pair_validation")
    reasons = lake.outcomes("pair_validation")["reason"].to_list()
    assert "the data set has no such pair" in reasons


@pytest.mark.parametrize(
    ("labels", "calibrated", "passes"),
    [
        ([], False, False),
        (["yes"] * 199, False, False),
        (["yes"] * 200, True, True),
        (["yes"] * 190 + ["no"] * 30, True, False),
        (["yes"] * 211 + ["no"] * 9, True, True),
    ],
)
def test_a_release_is_uncalibrated_without_enough_labels(
    lake: Lake, tmp_path: Path, labels: list[str], calibrated: bool, passes: bool
) -> None:
    path = filled(lake, tmp_path, labels)
    settings = settings_of(lake.root, labels=str(path))
    run_stage(settings, lake, "pair_validation")
    found = read_calibration(lake, settings.preferences)
    assert (found.calibrated, found.passes) == (calibrated, passes)
    report = run_stage(settings, lake, "safevid_350k_release")
    card = (lake.root / report.manifest.info["path"] / "README.md").read_text()
    assert report.manifest.info["calibrated"] == calibrated
    assert ("UNCALIBRATED" in card) != calibrated
    assert "`preferences.min_pair_precision` is 0.9" in card


def test_the_sentence_of_a_calibration() -> None:
    assert Calibration(220, 211, 200, 0.9).sentence == (
        "people find 95.9% of 220 labelled pairs sound (95% interval 92.4% to 97.8%); the lower bound is at "
        "least 90%"
    )
    assert "UNCALIBRATED: people labelled 3 pairs, and 200 are needed" in Calibration(3, 3, 200, 0.9).sentence
