"""The pairs that a policy trains on: those of the release, or what its arm has in their place."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from safevid_core.lake import Lake
from safevid_core.preferences.release import release_id
from safevid_core.records import OWN_STYLE_ANSWERS, PAIRS, RELEASE, WITHOUT_DESCRIPTIONS, Track, lossy
from safevid_core.settings import LOSSES


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
        return _of_track(lake, WITHOUT_DESCRIPTIONS, release)
    if trained_on in LOSSES:
        return _of_track(lake, lossy(trained_on), release)
    return TrainingPairs(release, RELEASE.name)


def _of_track(lake: Lake, track: Track, release: pl.DataFrame) -> TrainingPairs:
    """Pairs that were made beside the release's, as many of them as it holds."""
    prefix = track.partition("")
    mine = [name for name in lake.partitions(track.pairs.name) if name.startswith(prefix)]
    pairs = lake.scan(track.pairs, mine).select(PAIRS.schema.names()).sort("pair_id").collect()
    rows = pairs.with_columns(pl.lit(release_id(pairs)).alias("release"))
    share = min(1.0, release.height / max(1, pairs.height))
    made_by = f"{track.pairs.name}[{track.loss}]" if track.loss else track.pairs.name
    return TrainingPairs(rows, made_by, share)
