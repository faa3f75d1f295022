"""The pairs that a policy trains on: those of the release, or what its arm has in their place."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from safevid_core.corpus.leakage import held_out
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
        held_out: Pair id -> why it is not among them, of pairs about what a benchmark asks about.
    """

    rows: pl.DataFrame
    made_by: str
    share: float = 1.0
    held_out: dict[str, str] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """Id of the pairs' content."""
        return str(self.rows["release"][0])

    @property
    def are_empty(self) -> bool:
        return self.rows["chosen"].null_count() == self.rows.height


def read_training_pairs(lake: Lake, trained_on: str) -> TrainingPairs:
    """The pairs under the name by which `Policy.trained_on` asks for them, without those that are held out.

    A pair is held out if its clip is on the side benchmark, or shares a source video, a near copy or a twin
    group with a clip of a benchmark's release in use.
    """
    release, aside = _without_held_out(lake, lake.read(RELEASE))
    if trained_on == "own_style":
        answers = lake.scan(OWN_STYLE_ANSWERS).select("pair_id", "chosen").collect()
        rows = release.drop("chosen").join(answers, on="pair_id", how="left", maintain_order="left")
        return TrainingPairs(rows, OWN_STYLE_ANSWERS.name, held_out=aside)
    if trained_on == "without_descriptions":
        return _of_track(lake, WITHOUT_DESCRIPTIONS, release)
    if trained_on in LOSSES:
        return _of_track(lake, lossy(trained_on), release)
    return TrainingPairs(release, RELEASE.name, held_out=aside)


def _of_track(lake: Lake, track: Track, release: pl.DataFrame) -> TrainingPairs:
    """Pairs that were made beside the release's, as many of them as it holds."""
    prefix = track.partition("")
    mine = [name for name in lake.partitions(track.pairs.name) if name.startswith(prefix)]
    made = lake.scan(track.pairs, mine).select(PAIRS.schema.names()).sort("pair_id").collect()
    pairs, aside = _without_held_out(lake, made)
    rows = pairs.with_columns(pl.lit(release_id(pairs)).alias("release"))
    share = min(1.0, release.height / max(1, pairs.height))
    made_by = f"{track.pairs.name}[{track.loss}]" if track.loss else track.pairs.name
    return TrainingPairs(rows, made_by, share, aside)


def _without_held_out(lake: Lake, pairs: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    why = held_out(lake, pairs)
    of_pairs = pairs.filter(pl.col("clip_id").is_in(list(why))).select("pair_id", "clip_id")
    kept = pairs.filter(~pl.col("pair_id").is_in(of_pairs["pair_id"].implode())) if why else pairs
    return kept, {pair: why[clip] for pair, clip in of_pairs.iter_rows()}
