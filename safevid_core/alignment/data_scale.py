"""Which pairs belong to a data scale: nested, stratified by scene and subcategory."""

from __future__ import annotations

import polars as pl

from safevid_core.records import content_id

STRATUM = ("scene", "subcategory")


def nested_sample(pairs: pl.DataFrame, data_scale: float) -> pl.DataFrame:
    """The share `data_scale` of the pairs, in the order of the whole.

    Systematic sampling: the pairs of a stratum (scene, subcategory), in hash order, stand at even steps
    from 0 to 1, behind an offset drawn from the stratum's hash, and the first `data_scale` of all pairs
    by that place are taken. So a smaller scale is a subset of a larger one, the size is exact (rounded,
    at least one pair), and no stratum strays by more than one pair from its share at the cut. Adding
    pairs to one stratum leaves the order within the others as it was.

    Args:
        pairs: Rows with `pair_id` and the columns of STRATUM; null is a stratum of its own.
        data_scale: Above 0, at most 1.
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
    """A place from 0 to 1 for each pair, with a hash that breaks ties."""
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
