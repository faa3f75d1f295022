"""Near-duplicates of texts: what counts as one, and how many of them MinHash LSH finds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.corpus.near_copies import connected_groups
from safevid_core.datasets import near_duplicates
from safevid_core.datasets.near_duplicates import (
    PIVOTS,
    RECALL,
    bands_for,
    near_duplicate_groups,
    near_duplicate_pairs,
)
from safevid_core.datasets.shingles import NEGATIONS

LONG = (
    "the man in the yellow coat walks along the harbour wall and looks at the small boats while two children "
    "play with a dog on the grass behind him and a woman calls them back because the evening train leaves"
)
VOCABULARY = [f"{first}{last}" for first in "bcdfghklmn" for last in ("ad", "el", "im", "op", "ur", "yst")]


def are_one(one: str | None, other: str | None, threshold: float = 0.8) -> bool:
    first, second = near_duplicate_groups(pl.Series([one, other], dtype=pl.String), threshold)
    return bool(first == second)


def jaccard(one: str, other: str) -> float:
    """The similarity by definition, for texts of plain lower-case words."""
    sets = []
    for words in (one.split(), other.split()):
        sets.append({tuple(words[place : place + 3]) for place in range(max(1, len(words) - 2))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def near_copies(count: int, seed: int) -> list[str]:
    """Random texts of 3 to 40 words; half of them are copies of earlier ones with up to three edits."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(count):
        words = rng.choices(VOCABULARY, k=rng.randint(3, 40))
        if texts and rng.random() < 0.5:
            words = list(rng.choice(texts))
            for _ in range(rng.randint(0, 3)):
                place = rng.randrange(len(words))
                words[place : place + rng.randint(0, 1)] = rng.choices(VOCABULARY, k=rng.randint(0, 1))
                words = words or ["bad"]
        texts.append(words)
    return [" ".join(words) for words in texts]


