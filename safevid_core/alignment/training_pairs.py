"""The pairs that a policy trains on: those of the release, or those of a control run."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from safevid_core.contracts.tables import (
    OWN_STYLE_ANSWERS,
    PAIRS,
    RELEASE,
    WITHOUT_DESCRIPTIONS,
    Track,
    lossy,
)
from safevid_core.corpus.leakage import held_out
from safevid_core.corpus.withdrawn import refuse_withdrawn
from safevid_core.datasets.release_folder import release_id
from safevid_core.datasets.splits import TRAIN, sources_of, with_splits
from safevid_core.settings import LOSSES
from safevid_core.storage.lake import Lake


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs with the columns of a release.

    Attributes:
        rows: The pairs. `chosen` is null if the control run has no chosen response for the pair.
        made_by: The stage that wrote them.
        share: Share of the rows that has the size of the release, at most 1. It keeps a control run with more
            pairs from winning by their number. Example: 0.5 for 2,000 rows and a release of 1,000 pairs.
        held_out: Pair id -> reason, for pairs that were removed because a benchmark uses their clip, or
            because they are in the validation split.
    """

    rows: pl.DataFrame
    made_by: str
    share: float = 1.0
    held_out: dict[str, str] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """Content id of the pairs."""
        return str(self.rows["release"][0])

    @property
    def are_empty(self) -> bool:
        return self.rows["chosen"].null_count() == self.rows.height


def read_training_pairs(lake: Lake, trained_on: str) -> TrainingPairs:
    """Return the training pairs without the held-out ones.

    A pair is held out if it is in the validation split, or if its clip is on the benchmark side. It is also
    held out if its clip shares a source video, a near-duplicate or a twin group with a clip of a benchmark
    release that is in use.

    Args:
        lake: The lake.
        trained_on: A value of `Policy.trained_on`. Example: `own_style`.

    Raises:
        WithdrawnError: If the release holds pairs of withdrawn clips.
    """
    released = lake.read(RELEASE)
    refuse_withdrawn(lake, released, f"the release in {RELEASE.name}")
    share = _validation_share(lake)
    release, removed = _without_held_out(lake, released, share)
    if trained_on == "own_style":
        answers = lake.scan(OWN_STYLE_ANSWERS).select("pair_id", "chosen").collect()
        rows = release.drop("chosen").join(answers, on="pair_id", how="left", maintain_order="left")
        return TrainingPairs(rows, OWN_STYLE_ANSWERS.name, held_out=removed)
    if trained_on == "without_descriptions":
        return _of_track(lake, WITHOUT_DESCRIPTIONS, release, share)
    if trained_on in LOSSES:
        return _of_track(lake, lossy(trained_on), release, share)
    return TrainingPairs(release, RELEASE.name, held_out=removed)


def _of_track(lake: Lake, track: Track, release: pl.DataFrame, validation: float) -> TrainingPairs:
    """Return the pairs of a control run's track. `share` limits them to the size of the release."""
    prefix = track.partition("")
    mine = [name for name in lake.partitions(track.pairs.name) if name.startswith(prefix)]
    made = lake.scan(track.pairs, mine).select(PAIRS.schema.names()).sort("pair_id").collect()
    pairs, removed = _without_held_out(lake, made, validation)
    rows = pairs.with_columns(pl.lit(release_id(pairs)).alias("release"))
    share = min(1.0, release.height / max(1, pairs.height))
    made_by = f"{track.pairs.name}[{track.loss}]" if track.loss else track.pairs.name
    return TrainingPairs(rows, made_by, share, removed)


def _validation_share(lake: Lake) -> float:
    """The share of source videos that the release keeps for validation."""
    manifest = lake.manifest(RELEASE.name)
    return 0.0 if manifest is None else float(manifest.info.get("validation_share", 0.0))


def _without_held_out(
    lake: Lake, pairs: pl.DataFrame, validation: float
) -> tuple[pl.DataFrame, dict[str, str]]:
    why = held_out(lake, pairs)
    if validation:
        told = pairs if "split" in pairs.columns else with_splits(pairs, sources_of(lake, pairs), validation)
        others = told.filter(pl.col("split") != TRAIN)["clip_id"].unique()
        why = {**dict.fromkeys(others, "its source video is in the validation split"), **why}
    of_pairs = pairs.filter(pl.col("clip_id").is_in(list(why))).select("pair_id", "clip_id")
    kept = pairs.filter(~pl.col("pair_id").is_in(of_pairs["pair_id"].implode())) if why else pairs
    return kept, {pair: why[clip] for pair, clip in of_pairs.iter_rows()}
