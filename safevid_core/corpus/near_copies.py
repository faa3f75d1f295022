"""Finds clips that show the same pictures (near-duplicates) and groups them.

The embeddings propose pairs: their cosine is at least `corpus.near_copy`. Two different clips of one kitchen
reach that too, so thumbnails of the same frames confirm each pair. Differences of grey values that were
measured, as the mean over a clip and as the worst 4 x 4 block:

- rendered clips encoded again (CRF 28 to 42) or scaled: at most 7.2 and 29
- real clips at half the frame rate: at most 3.8 and 25
- clips that differ in one small object: at least 55 in the worst block
- other clips of one scene: at least 14 in the mean
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Member = TypeVar("Member", bound=Hashable)

THUMBNAIL_SIDE = 32
_BLOCK = 4
_MAX_MEAN_DIFFERENCE = 9.0
_MAX_BLOCK_DIFFERENCE = 42.0
# Added to every value before the vectors are normalised. The mean squared difference of two near-duplicates
# is at most their mean difference times their largest one. Every value is at least the offset, so the squared
# distance of the unit vectors is at most that product / offset^2.
_OFFSET = 64.0
PIXEL_COSINE = 1 - _MAX_MEAN_DIFFERENCE * _MAX_BLOCK_DIFFERENCE / _OFFSET**2 / 2
_ROWS_AT_ONCE = 2048
_PAIRS_AT_ONCE = 512


def connected_groups(
    members: Sequence[Member], links: Iterable[tuple[Hashable, Hashable]]
) -> list[list[Member]]:
    """The connected components of a graph, in the order of their first members.

    Args:
        members: The nodes, each once.
        links: Edges between two members, or between a member and a thing that members share. Example: the
            edge from a clip to its source video connects all clips of that video.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place: dict[Hashable, int] = {member: number for number, member in enumerate(members)}
    ends = [[place.setdefault(end, len(place)) for end in link] for link in links]
    rows, columns = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(ends), dtype=bool), (rows, columns)), shape=(len(place), len(place)))
    labels = connected_components(graph, directed=False)[1].tolist()
    groups: dict[int, list[Member]] = {}
    for member, label in zip(members, labels, strict=False):
        groups.setdefault(label, []).append(member)
    return list(groups.values())


def near_copy_pairs(
    embeddings: np.ndarray, thumbnails: np.ndarray, min_cosine: float, between: int | None = None
) -> list[tuple[int, int]]:
    """Pairs of near-duplicates, as row numbers `i < j`.

    Args:
        embeddings: Unit vectors, float `[N, D]`.
        thumbnails: The same few frames of each clip, uint8 `[N, T, 32, 32, 3]`.
        min_cosine: Pairs with a lower cosine of the embeddings are no near-duplicates.
        between: Compares each row before this number with each row from this number on. None compares all
            rows.
    """
    coarse = _blocks(thumbnails)
    found: list[tuple[int, int]] = []
    first = between or 0
    for start in range(0, len(embeddings) if between is None else between, _ROWS_AT_ONCE):
        end = start + _ROWS_AT_ONCE if between is None else min(start + _ROWS_AT_ONCE, between)
        cosines = embeddings[start:end] @ embeddings[first:].T
        rows, columns = np.nonzero(cosines >= min_cosine)
        later = columns + first > rows + start
        proposed = np.stack([rows[later] + start, columns[later] + first], axis=1)
        found += _same_pixels(proposed, thumbnails, coarse)
    return found


def pixel_vectors(thumbnails: np.ndarray) -> np.ndarray:
    """Unit vectors float32 `[N, D]` of the thumbnails, for clips without embeddings by the same embedder.

    Near-duplicates have a cosine of at least `PIXEL_COSINE`.
    """
    flat = _blocks(thumbnails).reshape(len(thumbnails), -1) + _OFFSET
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def copies_of(
    ids: Sequence[str],
    pairs: Iterable[tuple[int, int]],
    twin_groups: Mapping[str, str | None],
    order: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Near-duplicate -> the clip that it copies, which is the first clip of its group.

    The order within a group is by the number in `order`, then clips with twins before clips without, then by
    id. Members of one twin group are never copies of each other.

    Args:
        order: Clip -> number. A clip without a number has 0. None means 0 for all.
    """
    place = order or {}
    links = ((ids[i], ids[j]) for i, j in pairs if not _are_twins(ids[i], ids[j], twin_groups))
    copies: dict[str, str] = {}
    for group in connected_groups(ids, links):
        first, *others = sorted(
            group, key=lambda clip: (place.get(clip, 0), twin_groups.get(clip) is None, clip)
        )
        copies |= {clip: first for clip in others if not _are_twins(clip, first, twin_groups)}
    return copies


def _are_twins(one: str, other: str, twin_groups: Mapping[str, str | None]) -> bool:
    return twin_groups.get(one) is not None and twin_groups.get(one) == twin_groups.get(other)


def _same_pixels(proposed: np.ndarray, thumbnails: np.ndarray, coarse: np.ndarray) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start in range(0, len(proposed), _PAIRS_AT_ONCE):
        i, j = proposed[start : start + _PAIRS_AT_ONCE].T
        worst_block = np.abs(coarse[i] - coarse[j]).max(axis=(1, 2, 3, 4))
        i, j = i[worst_block <= _MAX_BLOCK_DIFFERENCE], j[worst_block <= _MAX_BLOCK_DIFFERENCE]
        difference = np.abs(thumbnails[i].astype(np.int16) - thumbnails[j])
        same = difference.mean(axis=(1, 2, 3, 4)) <= _MAX_MEAN_DIFFERENCE
        found += list(zip(i[same].tolist(), j[same].tolist(), strict=True))
    return found


def _blocks(thumbnails: np.ndarray) -> np.ndarray:
    """Means of 4 x 4 pixel blocks: float32 `[N, T, 8, 8, 3]`."""
    count, frames, side = thumbnails.shape[:3]
    cut = thumbnails.reshape(count, frames, side // _BLOCK, _BLOCK, side // _BLOCK, _BLOCK, 3)
    return cut.mean(axis=(3, 5), dtype=np.float32)
