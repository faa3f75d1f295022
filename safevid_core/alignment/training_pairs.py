"""The pairs that a policy trains on: those of the release, or what its arm has in their place."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from safevid_core.lake import Lake
from safevid_core.preferences.release import release_id
from safevid_core.records import OWN_STYLE_ANSWERS, PAIRS, PAIRS_WITHOUT_DESCRIPTIONS, RELEASE


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs with the columns of a release.

    Attributes:
        rows: All of them; `chosen` is null where the arm has no answer of its own.
        made_by: The stage that they come from.
        share: The share of them that is as many as the release holds, at most 1: an arm with more pairs
            must not win by their number.
    """

    rows: pl.DataFrame
    made_by: str
    share: float = 1.0

    @property
    def release(self) -> str:
        """Id of the pairs' content."""
        return str(self.rows["release"][0])

    @property
    def are_empty(self) -> bool:
        return self.rows["chosen"].null_count() == self.rows.height


def read_training_pairs(lake: Lake, trained_on: str) -> TrainingPairs:
    """The pairs under the name by which `Policy.trained_on` asks for them."""
    release = lake.read(RELEASE)
    if trained_on == "own_style":
        answers = lake.scan(OWN_STYLE_ANSWERS).select("pair_id", "chosen").collect()
        rows = release.drop("chosen").join(answers, on="pair_id", how="left", maintain_order="left")
        return TrainingPairs(rows, OWN_STYLE_ANSWERS.name)
    if trained_on == "without_descriptions":
        pairs = lake.scan(PAIRS_WITHOUT_DESCRIPTIONS).select(PAIRS.schema.names()).sort("pair_id").collect()
        rows = pairs.with_columns(pl.lit(release_id(pairs)).alias("release"))
        share = min(1.0, release.height / max(1, pairs.height))
        return TrainingPairs(rows, PAIRS_WITHOUT_DESCRIPTIONS.name, share)
    return TrainingPairs(release, RELEASE.name)
