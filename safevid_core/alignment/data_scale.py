"""Samples of the pairs for a data scale. The samples are nested and stratified by scene and subcategory."""

from __future__ import annotations

import polars as pl

from safevid_core.contracts.ids import content_id

STRATUM = ("scene", "subcategory")


def nested_sample(pairs: pl.DataFrame, data_scale: float) -> pl.DataFrame:
    """Return a sample of the pairs with the share `data_scale`, in the order of `pairs`.

    The method is systematic sampling. Each pair of a stratum (scene, subcategory) gets a place from 0 to 1:
    the pairs in hash order, at even steps, shifted by an offset from the hash of the stratum. The sample
    holds the pairs with the lowest places. Example: scale 0.1 of 1,932 pairs holds 193 pairs.

    The sample of a smaller scale is a subset of the sample of a larger one. The size is exact: it is rounded,
    and at least 1. Each stratum has its share to within one pair. New pairs in one stratum do not change the
    order within the others.

    Args:
        pairs: Rows with `pair_id` and the columns of STRATUM. A null counts as a stratum.
        data_scale: Above 0 and at most 1.

    Raises:
        ValueError: If `data_scale` is out of range.
    """
    if not 0 < data_scale <= 1:
        raise ValueError(
            f"data scale {data_scale:g} is not a share of the pairs; take one above 0, at most 1"
        )
    places = _places(pairs)
    count = min(pairs.height, max(1, round(data_scale * pairs.height)))
    taken = sorted(range(pairs.height), key=places.__getitem__)[:count]
    return pairs[sorted(taken)]


def _places(pairs: pl.DataFrame) -> list[tuple[float, str]]:
    """Return the place of each pair, from 0 to 1, and a hash that breaks ties."""
    hashes = [content_id("data scale", pair_id) for pair_id in pairs["pair_id"]]
    strata: dict[tuple[str, ...], list[int]] = {}
    for index, stratum in enumerate(pairs.select(STRATUM).iter_rows()):
        strata.setdefault(stratum, []).append(index)
    places = [(0.0, "")] * pairs.height
    for stratum, members in strata.items():
        offset = int(content_id("stratum", *stratum)[:12], 16) / 16**12
        for rank, index in enumerate(sorted(members, key=hashes.__getitem__)):
            places[index] = ((rank + offset) / len(members), hashes[index])
    return places
