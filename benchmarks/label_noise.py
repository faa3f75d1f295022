"""What a second judge tells of swapped labels, on pairs of real answers whose truth people decided.

    python -m benchmarks.label_noise [FOLDER]

FOLDER holds `msts_english_6_models.csv` (`benchmarks/pair_checks.py`). Every pair of an answer that people
call safe and one that they call unsafe is offered to a pair judge in both orders. It keeps some, a few of
them swapped. Each other judge is the second judge of the kept pairs. Reported are the true share of swapped
labels, what the second judge prefers, the limit without labels of people, and in how many of 200 draws the
interval from 100 labelled pairs holds the true share. The last line is one JSON object; a ratio is the limit
over the true share, so that 1 or more means that the limit holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import print_result
from benchmarks.pair_checks import FILE, FOLDER, Answer, assessment_of, decision_of, pairs_of, read_answers
from safevid_core.contracts.tables import PAIR_NOISE
from safevid_core.preferences.noise import PairNoise, noise_of, preferred
from safevid_core.settings import load_settings

LABELLED, DRAWS = 100, 200


def kept_pairs(answers: Sequence[Answer], judge: str) -> list[tuple[bool, Answer, Answer]]:
    """The pairs that a judge keeps: (whether the label is swapped, chosen answer, rejected answer)."""
    margin = load_settings("pocket").preferences.min_margin
    return [
        (swapped, chosen, rejected)
        for safe, unsafe in pairs_of(answers)
        for swapped, chosen, rejected in ((False, safe, unsafe), (True, unsafe, safe))
        if decision_of(chosen, rejected, judge, margin)[0] == "ok"
    ]


def noise_rows(kept: Sequence[tuple[bool, Answer, Answer]], second: str) -> list[dict[str, Any]]:
    """Rows of `pair_noise` for the pairs on which the second judge decides, with people's labels."""
    rows = []
    for number, (swapped, chosen, rejected) in enumerate(kept):
        one, other = assessment_of(chosen, second), assessment_of(rejected, second)
        if one.verdict.decided and other.verdict.decided:
            row = {
                "pair_id": f"{number:04}",
                "cluster": chosen.prompt,
                "sampled": True,
                "first": "chosen" if number % 2 else "rejected",
                "prefers": preferred(one, other),
                "chosen_success": one.verdict.success,
                "rejected_success": other.verdict.success,
                "people": "swapped" if swapped else "right",
            }
            rows.append(row)
    return rows


def without_labels(rows: Sequence[dict[str, Any]], second: str) -> PairNoise:
    return noise_of(PAIR_NOISE.frame([row | {"people": None} for row in rows]), {}, second, 1)


def covered(rows: Sequence[dict[str, Any]], second: str) -> int:
    """In how many draws of the labelled pairs the interval holds the true share over all rows."""
    rng, held = np.random.default_rng(0), 0
    truth = sum(row["people"] == "swapped" for row in rows) / len(rows)
    for _ in range(DRAWS):
        labelled = set(rng.choice(len(rows), LABELLED, replace=False).tolist())
        some = [
            row | ({"sampled": False} if place in labelled else {"people": None})
            for place, row in enumerate(rows)
        ]
        found = noise_of(PAIR_NOISE.frame(some), {}, second, LABELLED).true_share
        held += (found.ci_low or 0) <= truth <= (found.ci_high or 0)
    return held


def main(folder: Path) -> None:
    if not (folder / FILE).is_file():
        raise SystemExit(f"{folder / FILE} is not there; name the folder that holds it")
    answers = read_answers(folder)
    cases = []
    for judge in answers[0].verdicts:
        kept = kept_pairs(answers, judge)
        for second in answers[0].verdicts:
            rows = noise_rows(kept, second)
            if second == judge or len(rows) < 2 * LABELLED:
                continue
            truly = [row for row in rows if row["people"] == "swapped"]
            found, held = without_labels(rows, second), covered(rows, second)
            limit, truth = found.would_swap.ci_high or 1.0, len(truly) / len(rows)
            seen = sum(row["prefers"] == "rejected" for row in truly)
            print(
                f"{judge:28} {second:28} pairs {len(rows)}  truly swapped {len(truly)} ({truth:.1%})  "
                f"alpha {found.alpha_responses.value:.2f}  prefers chosen {found.same} rejected "
                f"{found.swapped} neither {found.neither}  sees {seen} of {len(truly)}  limit {limit:.1%}  "
                f"covered {held}/{DRAWS}"
            )
            cases.append(
                {"case": f"{judge} | {second}", "ours": limit, "peers": {"truth": truth}, "covered": held}
                | {"ratio": limit / truth if truth else float("inf")}
            )
    print_result("label_noise", "upper limit of the share of swapped labels", len(answers), cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
