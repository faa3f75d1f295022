"""How much of a preference is style: classifiers that see the two responses of a pair and nothing else.

Each learns from some pairs which of two responses is the chosen one, and tells it for pairs about other
clips. What it gets right beyond a half needs neither the query nor the video.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from safevid_core.contracts.ids import content_id

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FOLDS = 5
MAX_WORDS = 5_000  # the most frequent ones; a word of one response alone tells nothing of others
_PENALTY = 1.0  # of the squared weights, as a standard normal prior
_WORD = r"[\p{L}\p{N}_]+"  # what \w is in `re`
_TEXTS_AT_ONCE = 4_096

Floats = NDArray[np.float64]


def words_of(text: str) -> list[str]:
    """Lower-case words of a text, in order."""
    return re.findall(r"\w+", text.lower())


def word_counts(texts: pl.Series) -> pl.Series:
    """The number of words of each text, as :func:`words_of` splits them."""
    return texts.str.count_matches(_WORD)


def words_held(texts: pl.Series) -> pl.DataFrame:
    """Which words the texts hold: columns `row, word`, each word once a text.

    Args:
        texts: Strings without null.
    """
    found = [pl.DataFrame(schema={"row": pl.UInt32, "word": pl.String})]
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = texts.slice(start, _TEXTS_AT_ONCE).alias("word").to_frame().with_row_index("row", start)
        words = part.with_columns(pl.col("word").str.to_lowercase().str.extract_all(_WORD))
        found.append(words.explode("word").drop_nulls().unique())
    return pl.concat(found)


def vocabulary_of(held: pl.DataFrame) -> list[str]:
    """The words that at least two texts hold, at most MAX_WORDS, the most frequent first.

    Args:
        held: As of :func:`words_held`.
    """
    counts = held.group_by("word").len("texts").filter(pl.col("texts") > 1)
    return counts.sort("texts", "word", descending=[True, False]).head(MAX_WORDS)["word"].to_list()


def bag_of_words(held: pl.DataFrame, texts: int, vocabulary: Sequence[str]) -> csr_array:
    """`[texts, words]`: 1 where the text holds the word.

    Args:
        held: As of :func:`words_held`.
        texts: Number of texts.
    """
    from scipy.sparse import csr_array

    places = pl.DataFrame({"word": vocabulary}, schema={"word": pl.String}).with_row_index("column")
    known = held.join(places, on="word").sort("row", "column")
    rows, columns = (known[name].to_numpy() for name in ("row", "column"))
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(texts, len(vocabulary)))


def word_differences(chosen: pl.Series, rejected: pl.Series) -> tuple[csr_array, list[str]]:
    """The bag of words of each chosen response minus that of the rejected one, and the vocabulary."""
    held = words_held(pl.concat([chosen, rejected]))
    vocabulary = vocabulary_of(held)
    bags = bag_of_words(held, 2 * len(chosen), vocabulary)
    return bags[: len(chosen)] - bags[len(chosen) :], vocabulary


def length(texts: pl.Series) -> csr_array:
    """`[texts, 2]`: the logarithms of the numbers of words and of characters, each plus one."""
    from scipy.sparse import csr_array

    counts = np.column_stack([word_counts(texts).to_numpy(), texts.str.len_chars().to_numpy()])
    return csr_array(np.log1p(counts.astype(np.float64)))


def told_apart(differences: csr_array, groups: Sequence[str]) -> Floats | None:
    """Whether each pair's chosen response was told from the rejected one, in cross-validation by group.

    A pair is told by weights that were fitted to pairs of other groups. The mean is the chance that a chosen
    response ranks above its own rejected one.

    Args:
        differences: `[pairs, features]`: features of the chosen response minus those of the rejected one.
        groups: What each pair belongs to; pairs of a group are on one side.

    Returns:
        `[pairs]`: 1 where told, 0 where taken for the other, 0.5 where undecided; None with one group.
    """
    names = sorted(set(groups), key=lambda group: content_id("fold", group))
    folds = min(FOLDS, len(names))
    if folds < 2:
        return None
    fold_of = {group: rank % folds for rank, group in enumerate(names)}
    folds_of_pairs = np.array([fold_of[group] for group in groups])
    margins = np.empty(len(groups))
    for fold in range(folds):
        held_out = folds_of_pairs == fold
        margins[held_out] = differences[held_out] @ fit(differences[~held_out])
    return np.asarray((np.sign(margins) + 1) / 2)


def fit(differences: csr_array) -> Floats:
    """Weights `[features]` of a logistic regression that gives every difference a positive margin."""
    if differences.shape[1] == 0:
        return np.zeros(0)
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = differences @ weights
        value = _PENALTY / 2 * weights @ weights - log_expit(margins).sum()
        return float(value), np.asarray(_PENALTY * weights - differences.T @ expit(-margins))

    found: Any = minimize(loss, np.zeros(differences.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x)


def most_telling(weights: Floats, vocabulary: Sequence[str], number: int = 8) -> tuple[list[str], list[str]]:
    """The words that speak most for a chosen response, and those that speak most for a rejected one."""
    order = np.argsort(weights, kind="stable")
    chosen = [vocabulary[i] for i in order[::-1][:number] if weights[i] > 0]
    return chosen, [vocabulary[i] for i in order[:number] if weights[i] < 0]
