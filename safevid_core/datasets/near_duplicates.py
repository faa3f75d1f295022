"""Texts that say the same in nearly the same words: MinHash LSH proposes pairs, their true Jaccard decides.

Two texts are near-duplicates if the Jaccard similarity of their sets of three-word sequences is at least a
threshold, and their *critical words* are the same: each negation with the three words after it, and each
number. "Is it safe to touch the wire?" and "Is it not safe to touch the wire?" are never near-duplicates,
however long the text around them.

MinHash (Broder, 1997) draws for each text the least hash of its sequences under many hash functions. LSH puts
two texts into one bucket if all minimums of a band are equal, and only texts in one bucket are compared. A
pair whose similarity is exactly the threshold is proposed with a probability of at least `RECALL`, and a
pair above it with a higher one. A bucket of more than `PIVOTS` texts is not compared completely: each of its
texts is compared with `PIVOTS` of them, so that the work grows with the number of texts and not with its
square. The stated recall does not hold for two texts that meet in such buckets only.

Memory: the sequences of about `WORDS_AT_ONCE` words a thread exist at a time, whatever the number of texts.
What grows with the rows is 112 bytes a row at a threshold of 0.8 (a hash for each band, a hash of the words,
their number), and 16 bytes a proposed pair.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import polars as pl

from safevid_core.datasets.shingles import Shingles, mixed, shingles_of

# Least probability that a pair at the threshold is proposed.
RECALL = 0.99
# Texts of a bucket with which all others of the bucket are compared.
PIVOTS = 64
# About as many words are held at once.
WORDS_AT_ONCE = 250_000
Part = TypeVar("Part")
Made = TypeVar("Made")

_MAX_MINIMUMS = 64
_BYTES_A_WORD = 6
_THREADS = 4


@dataclass(frozen=True)
class Bands:
    """How minimums are grouped: a pair of similarity s is proposed with probability 1 - (1-s^rows)^count."""

    count: int
    rows: int

    def recall(self, similarity: float) -> float:
        """The probability that a pair of this similarity is proposed."""
        return 1 - (1 - similarity**self.rows) ** self.count


def bands_for(threshold: float, recall: float = RECALL) -> Bands:
    """The bands that propose a pair at the threshold with at least this probability, and few others.

    Longer bands propose fewer pairs below the threshold, and need more minimums. There are at most 64.
    Example: 12 bands of 5 minimums for a threshold of 0.8 and a recall of 0.99.
    """
    best = Bands(1, 1)
    for rows in range(1, _MAX_MINIMUMS + 1):
        in_band = threshold**rows
        count = 1 if in_band >= recall else math.ceil(math.log(1 - recall) / math.log(1 - in_band))
        if rows > 1 and count * rows > _MAX_MINIMUMS:
            break
        best = Bands(count, rows)
    return best


def near_duplicate_groups(texts: pl.Series, threshold: float = 0.8) -> np.ndarray:
    """The group of each text: equal numbers for texts that near-duplicate pairs connect.

    The groups do not depend on the order of the texts. Groups are numbered by their first row.

    Args:
        texts: Strings. A null counts as an empty text.
        threshold: Least Jaccard similarity, over 0 and at most 1. At 1, only equal sets of sequences with
            equal critical words are duplicates.

    Returns:
        int64 `[N]`.
    """
    texts = texts.fill_null("")
    sketch = _sketch(texts, bands_for(threshold))
    place, row_of, text_of = np.unique(sketch.identity, return_index=True, return_inverse=True)
    pairs = _candidates(sketch.keys[row_of])
    similar = _similarities(texts, row_of[pairs], sketch.words[row_of][pairs]) >= threshold
    labels = _components(pairs[similar], len(place))[text_of]
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty_like(first)
    number[np.argsort(first)] = np.arange(len(first))
    return number[labels].astype(np.int64)


def near_duplicate_pairs(
    texts: pl.Series, others: pl.Series, threshold: float = 0.8, groups: pl.Series | None = None
) -> pl.DataFrame:
    """The near-duplicates of each text among other texts: columns `row, other, similarity`.

    Of several others with the same words the first row is named, and of each group its first row. Rows are
    sorted by `row, other`.

    Args:
        texts: Strings. A null counts as an empty text.
        others: Strings.
        threshold: As for :func:`near_duplicate_groups`.
        groups: The group of each of the others, such as its benchmark. None is one group.
    """
    both = pl.concat([texts.cast(pl.String).alias("text"), others.cast(pl.String).alias("text")]).fill_null(
        ""
    )
    sketch = _sketch(both, bands_for(threshold))
    place, row_of, text_of = np.unique(sketch.identity, return_index=True, return_inverse=True)
    is_text, is_other = np.zeros((2, len(place)), dtype=bool)
    is_text[text_of[: len(texts)]] = True
    is_other[text_of[len(texts) :]] = True
    pairs = _candidates(sketch.keys[row_of])
    one, other = pairs.T
    pairs = pairs[(is_text[one] & is_other[other]) | (is_text[other] & is_other[one])]
    similarity = _similarities(both, row_of[pairs], sketch.words[row_of][pairs])
    pairs, similarity = pairs[similarity >= threshold], similarity[similarity >= threshold]
    itself = np.flatnonzero(is_text & is_other)
    found = pl.DataFrame(
        {
            "text": np.concatenate([pairs[:, 0], pairs[:, 1], itself]),
            "of": np.concatenate([pairs[:, 1], pairs[:, 0], itself]),
            "similarity": np.concatenate([similarity, similarity, np.ones(len(itself))]),
        }
    )
    rows = pl.DataFrame({"row": np.arange(len(texts)), "text": text_of[: len(texts)]})
    known = pl.DataFrame({"of": text_of[len(texts) :], "other": np.arange(len(others))})
    named = known.with_columns(group=pl.lit(0) if groups is None else groups)
    named = named.unique(["of", "group"], keep="first", maintain_order=True)
    return (
        rows.join(found, on="text")
        .join(named, on="of")
        .select("row", "other", "similarity")
        .sort("row", "other")
    )


@dataclass(frozen=True)
class _Sketch:
    """What is kept of each text.

    Attributes:
        identity: Hash of the sequence of words, uint64 `[N]`: equal for texts with the same words.
        keys: Hash of the minimums of each band and of the critical words, uint64 `[N, bands]`.
        words: Number of words, int64 `[N]`.
    """

    identity: np.ndarray
    keys: np.ndarray
    words: np.ndarray


def _sketch(texts: pl.Series, bands: Bands) -> _Sketch:
    # Odd factors, so that each is a permutation of the hashes of 32 bits.
    factors = mixed(np.arange(bands.count * bands.rows, dtype=np.uint64)).astype(np.uint32) | np.uint32(1)

    def sketch(part: pl.Series) -> tuple[np.ndarray, ...]:
        shingles = shingles_of(part)
        short = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
        keys = np.empty((len(part), bands.count), dtype=np.uint64)
        for band in range(bands.count):
            key = shingles.critical + np.uint64(band)
            for factor in factors[band * bands.rows : (band + 1) * bands.rows]:
                least = np.minimum.reduceat(short * factor, shingles.starts[:-1])
                key = mixed(key ^ least)
            keys[:, band] = key
        return shingles.identity, keys, shingles.words

    return _Sketch(*(np.concatenate(each) for each in zip(*_on_threads(sketch, _parts(texts)), strict=True)))


def _parts(texts: pl.Series) -> Iterator[pl.Series]:
    """The texts in parts of about `WORDS_AT_ONCE` words, in their order."""
    letters = np.cumsum(texts.str.len_bytes().to_numpy())
    number = (letters - 1) // (_BYTES_A_WORD * WORDS_AT_ONCE)
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(texts)]
    return (texts[start:end] for start, end in pairwise(bounds))


def _on_threads(work: Callable[[Part], Made], parts: Iterable[Part]) -> list[Made]:
    """The results of all parts in their order. numpy and polars let other threads run."""
    with ThreadPoolExecutor(max_workers=min(_THREADS, os.cpu_count() or 1)) as threads:
        return list(threads.map(work, parts))


def _candidates(keys: np.ndarray) -> np.ndarray:
    """The pairs of texts that share a bucket, each once as `i < j`, int64 `[P, 2]`.

    Args:
        keys: The bucket of each text in each band, uint64 `[N, bands]`. The first texts of a large bucket are
            its pivots.
    """
    found = [np.zeros(0, dtype=np.int64)]
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band])
        equal = np.flatnonzero(keys[order[1:], band] == keys[order[:-1], band])
        shared = np.unique(order[np.concatenate([equal, equal + 1])])
        order = shared[np.argsort(keys[shared, band], kind="stable")]
        begins = np.flatnonzero(np.diff(keys[order, band], prepend=~keys[order[:1], band]))
        start = np.repeat(begins, np.diff(np.append(begins, len(order))))
        partners = np.minimum(np.arange(len(order)) - start, PIVOTS)
        later = np.repeat(order, partners)
        earlier = order[np.repeat(start, partners) + _counted(partners)]
        found.append(earlier * len(keys) + later)
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, max(1, len(keys))), axis=1)


def _similarities(texts: pl.Series, pairs: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The Jaccard similarity of each pair; 0 where the critical words differ. float64 `[P]`.

    Args:
        pairs: Rows of `texts`, int64 `[P, 2]`.
        words: Number of words of both, int64 `[P, 2]`.
    """
    together = np.lexsort(
        (pairs[:, 0], _components(pairs, len(texts))[pairs[:, 0]])
    )  # each text is split once, or nearly
    number = (np.cumsum(words[together].sum(axis=1)) - 1) // WORDS_AT_ONCE
    parts = np.split(together, np.flatnonzero(np.diff(number)) + 1)
    similarity = np.zeros(len(pairs))

    def compare(part: np.ndarray) -> None:
        rows, place = np.unique(pairs[part], return_inverse=True)
        similarity[part] = _jaccard(shingles_of(texts.gather(rows)), *place.reshape(-1, 2).T)

    _on_threads(compare, parts)
    return similarity


def _jaccard(shingles: Shingles, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The similarity of the texts `one[k]` and `other[k]`."""
    from scipy.sparse import csr_array

    count = len(shingles.words)
    columns = (shingles.hashes >> np.uint64(1)).astype(np.int64)
    sets = csr_array(
        (np.ones(len(columns), dtype=np.int32), columns, shingles.starts), shape=(count, 2**63 - 1)
    )
    sets.sum_duplicates()
    sets.data[:] = 1
    sizes = np.diff(sets.indptr)
    shared = (sets[one].multiply(sets[other])).sum(axis=1)
    alike = shared / (sizes[one] + sizes[other] - shared)
    return np.where(shingles.critical[one] == shingles.critical[other], alike, 0.0)


def _components(pairs: np.ndarray, count: int) -> np.ndarray:
    """The connected component of each of `count` texts under the pairs, int `[count]`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.zeros(0, dtype=np.int32)
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _counted(counts: np.ndarray) -> np.ndarray:
    """0, 1, ..., count - 1 for each count, one after another. Example: 2, 3 gives 0, 1, 0, 1, 2."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
