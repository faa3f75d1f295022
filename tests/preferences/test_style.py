"""The style classifiers find what is there, and nothing where there is nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.sparse import csr_array

from safevid_core.preferences.style import (
    bag_of_words,
    fit,
    length,
    most_telling,
    told_apart,
    vocabulary_of,
    words_of,
)

WORDS = [f"word{number}" for number in range(40)]


def random_answers(count: int, seed: int, marker: str = "") -> list[str]:
    rng = random.Random(seed)
    return [" ".join([*rng.sample(WORDS, 6), marker]).strip() for _ in range(count)]


def share(chosen: list[str], rejected: list[str], groups: list[str], by_length: bool = False) -> float:
    vocabulary = vocabulary_of([*chosen, *rejected])
    features = [
        length(texts) if by_length else bag_of_words(texts, vocabulary) for texts in (chosen, rejected)
    ]
    found_chosen = told_apart(features[0] - features[1], groups)
    assert found_chosen is not None
    return float(found_chosen.mean())


def test_a_word_that_only_chosen_answers_hold_is_found_and_named() -> None:
    chosen, rejected = random_answers(200, 1, "please"), random_answers(200, 2)
    groups = [f"clip {number % 20}" for number in range(200)]
    assert share(chosen, rejected, groups) > 0.95
    assert share(rejected, chosen, groups) > 0.95
    vocabulary = vocabulary_of([*chosen, *rejected])
    differences = bag_of_words(chosen, vocabulary) - bag_of_words(rejected, vocabulary)
    assert most_telling(fit(differences), vocabulary)[0][0] == "please"
    assert most_telling(-fit(differences), vocabulary)[1][0] == "please"


def test_answers_of_one_kind_are_distinguished_by_chance_only() -> None:
    groups = [f"clip {number % 40}" for number in range(800)]
    chosen, rejected = random_answers(800, 1), random_answers(800, 2)
    assert abs(share(chosen, rejected, groups) - 0.5) < 0.06
    assert abs(share(chosen, rejected, groups, by_length=True) - 0.5) < 0.06


def test_length_is_found_by_length_and_what_is_equal_is_undecided() -> None:
    groups = [f"clip {number % 10}" for number in range(100)]
    short, long = ["one two"] * 100, ["one two one two one two"] * 100
    assert share(long, short, groups, by_length=True) == 1
    assert share(short, long, groups, by_length=True) == 1
    assert share(short, short, groups, by_length=True) == 0.5
    assert share(long, short, groups) == 0.5  # the same words


def test_what_holds_for_one_group_alone_does_not_help() -> None:
    """Each group has a word of its own in its chosen answers: across groups there is nothing to learn."""
    groups = [f"clip{number % 10}" for number in range(200)]
    chosen = [f"{text} {group}" for text, group in zip(random_answers(200, 1), groups, strict=True)]
    assert share(chosen, random_answers(200, 2), groups) < 0.65


def test_one_group_gives_no_figure() -> None:
    assert told_apart(length(["a b", "c"]) - length(["a", "b"]), ["same", "same"]) is None
    assert told_apart(length([]) - length([]), []) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_where_the_penalised_likelihood_is_flat(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.3, 1, size=(60, 4))

    def loss(weights: np.ndarray) -> float:
        return float(np.log1p(np.exp(-differences @ weights)).sum() + 0.5 * weights @ weights)

    weights = fit(csr_array(differences))
    assert np.abs(approx_fprime(weights, loss)).max() < 1e-2
    assert all(loss(weights) <= loss(weights + step) for step in 0.05 * np.eye(4))


@given(st.lists(st.text(max_size=40), max_size=12))
def test_features_have_a_row_a_text_and_count_nothing_twice(texts: list[str]) -> None:
    vocabulary = vocabulary_of(texts)
    bag = bag_of_words(texts, vocabulary)
    assert bag.shape == (len(texts), len(vocabulary))
    assert length(texts).shape == (len(texts), 2)
    for row, text in enumerate(texts):
        held = {vocabulary[column] for column in bag.toarray()[row].nonzero()[0]}
        assert held == set(words_of(text)) & set(vocabulary)
    assert set(np.unique(bag.toarray())) <= {0.0, 1.0}
