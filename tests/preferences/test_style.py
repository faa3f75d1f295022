"""The style classifiers find what is there, and nothing where there is nothing."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
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
    word_counts,
    word_differences,
    words_held,
    words_of,
)

WORDS = [f"word{number}" for number in range(40)]


def texts_of(texts: list[str]) -> pl.Series:
    return pl.Series(texts, dtype=pl.String)


def random_answers(count: int, seed: int, marker: str = "") -> list[str]:
    rng = random.Random(seed)
    return [" ".join([*rng.sample(WORDS, 6), marker]).strip() for _ in range(count)]


def share(chosen: list[str], rejected: list[str], groups: list[str], by_length: bool = False) -> float:
    if by_length:
        told = told_apart(length(texts_of(chosen)) - length(texts_of(rejected)), groups)
    else:
        told = told_apart(word_differences(texts_of(chosen), texts_of(rejected))[0], groups)
    assert told is not None
    return float(told.mean())


def test_a_word_that_only_chosen_answers_hold_is_found_and_named() -> None:
    chosen, rejected = random_answers(200, 1, "please"), random_answers(200, 2)
    groups = [f"clip {number % 20}" for number in range(200)]
    assert share(chosen, rejected, groups) > 0.95
    assert share(rejected, chosen, groups) > 0.95
    differences, vocabulary = word_differences(texts_of(chosen), texts_of(rejected))
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
    longer, shorter = texts_of(["a b", "c"]), texts_of(["a", "b"])
    assert told_apart(length(longer) - length(shorter), ["same", "same"]) is None
    assert told_apart(length(texts_of([])) - length(texts_of([])), []) is None


def test_texts_without_a_common_word_are_undecided() -> None:
    assert share(["alpha", "beta"], ["gamma", "delta"], ["one", "other"]) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_where_the_penalised_likelihood_is_flat(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.3, 1, size=(60, 4))

    def loss(weights: np.ndarray) -> float:
        return float(np.log1p(np.exp(-differences @ weights)).sum() + 0.5 * weights @ weights)

    weights = fit(csr_array(differences))
    assert np.abs(approx_fprime(weights, loss)).max() < 1e-2
    assert all(loss(weights) <= loss(weights + step) for step in 0.05 * np.eye(4))


# Letters, digits, marks and signs that every release of Unicode since 2010 has.
ANY_TEXT = st.text(
    st.characters(max_codepoint=0x2FFF, exclude_categories=("Cn", "Cs", "Mn", "Mc", "Me", "So")), max_size=40
)


@given(st.lists(ANY_TEXT, max_size=12))
def test_words_are_those_of_single_texts_and_count_once(texts: list[str]) -> None:
    held = words_held(texts_of(texts))
    vocabulary = vocabulary_of(held)
    bag = bag_of_words(held, len(texts), vocabulary)
    assert bag.shape == (len(texts), len(vocabulary))
    assert length(texts_of(texts)).shape == (len(texts), 2)
    assert word_counts(texts_of(texts)).to_list() == [len(words_of(text)) for text in texts]
    words = [set(words_of(text)) for text in texts]
    assert set(vocabulary) == {
        word for each in words for word in each if sum(word in other for other in words) > 1
    }
    for row, each in enumerate(words):
        assert {vocabulary[column] for column in bag.toarray()[row].nonzero()[0]} == each & set(vocabulary)
    assert set(np.unique(bag.toarray())) <= {0.0, 1.0}
