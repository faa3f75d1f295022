"""Which subcategories a provider refuses to write about: where many are missing, the data are bent.

Rows that a provider refused end `undecidable` with reason `provider_refusal`. They leave the data
unevenly: a subcategory that is refused most is learned least.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from safevid_core.lake import Lake
from safevid_core.models.llm import PROVIDER_REFUSAL
from safevid_core.queries.generation import plan_queries, training_clips
from safevid_core.records import AS_DESCRIBED, OUTCOME_SCHEMA, Table, Track
from safevid_core.settings import Settings
from safevid_core.taxonomy.taxonomy import load_taxonomy

MOST_REFUSED = 0.2  # ours
_REFUSED = (pl.col("outcome") == "undecidable") & pl.col("reason").str.contains(PROVIDER_REFUSAL)


def refused_queries(settings: Settings, lake: Lake, track: Track = AS_DESCRIBED) -> pl.DataFrame:
    """Refusals among a track's planned queries, see :func:`refused_shares`; no row where there is none."""
    partitions, outcomes = _committed(lake, track, track.queries)
    if outcomes.filter(_REFUSED).is_empty():  # as nearly always; planning a whole corpus anew takes its time
        return refused_shares(outcomes, {})
    taxonomy = load_taxonomy()
    subcategories = {}
    for partition in partitions:
        plan = plan_queries(training_clips(lake, partition, track), settings, taxonomy, "train")
        subcategories.update({cell.plan_id: cell.subcategory for cell in plan})
    return refused_shares(outcomes, subcategories)


def refused_pairs(lake: Lake, track: Track = AS_DESCRIBED) -> pl.DataFrame:
    """Refusals of either answer among a track's queries; see :func:`refused_shares`."""
    partitions, outcomes = _committed(lake, track, track.pairs)
    queries = lake.scan(track.queries, partitions).select("query_id", "subcategory").collect()
    return refused_shares(outcomes, dict(queries.iter_rows()))


def _committed(lake: Lake, track: Track, table: Table) -> tuple[list[str], pl.DataFrame]:
    """A track's partitions of a table that others may share, and their outcomes."""
    partitions = [each for each in lake.partitions(table.name) if each.startswith(track.partition(""))]
    outcomes = [lake.outcomes(table.name, partition) for partition in partitions]
    return partitions, pl.concat([pl.DataFrame(schema=OUTCOME_SCHEMA), *outcomes])


def refused_shares(
    outcomes: pl.DataFrame, subcategories: Mapping[str, str], most: float = MOST_REFUSED
) -> pl.DataFrame:
    """How much of each subcategory a provider refused.

    Args:
        outcomes: Columns `input_id, outcome, reason`.
        subcategories: Input id -> its subcategory. Outcomes of other ids are left out: they are of an
            older plan.
        most: The largest share, 0 to 1, that passes. Defaults to 0.2.

    Returns:
        One row a subcategory, the most refused first: `subcategory, asked, refused, share, too_many`.
    """
    known = pl.DataFrame(
        {"input_id": list(subcategories), "subcategory": list(subcategories.values())},
        schema={"input_id": pl.String, "subcategory": pl.String},
    )
    return (
        outcomes.join(known, on="input_id")
        .group_by("subcategory")
        .agg(asked=pl.len().cast(pl.Int64), refused=_REFUSED.sum().cast(pl.Int64))
        .with_columns(share=pl.col("refused") / pl.col("asked"))
        .with_columns(too_many=pl.col("share") > most)
        .sort("share", "subcategory", descending=[True, False])
    )
