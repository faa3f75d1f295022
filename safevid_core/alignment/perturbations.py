"""The training pairs of control runs: videos permuted between pairs, or labels shuffled."""

from __future__ import annotations

import random
from collections import Counter

import polars as pl

from safevid_core.alignment.errors import AlignmentError

CLIP_COLUMNS = ("clip_id", "twin_group", "media_sha256", "start_s", "end_s")


def perturb(pairs: pl.DataFrame, perturbation: str, seed: int) -> pl.DataFrame:
    """Return the pairs of one control run. The same seed gives the same pairs.

    Args:
        pairs: Rows of a release.
        perturbation: `permuted_videos` or `shuffled_labels`. Any other value returns the pairs unchanged.
            Example: `text_only` changes no pair, because the training leaves the video out.
        seed: Seed of the random numbers.
    """
    rng = random.Random(f"{perturbation}:{seed}")
    if perturbation == "permuted_videos":
        return permute_videos(pairs, rng)
    if perturbation == "shuffled_labels":
        return shuffle_labels(pairs, rng)
    return pairs


def permute_videos(pairs: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Return the pairs with their clips permuted at random.

    No pair gets its own clip or the twin of its own clip. Each clip keeps its number of pairs.

    Raises:
        AlignmentError: If one clip and its twin have more than half of the pairs.
    """
    owners = [twin or clip for clip, twin in pairs.select("clip_id", "twin_group").iter_rows()]
    donors = _derangement(owners, rng)
    clips = pairs.select(CLIP_COLUMNS)[donors]
    return pairs.with_columns(clips[name] for name in CLIP_COLUMNS)


def shuffle_labels(pairs: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Return the pairs with chosen and rejected exchanged in a random half of them."""
    swapped = set(rng.sample(range(pairs.height), pairs.height // 2))
    flag = pl.Series("swapped", [index in swapped for index in range(pairs.height)])
    return pairs.with_columns(
        pl.when(flag).then(pl.col("rejected")).otherwise(pl.col("chosen")).alias("chosen"),
        pl.when(flag).then(pl.col("chosen")).otherwise(pl.col("rejected")).alias("rejected"),
    )


def _derangement(owners: list[str], rng: random.Random) -> list[int]:
    """Return a random permutation of the indices that maps no index to one with the same owner.

    The function starts from a random permutation and resolves each conflict by a swap with an index that
    creates no new conflict. At most 2 * largest - 1 indices would create one, so such an index exists.
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
