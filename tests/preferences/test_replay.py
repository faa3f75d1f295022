"""Pairs of real answers under stored verdicts: decided as the verdicts imply, none lost to a pattern."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.pair_checks import FILE, Answer, pairs_of, read_answers, replay, shares
from safevid_core.preferences.facts import fact_against
from tests.video.clips_for_tests import SAMPLES

FOLDER = SAMPLES / "labels"
JUDGES = (
    "Qwen2-VL-72B-Instruct",
    "Llama-Guard-3-11B-Vision",
    "LlavaGuard-v1.2-7B-OV",
    "Llama-3.2-90B-Vision-Instruct",
    "omni-moderation-latest",
    "gpt-4o-2024-05-13",
    "gemini-1.5-pro",
    "claude-3-5-sonnet-20240620",
)
pytestmark = pytest.mark.skipif(not (FOLDER / FILE).is_file(), reason=f"{FILE} is not beside the checkout")


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    return read_answers(FOLDER)


def test_the_file_is_as_published(answers: list[Answer]) -> None:
    assert len(answers) == 2400
    assert tuple(answers[0].verdicts) == JUDGES
    assert sum(not answer.safe for answer in answers) == 141
    assert sum(1 for _ in pairs_of(answers)) == 523


@pytest.mark.parametrize("judge", JUDGES)
def test_a_pair_is_kept_exactly_where_the_stored_verdicts_imply_it(answers: list[Answer], judge: str) -> None:
    implied: Counter[tuple[bool, str]] = Counter()
    for safe, unsafe in pairs_of(answers):
        of_safe, of_unsafe = safe.verdicts[judge], unsafe.verdicts[judge]
        if of_safe is None or of_unsafe is None:
            implied[True, "undecidable"] += 1
            implied[False, "undecidable"] += 1
            continue
        implied[True, "ok" if of_safe and not of_unsafe else "filtered"] += 1
        implied[False, "ok" if of_unsafe and not of_safe else "filtered"] += 1
    decided = replay(answers, judge)
    assert Counter((each.sound, each.outcome) for each in decided) == implied
    assert all(each.reason.startswith("pair judge") for each in decided if each.outcome != "ok")
    dropped, kept = shares(decided)
    assert dropped.ci_low is not None
    assert dropped.ci_low <= (dropped.value or 0) <= (dropped.ci_high or 0)
    assert kept.value is not None
    assert kept.value < 0.1


def test_no_answer_is_lost_to_a_pattern(answers: list[Answer]) -> None:
    """A fact excludes an answer, and people gave all of these a label: so no fact excludes one of them."""
    excluded = {answer.text: fact_against(answer.text, cut=False) for answer in answers}
    assert not {text[:80]: fact for text, fact in excluded.items() if fact is not None}
