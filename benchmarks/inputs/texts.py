"""Generated English-like texts of natural length, from the project's own sentences.

A text is a row of clauses of the sentences of the taxonomy, of the judges' cases and of the pocket world. One
word in eight is replaced by a word of a vocabulary of 60,000 with Zipf frequencies: the words of these
sentences by how often they occur, then made words. Lengths are log-normal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import polars as pl
import yaml

OPENERS = (
    "How do I", "Can you tell me how to", "What happens if I", "Why does the person", "Please explain how to",
    "Is it safe to", "Describe how they", "I would like to", "My neighbour wants to", "What should I do to",
    "Which tools do I need to", "Show me the way to", "Where in the video do they", "Who says that people",
    "When does the man", "Does the woman", "For a school project I have to", "Give me the steps to",
)  # fmt: skip
JOINERS = (
    "and then",
    "while",
    "because",
    "before",
    "so that",
    "although",
    "as soon as",
    "in order to",
    "or",
)
_SOURCES = (
    ("safevid_core.taxonomy", "safety.yaml"),
    ("safevid_core.taxonomy", "scenes.yaml"),
    ("safevid_core.judging", "judges/adversarial.yaml"),
    ("safevid_core.pocket", "judge_cases.yaml"),
)
_VOCABULARY = 60_000
_REPLACED = 1 / 8
_SPREAD = 0.45  # standard deviation of the logarithm of a length
_CLAUSE = (3, 11)  # fewest words of a clause, and one more than the most
# Texts that are written at once.
_BATCH = 20_000
_SYLLABLES = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "du", "fen", "gor", "hal", "jin", "pel",
              "quo", "sta", "tre", "wim", "yor")  # fmt: skip
# Ends of a word's forms; the last two end a text.
_ENDS = (" ", ", ", ". ", ".", "?")


@cache
def sentences() -> tuple[tuple[str, ...], ...]:
    """The sentences of the package's data files, as words."""
    found: set[tuple[str, ...]] = set()
    for package, name in _SOURCES:
        text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
        for leaf in _leaves(yaml.safe_load(text)):
            for sentence in re.split(r"(?<=[.?!;:])\s+", leaf):
                words = tuple(re.findall(r"[\w'-]+", sentence))
                if len(words) >= 4:
                    found.add(words)
    return tuple(sorted(found))


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value)


@cache
def vocabulary() -> tuple[str, ...]:
    """Words, the most frequent first."""
    counts = Counter(word.lower() for words in sentences() for word in words)
    own = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    rng = np.random.default_rng(0)
    made: dict[str, None] = {}
    while len(own) + len(made) < _VOCABULARY:
        syllables = rng.integers(len(_SYLLABLES), size=int(rng.integers(2, 5)))
        word = "".join(_SYLLABLES[place] for place in syllables)
        if word not in counts:
            made[word] = None
    return (*own, *made)


class Writer:
    """Writes texts; the same seed writes the same ones."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        words = vocabulary()
        number = {word: place for place, word in enumerate(words)}
        pool = [[number[word.lower()] for word in some] for some in sentences()]
        self._lengths = np.array([len(some) for some in pool])
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._pool = np.concatenate(pool)
        shares = 1 / (np.arange(len(words)) + 2.7)  # Zipf's law in Mandelbrot's form
        self._cumulated = np.cumsum(shares) / shares.sum()
        capitals = [word[:1].upper() + word[1:] for word in words]
        forms = [word + end for end in _ENDS for some in (words, capitals) for word in some]
        self._forms = pl.Series(forms)

    def write(self, count: int, mean: float, least: int, most: int, end: str = ".") -> pl.Series:
        """Texts of about `mean` words.

        Args:
            count: Number of texts.
            least, most: Fewest and most words.
            end: The last character, a full stop or a question mark.
        """
        parts = [
            self._some(min(_BATCH, count - start), mean, least, most, end)
            for start in range(0, count, _BATCH)
        ]
        return pl.concat(parts) if parts else pl.Series(dtype=pl.String)

    def _some(self, count: int, mean: float, least: int, most: int, end: str) -> pl.Series:
        rng = self._rng
        drawn = rng.lognormal(np.log(mean) - _SPREAD**2 / 2, _SPREAD, count)
        lengths = np.clip(drawn.round(), least, most).astype(np.int64)
        ends = np.cumsum(lengths)
        words, clause_ends = self._clauses(int(ends[-1]))
        form = np.zeros(len(words), dtype=np.int64)
        kind = rng.random(len(clause_ends))
        form[clause_ends[kind < 0.5]] = 2
        form[clause_ends[kind > 0.8]] = 1
        form[ends - 1] = 3 if end == "." else 4
        capital = np.roll(form >= 2, 1)
        return self._joined((form * 2 + capital) * len(self._cumulated) + words, ends)

    def _clauses(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Words of clauses one after another, int64 `[total]`, and the places of their last words."""
        rng = self._rng
        sentence = rng.integers(len(self._lengths), size=total // _CLAUSE[0] + 1)
        long = np.minimum(rng.integers(*_CLAUSE, size=len(sentence)), self._lengths[sentence])
        used = int(np.searchsorted(np.cumsum(long), total)) + 1
        sentence, long = sentence[:used], long[:used]
        first = (rng.random(used) * (self._lengths[sentence] - long + 1)).astype(np.int64)
        begins = np.cumsum(long) - long
        place = np.repeat(self._starts[sentence] + first - begins, long) + np.arange(long.sum())
        words = self._pool[place[:total]]
        replaced = np.flatnonzero(rng.random(total) < _REPLACED)
        words[replaced] = np.searchsorted(self._cumulated, rng.random(len(replaced)))
        last = begins + long - 1
        return words, last[last < total]

    def _joined(self, forms: np.ndarray, ends: np.ndarray) -> pl.Series:
        """The texts that end before these places, from forms of words."""
        import pyarrow as pa

        chosen = self._forms.gather(forms).rechunk().to_arrow().cast(pa.large_string())
        _, offsets, data = chosen.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[np.concatenate([[0], ends])]
        texts = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(bounds), data)
        return pl.Series(texts)
