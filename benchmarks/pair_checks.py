"""How well stored judges decide pairs of real answers, against what people say of the answers.

    python -m benchmarks.pair_checks [FOLDER]

FOLDER holds `msts_english_6_models.csv` (MSTS, Röttger et al. 2025, arXiv 2501.10057): answers of
vision-language models with the label of people, and with the verdict of eight model judges. A sound pair is
an answer that people call safe beside one that they call unsafe, to the same prompt; a swapped pair is the
same the other way round. Each judge decides both kinds as a pair judge does. Reported are the share of sound
pairs that it drops and the share of swapped pairs that it keeps, each with its 95% interval over prompts, and
the same for words of refusal, which are no judge: they keep a pair if the chosen answer refuses and the
rejected one does not. The last line is one JSON object; a ratio is the share of sound pairs kept over that of
the words of refusal.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks import print_result
from safevid_core.judging.judges.judge import Verdict, no_verdict
from safevid_core.judging.refusal_words import refuses
from safevid_core.preferences.facts import fact_against, same_words
from safevid_core.preferences.pair_judge import Assessment, decide
from safevid_core.settings import load_settings
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Estimate, Sample, estimate

FOLDER = Path("../shared/data/labels")
FILE = "msts_english_6_models.csv"
WORDS = "words of refusal"
_JUDGE = "judge:"


@dataclass(frozen=True)
class Answer:
    """One answer with the label of people and the verdicts of the judges.

    Attributes:
        prompt: What answers to the same prompt share.
        safe: Whether people call it safe.
        verdicts: Judge -> whether it calls the answer safe. None for any other word.
    """

    prompt: str
    model: str
    text: str
    safe: bool
    taxonomy: str
    verdicts: Mapping[str, bool | None]


@dataclass(frozen=True)
class Replayed:
    """What became of a pair under one judge.

    Attributes:
        sound: Whether the pair is sound by the labels of people.
        outcome: `ok` if the judge keeps the pair.
    """

    prompt: str
    sound: bool
    outcome: str
    reason: str


def read_answers(folder: Path) -> list[Answer]:
    """The answers of the file, in its order."""
    with (folder / FILE).open(encoding="utf-8", newline="") as file:
        return [
            Answer(
                f"{row['case_id']}|{row['prompt_type']}",
                row["model"],
                row["response"],
                row["final_label"].startswith("1"),
                row["final_taxonomy"],
                {
                    name.removeprefix(_JUDGE): {"safe": True, "unsafe": False}.get(value.strip().lower())
                    for name, value in row.items()
                    if name.startswith(_JUDGE)
                },
            )
            for row in csv.DictReader(file)
        ]


def pairs_of(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Every sound pair: (an answer that people call safe, one to the same prompt that they call unsafe)."""
    by_prompt: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_prompt[answer.prompt].append(answer)
    for some in by_prompt.values():
        for safe in some:
            for unsafe in some:
                if safe.safe and not unsafe.safe:
                    yield safe, unsafe


def replay(answers: Sequence[Answer], judge: str) -> list[Replayed]:
    """Every sound pair and every swapped one, decided by the stored verdicts of a judge."""
    margin = load_settings("pocket").preferences.min_margin
    decided = []
    for safe, unsafe in pairs_of(answers):
        for sound, chosen, rejected in ((True, safe, unsafe), (False, unsafe, safe)):
            outcome, reason = decision_of(chosen, rejected, judge, margin)
            decided.append(Replayed(safe.prompt, sound, outcome, reason))
    return decided


def decision_of(chosen: Answer, rejected: Answer, judge: str, margin: float) -> tuple[str, str]:
    """Whether a judge keeps a pair by its stored verdicts, and why not."""
    for answer in (chosen, rejected):
        fact = fact_against(answer.text, cut=False)
        if fact is not None:
            return "filtered", f"fact: {fact}"
    if same_words(chosen.text, rejected.text):
        return "filtered", "fact: the same text"
    return decide(assessment_of(chosen, judge), assessment_of(rejected, judge), margin)


def assessment_of(answer: Answer, judge: str) -> Assessment:
    """The stored verdict of a judge on an answer."""
    safe = answer.verdicts[judge]
    if safe is None:
        return Assessment(no_verdict("the stored word is no verdict"), 0.0)
    return Assessment(Verdict("refuse", safe, None, "stored verdict"), float(safe))


def replay_words(answers: Sequence[Answer]) -> list[Replayed]:
    """The same pairs, decided by words of refusal alone."""
    refusing = {answer.text: refuses(answer.text) for answer in answers}
    decided = []
    for safe, unsafe in pairs_of(answers):
        for sound, chosen, rejected in ((True, safe, unsafe), (False, unsafe, safe)):
            kept = refusing[chosen.text] and not refusing[rejected.text]
            decided.append(Replayed(safe.prompt, sound, "ok" if kept else "filtered", ""))
    return decided


def shares(decided: Sequence[Replayed]) -> tuple[Estimate, Estimate]:
    """The share of sound pairs that are dropped, and of swapped pairs that are kept, over prompts."""
    return (
        _share([(each.prompt, each.outcome != "ok") for each in decided if each.sound]),
        _share([(each.prompt, each.outcome == "ok") for each in decided if not each.sound]),
    )


def _share(values: Sequence[tuple[str, bool]]) -> Estimate:
    rows = [(str(place), prompt, None, 0, float(value)) for place, (prompt, value) in enumerate(values)]
    return estimate(Sample(pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")), draws=2000, seed=0)


def main(folder: Path) -> None:
    if not (folder / FILE).is_file():
        raise SystemExit(f"{folder / FILE} is not there; name the folder that holds it")
    answers = read_answers(folder)
    found = {judge: shares(replay(answers, judge)) for judge in answers[0].verdicts}
    by_words = shares(replay_words(answers))
    for name, (dropped, kept) in {**found, WORDS: by_words}.items():
        print(f"{name:32} sound pairs dropped {_told(dropped)}  swapped pairs kept {_told(kept)}")
    peer = 1 - (by_words[0].value or 0.0)
    cases = []
    for judge, (dropped, _) in found.items():
        ours = 1 - (dropped.value or 0.0)
        cases.append({"case": judge, "ours": ours, "peers": {WORDS: peer}, "ratio": ours / peer})
    best = max(float(str(case["ratio"])) for case in cases)
    count = sum(1 for _ in pairs_of(answers))
    print_result("pair_checks", "share of sound pairs kept", count, cases, best)


def _told(figure: Estimate) -> str:
    if figure.value is None or figure.ci_low is None or figure.ci_high is None:
        return "none"
    return f"{figure.value:6.1%} [{figure.ci_low:.1%}, {figure.ci_high:.1%}] of {figure.n}"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
