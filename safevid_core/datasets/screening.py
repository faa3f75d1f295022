"""Which pairs enter a release: no near-duplicates, and on request none that a benchmark holds.

Two pairs are duplicates of each other if

- they are about the same clip and their queries are near-duplicates, or
- their queries, chosen and rejected responses are all near-duplicates, whatever clips they are about, unless
  the clips are twins: the same words about twins are made on purpose. `datasets.across_videos: false` turns
  this rule off.

Of duplicates the pair with the largest margin enters, and of equal margins the one with the smallest id. The
same query about two videos with different responses is no duplicate: the videos tell the responses apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from safevid_core.datasets.decontamination import sentence
from safevid_core.datasets.near_duplicates import near_duplicate_groups
from safevid_core.settings.datasets import DatasetSettings

# Raised when other pairs count as duplicates of each other.
SCREENING_VERSION = "1"
_TEXTS = {"query": "prompt", "chosen response": "chosen", "rejected response": "rejected"}


@dataclass(frozen=True)
class TextFigures:
    """Near-duplicates among the texts of one column.

    Attributes:
        text: The column in words. Example: "chosen response".
        count: Number of texts.
        distinct: Number of texts that differ in at least one character.
        groups: Number of groups of at least two near-duplicates, equal texts included.
        repeated: Number of texts beyond the first of each group.
        largest: Number of texts in the largest group.
    """

    text: str
    count: int
    distinct: int
    groups: int
    repeated: int
    largest: int


@dataclass(frozen=True)
class Screening:
    """What was kept out of a release, and what was found in the pairs.

    Attributes:
        kept_out: Pair id -> reason.
        counts: Kind of reason -> number of pairs.
        texts: Figures of the texts of all pairs, those that were kept out included.
        threshold: Least Jaccard similarity of near-duplicates.
        kinds: Pair id -> kind of its reason.
    """

    kept_out: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    texts: tuple[TextFigures, ...] = ()
    threshold: float = 0.8
    kinds: dict[str, str] = field(default_factory=dict)


def screen(pairs: pl.DataFrame, settings: DatasetSettings, hits: pl.DataFrame | None = None) -> Screening:
    """Decide which pairs are kept out.

    Args:
        pairs: Columns `pair_id, clip_id, twin_group, margin, prompt, chosen, rejected`.
        hits: Rows of `decontamination.HIT_SCHEMA`, whose pairs are kept out. None keeps none out for them.
    """
    groups = {name: near_duplicate_groups(pairs[name], settings.near_duplicate) for name in _TEXTS.values()}
    texts = tuple(_figures(words, pairs[name], groups[name]) for words, name in _TEXTS.items())
    reasons: list[tuple[str, str, str]] = []
    if hits is not None:
        for hit in hits.unique("pair_id", keep="first", maintain_order=True).iter_rows(named=True):
            reasons.append((hit["pair_id"], "in a benchmark", sentence(hit)))
    ranked = (
        pairs.select("pair_id", "clip_id", "twin_group", "margin")
        .with_columns(pl.Series(name, group) for name, group in groups.items())
        .filter(~pl.col("pair_id").is_in([pair for pair, _, _ in reasons]))
        .sort("margin", "pair_id", descending=[True, False], nulls_last=True)
    )
    ranked = _without_repeats(
        ranked, ["clip_id", "prompt"], False, "same clip, near-duplicate query",
        "its query is a near-duplicate of that of pair {} about the same clip", reasons,
    )  # fmt: skip
    if settings.across_videos:
        _without_repeats(
            ranked, list(groups), True, "another clip, near-duplicate query and responses",
            "its query and both responses are near-duplicates of those of pair {}", reasons,
        )  # fmt: skip
    return Screening(
        {pair: reason for pair, _, reason in reasons},
        dict(Counter(kind for _, kind, _ in reasons)),
        texts,
        settings.near_duplicate,
        {pair: kind for pair, kind, _ in reasons},
    )


def _without_repeats(
    ranked: pl.DataFrame,
    same: list[str],
    twins_differ: bool,
    kind: str,
    words: str,
    reasons: list[tuple[str, str, str]],
) -> pl.DataFrame:
    """The first of the rows that are the same in some columns; the reasons of the others are added.

    Args:
        twins_differ: Whether a row of a twin of the first row's clip stays.
        words: The reason, with `{}` for the id of the first pair.
    """
    first = ranked.with_columns(
        first=pl.first("pair_id").over(same), first_group=pl.first("twin_group").over(same)
    )
    repeats = pl.col("pair_id") != pl.col("first")
    if twins_differ:
        repeats &= pl.col("twin_group").ne_missing(pl.col("first_group")) | pl.col("twin_group").is_null()
    for pair, kept in first.filter(repeats).select("pair_id", "first").iter_rows():
        reasons.append((pair, kind, words.format(kept)))
    return first.filter(~repeats).select(ranked.columns)


def _figures(words: str, texts: pl.Series, groups: np.ndarray) -> TextFigures:
    sizes = np.bincount(groups) if len(groups) else np.zeros(1, dtype=np.int64)
    several = sizes[sizes > 1]
    return TextFigures(
        words,
        len(texts),
        texts.n_unique(),
        len(several),
        int((several - 1).sum()),
        int(sizes.max()),
    )