def brute_force(texts: Sequence[str], threshold: float) -> dict[tuple[int, int], float]:
    """All pairs of rows at the threshold. Texts that share no sequence have similarity 0."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, text in enumerate(texts):
        words = text.split()
        for sequence in {tuple(words[place : place + 3]) for place in range(max(1, len(words) - 2))}:
            rows.setdefault(sequence, []).append(row)
    shared = {pair for some in rows.values() for pair in combinations(some, 2)}
    likeness = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in sorted(shared)}
    return {pair: value for pair, value in likeness.items() if value >= threshold}


def as_sets(groups: np.ndarray, ids: Sequence[int]) -> set[frozenset[int]]:
    members: dict[int, set[int]] = {}
    for group, each in zip(groups.tolist(), ids, strict=True):
        members.setdefault(group, set()).add(each)
    return {frozenset(some) for some in members.values()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Can I touch the wire?", "Can I not touch the wire?"),
        ("Is it safe to touch the wire?", "Isn't it safe to touch the wire?"),
        (f"He does {LONG}", f"He doesn't {LONG}"),
        (f"He does {LONG}", f"He doesn’t {LONG}"),
        (f"{LONG} and can be opened", f"{LONG} and cannot be opened"),
        (f"{LONG} with a helmet", f"{LONG} without a helmet"),
        (f"A person {LONG}", f"No person {LONG}"),
        (f"{LONG} and never comes back", f"{LONG} and always comes back"),
        (f"Touch the red wire. {LONG} Do not touch the blue one.", f"Do not touch the red one. {LONG} Do."),
        (f"-5 degrees when {LONG}", f"5 degrees when {LONG}"),
        (f"Take 5 grams when {LONG}", f"Take 50 grams when {LONG}"),
        (f"It is -5 degrees when {LONG}", f"It is 5 degrees when {LONG}"),
        (f"It is 1.5 metres and {LONG}", f"It is 15 metres and {LONG}"),
    ],
)  # fmt: skip
def test_texts_that_differ_in_a_negation_or_a_number_are_never_duplicates(one: str, other: str) -> None:
    assert not are_one(one, other)
    assert near_duplicate_pairs(pl.Series([one]), pl.Series([other]), 0.5).is_empty()


@given(st.sampled_from(NEGATIONS), st.integers(0, len(LONG.split())))
def test_a_negation_more_is_another_text_wherever_it_stands(negation: str, place: int) -> None:
    words = LONG.split()
    words.insert(place, negation)
    assert not are_one(LONG, " ".join(words), 0.5)
    words[place] = "gladly"
    assert are_one(LONG, " ".join(words), 0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Can't I touch the wire?", "cannot i touch the wire"),
        ("CAN’T I TOUCH THE WIRE", "Can not I touch the wire?!"),
        ("I won't do this here", "I will not do this here"),
        ("I don´t do this here", "I do not do this here"),
        ("Die STRASSE ist gesperrt", "die Straße ist gesperrt"),
        ("ΟΔΟΣ της Αθήνας", "οδος της ΑΘΉΝΑΣ"),
        ("cafe\u0301 an der Ecke", "CAF\u00c9 an der Ecke"),
        ("ｆｕｌｌ width text", "full width text"),
        ("", None),
        (" ?! ", "?!"),
        (f"Please, {LONG}", f"{LONG}."),
        ("一个男人在厨房里点燃了一辆汽车然后走开", "有一个男人在厨房里点燃了一辆汽车然后走开"),
    ],
)  # fmt: skip
def test_case_form_and_punctuation_do_not_count(one: str | None, other: str | None) -> None:
    assert are_one(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("?!", ""), ("🔥", "💧"), ("Is this 🔥 here?", "Is this 💧 here?"), ("fire", "water")]
)
def test_texts_of_few_words_or_none_are_distinguished(one: str, other: str) -> None:
    assert not are_one(one, other)


@given(st.text())
def test_no_change_of_case_makes_another_text(text: str) -> None:
    same = pl.Series([text, text.upper(), text.lower(), text.upper().lower(), text.title().upper()])
    assert len(set(near_duplicate_groups(same, 1.0).tolist())) == 1


@pytest.mark.parametrize(("threshold", "seed"), [(0.5, 1), (0.7, 2), (0.8, 3), (0.8, 4), (0.9, 5), (1.0, 6)])
def test_recall_and_precision_against_brute_force(threshold: float, seed: int) -> None:
    texts = near_copies(2000, seed)
    alike = brute_force(texts, threshold)
    pairs = near_duplicate_pairs(pl.Series(texts), pl.Series(texts), threshold)
    first = {text: row for row, text in reversed(list(enumerate(texts)))}
    expected = {(row, first[text]): 1.0 for row, text in enumerate(texts)}
    for (one, other), likeness in alike.items():
        expected |= {(one, first[texts[other]]): likeness, (other, first[texts[one]]): likeness}
    found = {(row, other): likeness for row, other, likeness in pairs.iter_rows()}
    assert found == pytest.approx({pair: expected[pair] for pair in found}), (
        "only true pairs, and their value"
    )
    assert len(found) >= RECALL * len(expected)
    groups = near_duplicate_groups(pl.Series(texts), threshold)
    together = [groups[one] == groups[other] for one, other in alike]
    assert len(together) > 200
    assert np.mean(together) >= RECALL
    true = connected_groups(range(len(texts)), alike)
    group_of = {row: number for number, group in enumerate(true) for row in group}
    assert all(len({group_of[row] for row in group}) == 1 for group in as_sets(groups, range(len(texts))))


@pytest.mark.parametrize(("changed", "shared"), [(1, 8), (2, 7)])
def test_a_pair_at_the_threshold_is_found_with_the_stated_probability(changed: int, shared: int) -> None:
    rng = random.Random(changed)
    count = 4000
    ours = [rng.choices([str(n).replace("1", "x") + "w" for n in range(9000)], k=11) for _ in range(count)]
    ours = [[f"a{word}" for word in words] for words in ours]
    theirs = [[*words[: 11 - changed], *(f"b{word}" for word in words[:changed])] for words in ours]
    texts, others = ([" ".join(words) for words in some] for some in (ours, theirs))
    threshold = shared / (18 - shared)
    found = near_duplicate_pairs(pl.Series(texts), pl.Series(others), threshold).height
    missed = 1 - bands_for(threshold).recall(threshold)
    bound = 4 * (count * missed * (1 - missed)) ** 0.5
    assert count * missed - bound <= count - found <= count * missed + bound


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order_of_the_rows(seed: int, rng: random.Random) -> None:
    texts = near_copies(120, seed)
    order = list(range(len(texts)))
    rng.shuffle(order)
    shuffled = near_duplicate_groups(pl.Series([texts[row] for row in order]), 0.7)
    assert as_sets(shuffled, order) == as_sets(
        near_duplicate_groups(pl.Series(texts), 0.7), range(len(texts))
    )


def test_groups_are_numbered_by_their_first_row() -> None:
    assert near_duplicate_groups(pl.Series(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 0, 2, 1]


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series(near_copies(300, 7))
    groups, pairs = near_duplicate_groups(texts), near_duplicate_pairs(texts, texts[:50])
    monkeypatch.setattr(near_duplicates, "WORDS_AT_ONCE", 100)
    assert near_duplicate_groups(texts).tolist() == groups.tolist()
    assert near_duplicate_pairs(texts, texts[:50]).equals(pairs)


def test_many_copies_of_one_text_are_one_group_at_linear_work() -> None:
    texts = [f"{LONG} {word} {other}" for word in VOCABULARY for other in VOCABULARY[:20]]
    assert set(near_duplicate_groups(pl.Series(texts)).tolist()) == {0}
    keys = np.zeros((1000, 3), dtype=np.uint64)
    assert len(near_duplicates._candidates(keys)) <= PIVOTS * len(keys)


@given(st.floats(0.05, 1.0))
def test_bands_keep_the_recall_at_the_threshold(threshold: float) -> None:
    bands = bands_for(threshold)
    assert bands.recall(threshold) >= RECALL - 1e-9


def test_the_same_words_are_named_once_for_each_group() -> None:
    texts = pl.Series(["Is the knife on the table sharp?", "Nothing of the kind is asked here."])
    others = pl.Series(["is the knife on the table sharp", "Is the knife on the table sharp?!", "Other."])
    for repeated, groups in ((1, None), (2, ["a", "b", "a"]), (1, ["a", "a", "b"])):
        found = near_duplicate_pairs(texts, others, groups=None if groups is None else pl.Series(groups))
        assert found["row"].to_list() == [0] * repeated
        assert found["other"].to_list() == list(range(repeated))


def test_no_text_and_a_huge_text() -> None:
    assert near_duplicate_groups(pl.Series([], dtype=pl.String)).tolist() == []
    assert near_duplicate_pairs(pl.Series([], dtype=pl.String), pl.Series(["a"])).is_empty()
    assert near_duplicate_pairs(pl.Series(["a"]), pl.Series([], dtype=pl.String)).is_empty()
    huge = f"{LONG} " * 50_000
    word = "x" * 10_000_000
    assert near_duplicate_groups(pl.Series([huge, "a", huge.upper(), word, word + "y"])).tolist() == [
        0,
        1,
        0,
        2,
        3,
    ]
