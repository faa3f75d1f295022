"""How well style alone tells the chosen response of a release, and the check that refuses such a release.

The classifiers are those of :mod:`safevid_core.preferences.style`: one sees the words of the two responses
and one sees their lengths. A release of many pairs is measured on a seeded sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import RELEASE
from safevid_core.preferences import style
from safevid_core.settings.datasets import DatasetSettings
from safevid_core.stages.stage import Check, Finding, Stage, Tools
from safevid_core.statistics.intervals import NOTHING, SAMPLE_SCHEMA, Estimate, Sample, estimate

# Pairs that the classifiers see at most. At an accuracy of 0.9 and 28 pairs a video the interval is then
# less than 0.01 wide on either side.
SAMPLE = 20_000
BY_WORDS, BY_LENGTH = "told_by_words", "told_by_length"


@dataclass(frozen=True)
class PairStyle:
    """What the two classifiers told of a sample of pairs.

    Attributes:
        told: Columns `pair_id, told_by_words, told_by_length`: 1 where the chosen response was told from the
            rejected one, 0 where it was taken for the other, 0.5 where undecided. Null if the pairs are of
            one cluster.
        for_chosen: The words that speak most for a chosen response.
        for_rejected: The words that speak most for a rejected response.
    """

    told: pl.DataFrame
    for_chosen: tuple[str, ...]
    for_rejected: tuple[str, ...]


@dataclass(frozen=True)
class StyleFigures:
    """The accuracies over all pairs of a release, as its manifest and its check hold them."""

    sampled: int
    words: Estimate
    length: Estimate
    for_chosen: tuple[str, ...]
    for_rejected: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def sample_of(pairs: pl.DataFrame, size: int = SAMPLE) -> pl.DataFrame:
    """A sample of the pairs, in the order of their ids. The same pairs in another order give the same sample.

    Each pair has a place that is a hash of its id, and the pairs with the first places are taken.

    Args:
        pairs: Column `pair_id`.
        size: Number of pairs. All if there are not more.
    """
    if pairs.height > size:
        places = [content_id("pair statistics", pair) for pair in pairs["pair_id"]]
        pairs = pairs.with_columns(place=pl.Series(places)).sort("place").head(size).drop("place")
    return pairs.sort("pair_id")


def style_of(pairs: pl.DataFrame) -> PairStyle:
    """Cross-validate the classifiers by cluster on a sample of the pairs.

    Args:
        pairs: Columns `pair_id, cluster, chosen, rejected`.
    """
    some = sample_of(pairs.select("pair_id", "cluster", "chosen", "rejected"))
    chosen, rejected, clusters = some["chosen"], some["rejected"], some["cluster"].to_list()
    words, vocabulary = style.word_differences(chosen, rejected)
    told = {
        BY_WORDS: style.told_apart(words, clusters),
        BY_LENGTH: style.told_apart(style.length(chosen) - style.length(rejected), clusters),
    }
    measured = some.select(
        "pair_id",
        *(pl.Series(name, values, dtype=pl.Float64) for name, values in told.items() if values is not None),
        *(pl.lit(None, pl.Float64).alias(name) for name, values in told.items() if values is None),
    )
    for_chosen, for_rejected = style.most_telling(style.fit(words), vocabulary) if some.height else ([], [])
    return PairStyle(measured, tuple(for_chosen), tuple(for_rejected))


def style_figures(pairs: pl.DataFrame, found: PairStyle) -> StyleFigures:
    """The accuracies over all sampled pairs, with intervals over clusters.

    Args:
        pairs: Columns `pair_id, cluster`.
    """
    some = found.told.join(pairs.select("pair_id", "cluster"), on="pair_id", maintain_order="left")
    words, length = (_accuracy(some, name) for name in (BY_WORDS, BY_LENGTH))
    return StyleFigures(some.height, words, length, found.for_chosen, found.for_rejected)


def _accuracy(some: pl.DataFrame, name: str) -> Estimate:
    rows = some.select(
        unit="pair_id", cluster="cluster", template=pl.lit(None, pl.String), seed=pl.lit(0), value=name
    ).drop_nulls("value")
    return estimate(Sample(rows.cast(SAMPLE_SCHEMA))) if rows.height else NOTHING


def limits(settings: DatasetSettings) -> dict[str, tuple[str, float | None]]:
    """The limit of each classifier: what it sees -> the name of the setting and its value."""
    return {
        "words": ("datasets.max_words_accuracy", settings.max_words_accuracy),
        "length": ("datasets.max_length_accuracy", settings.max_length_accuracy),
    }


def _within_limits(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
    manifest = tools.lake.manifest(RELEASE.name)
    told: dict[str, Any] = {} if manifest is None else manifest.info.get("style") or {}
    problems, figures = [], {}
    for seen, (setting, limit) in limits(tools.settings.datasets).items():
        accuracy = told.get(seen) or asdict(NOTHING)
        figures[seen] = "not measured" if accuracy["value"] is None else round(accuracy["value"], 4)
        if limit is None or accuracy["ci_low"] is None or accuracy["ci_low"] <= limit:
            continue
        words = ", ".join((*told["for_chosen"][:4], *told["for_rejected"][:4]))
        problems.append(
            f"{RELEASE.name}: a classifier of {seen} tells the chosen response in {accuracy['value']:.1%} of "
            f"{accuracy['n']} pairs (95% interval {accuracy['ci_low']:.1%} to {accuracy['ci_high']:.1%}), "
            f"more than {setting} {limit:g} allows"
            + (f"; most telling: {words}" if seen == "words" else "")
            + "; let preferences.responder and preferences.unaligned write more alike and make the pairs "
            f"again, or raise {setting} (null for no limit)"
        )
    return Finding(tuple(problems), figures)


STYLE_WITHIN_LIMITS = Check(
    "style_alone_does_not_tell_the_chosen_response",
    "No classifier of words or of length tells chosen from rejected responses more often than the limits "
    "`datasets.max_words_accuracy` and `datasets.max_length_accuracy` allow.",
    _within_limits,
)
