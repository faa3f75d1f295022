"""Which clips are asked the queries that the allocation asks in a scene.

A query of a stratum can be asked about each clip in which its subcategory has ground, once a clip. A maximum
flow from clips to strata asks as many of the allocated queries as the clips have ground for, and spreads them
over the clips as evenly as the ground allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.rows import DescribedClip
from safevid_core.queries.cells import ClipGrounds, Kind, Phrasing, PlanCell, Walks
from safevid_core.queries.pair_allocation import Asked
from safevid_core.queries.styles import IMPLICIT
from safevid_core.settings import QuerySettings
from safevid_core.taxonomy.taxonomy import Taxonomy

_KINDS: tuple[Kind, ...] = ("implicit", "harmful", "benign", "premise", "question")


@dataclass(frozen=True)
class Assignment:
    """The queries of a scene.

    Attributes:
        cells: The queries to be written.
        ground_clips: :func:`ground_name` -> number of clips in which such a query has ground.
    """

    cells: list[PlanCell]
    ground_clips: dict[str, int]


def assign_cells(
    clips: Sequence[DescribedClip],
    walks: Walks,
    asked: Asked,
    queries_per_clip: int,
    queries: QuerySettings,
    taxonomy: Taxonomy,
    phrasing: Phrasing,
) -> Assignment:
    """The queries of one scene, as many as `asked` and the ground of its clips allow.

    Args:
        queries_per_clip: Most queries about a clip.
    """
    walked = [clip for clip in sorted(clips, key=lambda clip: clip.clip_id) if clip.clip_id in walks]
    possible = []
    for ordinal, clip in enumerate(walked):
        cells = _possible(clip, ordinal, walks, queries, taxonomy, phrasing)
        possible.append({(cell.subcategory, cell.style, cell.benign): cell for cell in cells})
    names = [sorted({ground_name(*key) for key in cells}) for cells in possible]
    wanted = [key for key, number in asked.items() if number > 0]
    chosen = _matched(
        [[key in cells for key in wanted] for cells in possible],
        [asked[key] for key in wanted],
        queries_per_clip,
        [clip.clip_id for clip in walked],
    )
    planned = [possible[clip][wanted[key]] for clip, key in chosen]
    return Assignment(planned, dict(sorted(Counter(name for some in names for name in some).items())))


def ground_name(subcategory: str, style: str, benign: bool) -> str:
    """The strata of a scene that have ground in the same clips, such as `hate_speech/named/harmful`.

    All styles but the implicit one have ground in the same clips.
    """
    words = "implicit" if style == IMPLICIT else "named"
    return f"{subcategory}/{words}/{'benign' if benign else 'harmful'}"


def _possible(
    clip: DescribedClip,
    ordinal: int,
    walks: Walks,
    queries: QuerySettings,
    taxonomy: Taxonomy,
    phrasing: Phrasing,
) -> Iterator[PlanCell]:
    """Every query that has ground in a clip."""
    found, answer = walks[clip.clip_id]
    grounds = ClipGrounds.of_walk(found, answer, taxonomy, ordinal)
    named = [style for style, share in queries.styles.items() if share > 0]
    for kind in _KINDS:
        styles = {"implicit": [IMPLICIT], "harmful": named, "benign": named}.get(kind, ["direct"])
        for subcategory, use, ground in grounds.of(kind):
            benign = kind == "benign" or (kind == "implicit" and use == "benign")
            for style in styles:
                yield PlanCell(clip.clip_id, subcategory.id, style, benign, phrasing, ground)


def _matched(
    possible: Sequence[Sequence[bool]], asked: Sequence[int], most: int, clip_ids: Sequence[str]
) -> list[tuple[int, int]]:
    """(clip, stratum) pairs: as many as possible, at most `most` a clip, as evenly as possible.

    The clips get up to one query each, then up to two, and so on. A flow that is the largest at one level can
    be enlarged to the largest at the next level without taking a query from a clip.

    Args:
        possible: For each clip, whether each stratum can be asked about it.
    """
    if not asked or not clip_ids:
        return []
    # An order by hash, so that no stratum prefers the clips of one source.
    order = np.array(sorted(range(len(clip_ids)), key=lambda clip: content_id(clip_ids[clip])))
    edges = np.array(possible, dtype=bool)[order]
    taken = np.zeros_like(edges)
    for level in range(1, most + 1):
        left, loads = np.array(asked) - taken.sum(axis=0), taken.sum(axis=1)
        if not left.any() or loads.max() < level - 1:
            break
        taken ^= _more(edges, taken, level - loads, left)
    return [(int(order[clip]), int(stratum)) for clip, stratum in np.argwhere(taken)]


def _more(edges: np.ndarray, taken: np.ndarray, room: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The pairs to add or to take back, so that as many more queries as possible are asked.

    No clip loses a query: only which queries it has may change. Node 0 of the flow is the source. The clips,
    the strata and the sink follow.

    Args:
        edges: Clip x stratum, whether the query can be asked.
        taken: The pairs so far.
        room: Queries that each clip may have more.
        left: Queries of each stratum that are not asked yet.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    clips, strata = edges.shape
    sink = clips + strata + 1
    add, back = np.nonzero(edges & ~taken), np.nonzero(taken)
    source, of_strata = np.zeros(clips, int), 1 + clips + np.arange(strata)
    rows = np.concatenate([source, 1 + add[0], 1 + clips + back[1], of_strata])
    columns = np.concatenate([1 + np.arange(clips), 1 + clips + add[1], 1 + back[0], np.full(strata, sink)])
    capacity = np.concatenate([room, np.ones(len(add[0]) + len(back[0]), int), left])
    graph = csr_array((capacity.astype(np.int32), (rows, columns)), shape=(sink + 1, sink + 1))
    changed: np.ndarray = maximum_flow(graph, 0, sink).flow[1 : clips + 1, clips + 1 : sink].toarray() != 0
    return changed
