"""Which clips are asked the queries that the allocation asks in a scene.

A query of a cell can be asked about each clip in which its subcategory has ground, once a clip. A maximum
flow from clips to cells asks as many of the allocated queries as the clips have ground for, and spreads them
over the clips as evenly as that allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    """The cells of a scene that have ground in the same clips, such as `hate_speech/named/harmful`.

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
    """(clip, cell) pairs: as many as possible, at most `most` a clip, as evenly as that allows.

    Args:
        possible: For each clip, whether each cell can be asked about it.
    """
    if not asked or not clip_ids:
        return []
    # An order by hash, so that no cell prefers the clips of one source.
    order = np.array(sorted(range(len(clip_ids)), key=lambda clip: content_id(clip_ids[clip])))
    edges = np.array(possible, dtype=bool)[order]
    best = _flow(edges, asked, most)
    low, high = -(-len(best) // len(clip_ids)), most
    while low < high:
        middle = (low + high) // 2
        found = _flow(edges, asked, middle)
        if len(found) == len(best):
            best, high = found, middle
        else:
            low = middle + 1
    return [(int(order[clip]), int(cell)) for clip, cell in best]


def _flow(edges: np.ndarray, asked: Sequence[int], most: int) -> list[tuple[int, int]]:
    """The edges of a maximum flow: node 0 is the source, then the clips, then the cells, then the sink."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    clips, cells = edges.shape
    at, to = np.nonzero(edges)
    sink = clips + cells + 1
    rows = np.concatenate([np.zeros(clips, int), 1 + at, 1 + clips + np.arange(cells)])
    columns = np.concatenate([1 + np.arange(clips), 1 + clips + to, np.full(cells, sink)])
    capacity = np.concatenate([np.full(clips, most), np.ones(len(at), int), np.array(asked)])
    graph = csr_array((capacity.astype(np.int32), (rows, columns)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, 0, sink).flow[1 : clips + 1, clips + 1 : sink].tocoo()
    used: Any = flow.data > 0
    return sorted(zip(flow.row[used].tolist(), flow.col[used].tolist(), strict=True))
