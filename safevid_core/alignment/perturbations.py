"""What spoiled arms train on: pairs whose videos or labels were exchanged."""

from __future__ import annotations

import random
from collections import Counter

import polars as pl

from safevid_core.alignment.errors import AlignmentError

CLIP_COLUMNS = ("clip_id", "twin_group", "path", "media_sha256", "start_s", "end_s")


def perturb(pairs: pl.DataFrame, perturbation: str, seed: int) -> pl.DataFrame:
    """The pairs as one arm sees them; the same seed gives the same pairs.

    An arm of text alone (`text_only`) has the pairs as they are: the training shows no video.
    """
    rng = random.Random(f"{perturbation}:{seed}")
    if perturbation == "permuted_videos":
        return permute_videos(pairs, rng)
    if perturbation == "shuffled_labels":
        return shuffle_labels(pairs, rng)
    return pairs


def permute_videos(pairs: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Every pair with another pair's clip: never its own clip, nor its twin's.

    The clips keep their numbers of pairs; only who meets whom is drawn anew.

    Raises:
        AlignmentError: If one clip with its twin holds more than half of the pairs.
    """
    owners = [twin or clip for clip, twin in pairs.select("clip_id", "twin_group").iter_rows()]
    donors = _derangement(owners, rng)
    clips = pairs.select(CLIP_COLUMNS)[donors]
    return pairs.with_columns(clips[name] for name in CLIP_COLUMNS)


def shuffle_labels(pairs: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Half of the pairs, drawn at random, with chosen and rejected exchanged."""
    swapped = set(rng.sample(range(pairs.height), pairs.height // 2))
    flag = pl.Series("swapped", [index in swapped for index in range(pairs.height)])
    return pairs.with_columns(
        pl.when(flag).then(pl.col("rejected")).otherwise(pl.col("chosen")).alias("chosen"),
        pl.when(flag).then(pl.col("chosen")).otherwise(pl.col("rejected")).alias("rejected"),
    )


def _derangement(owners: list[str], rng: random.Random) -> list[int]:
    """A random permutation of the indices in which no index meets one of its own owner.

    Each conflict of a random permutation is mended by exchange with an index that makes no new one; at
    most 2 * largest - 1 indices would make one, so there always is such an index.
    """
    count = len(owners)
    largest = max(Counter(owners).values(), default=0)
    if 2 * largest > count:
        raise AlignmentError(
            f"videos cannot be permuted: one clip holds {largest} of {count} pairs; "
            "add clips from more videos"
        )
    donors = rng.sample(range(count), count)
    for index in range(count):
        if owners[donors[index]] == owners[index]:
            fitting = [
                other
                for other in range(count)
                if owners[donors[other]] != owners[index] and owners[donors[index]] != owners[other]
            ]
            other = rng.choice(fitting)
            donors[index], donors[other] = donors[other], donors[index]
    return donors
