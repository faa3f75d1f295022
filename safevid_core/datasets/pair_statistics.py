"""Pair statistics: figures of the pairs of a release, over all and by expectation, scene, subcategory, style.

Every figure is one row of a table. Counts and medians are of all pairs. A share has a 95% interval over
source videos, so it says what other videos would give. `n` is the number of pairs that a figure rests on;
measures that need Python code for each pair rest on a seeded sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from safevid_core.contracts.tables import DESCRIPTIONS, PAIRS, TAXONOMY_QUERIES, VIDEO_CORPUS
from safevid_core.corpus.clusters import with_clusters
from safevid_core.datasets.imports import NOT_JUDGED, UNLABELLED
from safevid_core.datasets.pair_details import other_motion, unsupported
from safevid_core.datasets.pair_style import StyleFigures, sample_of, style_figures, style_of
from safevid_core.preferences.facts import CUT, flags_of
from safevid_core.preferences.style import word_counts
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Sample, estimates
from safevid_core.storage.lake import Lake

ALL = "all"
GROUPINGS = ("expectation", "scene", "subcategory", "style")
# Imported pairs whose flags are read. Reading the refusals of a pair takes 1.6 ms.
FLAGGED = 5_000
FILE = "statistics.parquet"
STATISTICS_SCHEMA = pl.Schema(
    {
        "grouping": pl.String, "category": pl.String, "measure": pl.String, "n": pl.Int64,
        "value": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64,
    }
)  # fmt: skip
NO_QUERIES = pl.DataFrame(
    schema=dict.fromkeys(("pair_id", "cluster", *GROUPINGS), pl.String) | {"cut_at_limit": pl.Float64}
)
# Measure -> what it is, in the order of the card.
MEASURES: Mapping[str, str] = {
    "pairs": "number of pairs",
    "clips": "number of clips",
    "chosen_words": "words of the chosen response, median",
    "rejected_words": "words of the rejected response, median",
    "length_difference": "words of the chosen minus the rejected response, median",
    "length_difference_q25": "the same difference, first quartile",
    "length_difference_q75": "the same difference, third quartile",
    "chosen_longer": "share of pairs whose chosen response has more words; equal ones count half",
    "chosen_refuses": "share of chosen responses that refuse, by their words",
    "rejected_refuses": "share of rejected responses that refuse, by their words",
    "told_by_words": "share of pairs whose chosen response a classifier of words finds",
    "told_by_length": "share of pairs whose chosen response a classifier of length finds",
    "cut_at_limit": "share of queries without a pair because a response was cut off at its limit of tokens",
    "chosen_ends_open": "share of chosen responses that do not end as a sentence does",
    "rejected_ends_open": "share of rejected responses that do not end as a sentence does",
    "chosen_other_colour": "share of chosen responses with a colour that description and query do not name",
    "chosen_other_number": "share of chosen responses with a number that description and query do not name",
    "chosen_other_motion": "share of chosen responses that state another direction of motion than the "
    "description, where both state one",
    "chosen_english": "share of chosen responses with frequent English words",
    "rejected_english": "share of rejected responses with frequent English words",
    "chosen_other_script": "share of chosen responses in another script than the query",
    "rejected_other_script": "share of rejected responses in another script than the query",
}
_FLAGS = ("chosen_refuses", "rejected_refuses", "chosen_other_script", "rejected_other_script")
_COLUMNS = (
    "pair_id", "clip_id", "twin_group", *GROUPINGS, "prompt", "target", "premise", "hazard", "criteria",
    "policy", "chosen", "rejected", "flags", "pair_judge",
)  # fmt: skip
_SENTENCE_END = r"[\p{Po}\p{Pe}\p{Pf}\p{So}\"'`*]"
# Among the most frequent words of English, and rare or unknown in other languages of the Latin script.
_ENGLISH = r"\b(?:the|and|of|to|that|it|with|you|this|are|be|have|not|from|they|would|should|can|if|is)\b"
# Shorter responses are not read: they may hold none of these words in English as well.
_FEW_WORDS = 15


@dataclass(frozen=True)
class PairStatistics:
    """The statistics of a release.

    Attributes:
        table: Rows of `STATISTICS_SCHEMA`, sorted by grouping, category and measure.
        style: Accuracies of the style classifiers over all pairs.
        composition: Columns `grouping, category, expectation, pairs`.
        differences: Words of the chosen minus those of the rejected response, of every pair.
    """

    table: pl.DataFrame
    style: StyleFigures
    composition: pl.DataFrame
    differences: NDArray[np.int64] = field(repr=False)

    def of(self, grouping: str, *measures: str) -> pl.DataFrame:
        """The rows of some measures by category."""
        return self.table.filter(pl.col("grouping") == grouping, pl.col("measure").is_in(measures))

    def write(self, folder: Path) -> None:
        """Write `statistics.parquet` into a folder."""
        self.table.write_parquet(folder / FILE)


def statistics_of_release(lake: Lake, pairs: pl.DataFrame, queries: pl.DataFrame) -> PairStatistics:
    """The statistics of pairs of a lake.

    Args:
        pairs: Columns of `safevid_350k_release`.
        queries: As of :func:`asked_queries`.
    """
    wanted = pl.LazyFrame({"clip_id": pairs["clip_id"].unique()})
    texts = lake.scan(DESCRIPTIONS).select("clip_id", description="text")
    descriptions = texts.join(wanted, on="clip_id", how="semi").collect()
    return pair_statistics(pairs, pairs.select("clip_id", "source_id"), descriptions, queries)


def asked_queries(lake: Lake) -> pl.DataFrame:
    """The queries that had two responses or lost one at its limit of tokens, with `cut_at_limit` 1 or 0."""
    outcomes = lake.outcomes(PAIRS.name).filter(pl.col("outcome").is_in(["ok", "filtered"]))
    cut = outcomes.select(
        pair_id="input_id", cut_at_limit=pl.col("reason").str.contains(CUT, literal=True).cast(pl.Float64)
    )
    columns = ("query_id", "clip_id", "twin_group", *GROUPINGS)
    asked = lake.scan(TAXONOMY_QUERIES).select(columns).collect().unique("query_id", keep="first")
    sources = lake.scan(VIDEO_CORPUS).select("clip_id", "source_id").collect().unique("clip_id", keep="first")
    found = cut.join(asked, left_on="pair_id", right_on="query_id").join(sources, on="clip_id", how="left")
    return (
        _labelled(with_clusters(found))
        .select("pair_id", "cluster", *GROUPINGS, "cut_at_limit")
        .sort("pair_id")
    )


def pair_statistics(
    pairs: pl.DataFrame, sources: pl.DataFrame, descriptions: pl.DataFrame, queries: pl.DataFrame
) -> PairStatistics:
    """The statistics of pairs. The order of the rows changes nothing.

    Args:
        pairs: Columns of `safevid_350k_pairs`.
        sources: Columns `clip_id, source_id`. A clip that is not there is a source of its own.
        descriptions: Columns `clip_id, description`. Details of other clips are not counted.
        queries: As of :func:`asked_queries`. May be empty.
    """
    pairs = pairs.select(_COLUMNS).sort("pair_id")
    pairs = pairs.join(
        sources.unique("clip_id", keep="first"), on="clip_id", how="left", maintain_order="left"
    )
    pairs = _labelled(with_clusters(pairs))
    keys = pairs.select("pair_id", "clip_id", "cluster", *GROUPINGS)
    some = sample_of(pairs)
    found = style_of(some)
    lengths = pairs.select(
        "pair_id", chosen_words=word_counts(pairs["chosen"]), rejected_words=word_counts(pairs["rejected"])
    ).with_columns(
        length_difference=pl.col("chosen_words").cast(pl.Int64) - pl.col("rejected_words").cast(pl.Int64)
    )
    measured = [
        lengths.select("pair_id", chosen_longer=(pl.col("length_difference").sign() + 1) / 2),
        _open_ends(pairs),
        _flagged(pairs),
        *_details(some, descriptions),
        _english(some),
        found.told,
    ]
    rows = [*_counts(keys, lengths)]
    for frame in measured:
        rows += _shares(keys.join(frame, on="pair_id", maintain_order="left"))
    rows += _shares(queries)
    table = pl.DataFrame(rows, schema=STATISTICS_SCHEMA, orient="row")
    order = pl.col("measure").replace_strict({name: place for place, name in enumerate(MEASURES)})
    return PairStatistics(
        table.sort(pl.col("grouping") != ALL, "grouping", "category", order),
        style_figures(pairs, found),
        _composition(keys),
        lengths["length_difference"].to_numpy(),
    )


def _labelled(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(GROUPINGS).fill_null(UNLABELLED))


def _counts(keys: pl.DataFrame, lengths: pl.DataFrame) -> Iterator[Sequence[Any]]:
    """The rows of counts and medians."""
    difference = pl.col("length_difference")
    figures = {
        "pairs": pl.len(),
        "clips": pl.col("clip_id").n_unique(),
        "chosen_words": pl.col("chosen_words").median(),
        "rejected_words": pl.col("rejected_words").median(),
        "length_difference": difference.median(),
        "length_difference_q25": difference.quantile(0.25),
        "length_difference_q75": difference.quantile(0.75),
    }
    both = keys.join(lengths, on="pair_id", maintain_order="left").with_columns(pl.lit(ALL).alias(ALL))
    for grouping in (ALL, *GROUPINGS):
        for row in both.group_by(grouping).agg(number=pl.len(), **figures).iter_rows(named=True):
            for name in figures:
                yield grouping, row[grouping], name, row["number"], row[name], None, None


def _shares(rows: pl.DataFrame) -> Iterator[Sequence[Any]]:
    """The rows of shares: means by category of each column in [0, 1], with intervals over clusters.

    Args:
        rows: Columns `pair_id, cluster`, those of `GROUPINGS`, and values. A null is not counted.
    """
    template, seed = pl.lit(None, pl.String).alias("template"), pl.lit(0, pl.Int64).alias("seed")
    rows = rows.with_columns(pl.lit(ALL).alias(ALL))
    for measure in (name for name in rows.columns if name in MEASURES):
        known = rows.drop_nulls(measure).sort("cluster", "pair_id")
        for grouping in (ALL, *GROUPINGS):
            units = known.select(
                grouping, pl.col("pair_id").alias("unit"), "cluster", template, seed,
                pl.col(measure).cast(pl.Float64).alias("value"),
            )  # fmt: skip
            samples = {
                str(category): Sample(some.select(SAMPLE_SCHEMA.names()))
                for (category,), some in sorted(units.partition_by(grouping, as_dict=True).items())
            }
            for category, figure in estimates(samples).items():
                yield grouping, category, measure, figure.n, figure.value, figure.ci_low, figure.ci_high


def _open_ends(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.select(
        "pair_id",
        **{
            f"{side}_ends_open": (
                ~pl.col(side).str.strip_chars_end().str.tail(1).str.contains(_SENTENCE_END)
            ).cast(pl.Float64)
            for side in ("chosen", "rejected")
        },
    )


def _flagged(pairs: pl.DataFrame) -> pl.DataFrame:
    """The flags of the pairs made here, and those of a sample of the imported pairs, which have none yet."""
    judged = pl.col("pair_judge") != NOT_JUDGED
    made = pairs.filter(judged).select("pair_id", "flags")
    some = sample_of(pairs.filter(~judged), FLAGGED)
    texts = some.select("prompt", "chosen", "rejected").iter_rows()
    read = some.select(
        "pair_id", flags=pl.Series([flags_of(*each) for each in texts], dtype=pl.List(pl.String))
    )
    return pl.concat([made, read]).select(
        "pair_id", *(pl.col("flags").list.contains(name).cast(pl.Float64).alias(name) for name in _FLAGS)
    )


def _details(pairs: pl.DataFrame, descriptions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    columns = (
        "pair_id",
        "chosen",
        "description",
        "prompt",
        "target",
        "premise",
        "hazard",
        "criteria",
        "policy",
    )
    known = descriptions.unique("clip_id", keep="first")
    described = pairs.join(known, on="clip_id", how="left", maintain_order="left").select(columns)
    return unsupported(described), other_motion(described)


def _english(pairs: pl.DataFrame) -> pl.DataFrame:
    """Whether at least a tenth of the words of each response are frequent English words."""
    shares = {}
    for side in ("chosen", "rejected"):
        words = word_counts(pairs[side])
        frequent = pairs[side].str.to_lowercase().str.count_matches(_ENGLISH)
        known = pl.DataFrame({"words": words, "frequent": frequent})
        shares[f"{side}_english"] = known.select(
            pl.when(pl.col("words") >= _FEW_WORDS).then(
                (10 * pl.col("frequent") >= pl.col("words")).cast(pl.Float64)
            )
        ).to_series()
    return pairs.select("pair_id", **shares)


def _composition(keys: pl.DataFrame) -> pl.DataFrame:
    schema = {"grouping": pl.String, "category": pl.String, "expectation": pl.String, "pairs": pl.Int64}
    parts = [
        keys.select(category=grouping, expectation="expectation")
        .group_by("category", "expectation")
        .agg(pairs=pl.len().cast(pl.Int64))
        .select(pl.lit(grouping).alias("grouping"), "category", "expectation", "pairs")
        for grouping in GROUPINGS
    ]
    return pl.concat([pl.DataFrame(schema=schema), *parts]).sort("grouping", "category", "expectation")
