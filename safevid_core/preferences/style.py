"""How much of a preference is style: classifiers that see the two answers of a pair and nothing else.

Each learns from some pairs which of two answers is the chosen one, and tells it for pairs about other
clips. What it gets right beyond a half needs neither the query nor the video.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safevid_core.contracts.ids import content_id

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FOLDS = 5
MAX_WORDS = 5_000  # the most frequent ones; a word of one answer alone tells nothing of others
_PENALTY = 1.0  # of the squared weights, as a standard normal prior

Floats = NDArray[np.float64]


def words_of(text: str) -> list[str]:
    """Lower-case words of a text, in order."""
    return re.findall(r"\w+", text.lower())


def vocabulary_of(texts: Sequence[str]) -> list[str]:
    """The words that occur in at least two texts, at most MAX_WORDS, the most frequent first."""
    counts = Counter(word for text in texts for word in set(words_of(text)))
    known = sorted((word for word, count in counts.items() if count > 1), key=lambda w: (-counts[w], w))
    return known[:MAX_WORDS]


def bag_of_words(texts: Sequence[str], vocabulary: Sequence[str]) -> csr_array:
    """`[texts, words]`: 1 where the text holds the word."""
    from scipy.sparse import csr_array

    place = {word: column for column, word in enumerate(vocabulary)}
    held = [
        (row, place[word]) for row, text in enumerate(texts) for word in set(words_of(text)) & place.keys()
    ]
    rows, columns = np.array(held, dtype=np.int64).reshape(-1, 2).T
    return csr_array((np.ones(len(held)), (rows, columns)), shape=(len(texts), len(vocabulary)))


def length(texts: Sequence[str]) -> csr_array:
    """`[texts, 2]`: the logarithms of the numbers of words and of characters, each plus one."""
    from scipy.sparse import csr_array

    return csr_array(np.log1p([[len(words_of(text)), len(text)] for text in texts]).reshape(-1, 2))


def told_apart(differences: csr_array, groups: Sequence[str]) -> Floats | None:
    """Whether each pair's chosen answer was told from the rejected one, in cross-validation by group.

    A pair is told by weights that were fitted to pairs of other groups. The mean is the chance that a chosen
    answer ranks above its own rejected one.

    Args:
        differences: `[pairs, features]`: features of the chosen answer minus those of the rejected one.
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
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = differences @ weights
        value = _PENALTY / 2 * weights @ weights - log_expit(margins).sum()
        return float(value), np.asarray(_PENALTY * weights - differences.T @ expit(-margins))

    found: Any = minimize(loss, np.zeros(differences.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x)


def most_telling(weights: Floats, vocabulary: Sequence[str], number: int = 8) -> tuple[list[str], list[str]]:
    """The words that speak most for a chosen answer, and those that speak most for a rejected one."""
    order = np.argsort(weights, kind="stable")
    chosen = [vocabulary[i] for i in order[::-1][:number] if weights[i] > 0]
    return chosen, [vocabulary[i] for i in order[:number] if weights[i] < 0]
