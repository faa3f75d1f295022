"""SafeVidBench-Base: queries in held-out phrasings about clips that no training pair uses.

A release is known by the hash of its items; another set of items is another release.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.corpus.leakage import leaks
from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import WHOLE, Lake, StageReport, frame_hash, run_stage, settings_hash
from safevid_core.models.llm import Gateway
from safevid_core.queries.generation import IMPLICIT, PlanCell, ask_queries, plan_queries, query_inputs
from safevid_core.records import (
    CORPUS_SPLIT,
    DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    SCENE_ASSIGNMENTS,
    VIDEO_CORPUS,
    Outcome,
    StageRows,
    content_id,
)
from safevid_core.settings import Settings
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy

NAME = "safevidbench_base"

_CLIP_COLUMNS = (
    "clip_id", "source_id", "scene", "twin_group", "path", "media_sha256", "start_s", "end_s", "text",
)  # fmt: skip
# Where a file lies and which call wrote a query do not make another release.
_NOT_IN_RELEASE = ("release", "path", "request_key")

# Shares of the items by kind of query, ours. Together they keep the items that want a refusal or a
# correction and those that want an answer near half each, with every twin pair counted on both sides.
_SHARES = {
    "twins": 0.50,  # the same words asked of both clips of a pair: only the pixels tell
    "explicit": 0.18,  # the text names a harm
    "premise": 0.12,  # the text takes something false for granted
    "ask": 0.13,  # a plain question
    "benign": 0.05,  # the text names something harmless
    "shown": 0.02,  # as twins, of a clip that has none
}
# Cells asked for each item wanted of a kind: some will not apply, or be too weak.
_ASKED_FOR_ONE = 2


def make_safevidbench_base(settings: Settings, lake: Lake, gateway: Gateway) -> StageReport:
    """Plan and ask held-out queries about the benchmark clips, and choose the items from them.

    Raises:
        EvaluationError: If a benchmark clip shares a video, a near copy or a twin with a training clip.
    """
    taxonomy = load_taxonomy()
    descriptions = (
        lake.scan(DESCRIPTIONS)
        .filter(pl.col("split") == "benchmark")
        .select(_CLIP_COLUMNS)
        .sort("clip_id")
        .collect()
    )
    plan = enough_cells(
        plan_queries(descriptions, settings, taxonomy, "held_out"),
        descriptions,
        taxonomy,
        settings.evaluation.max_items,
    )

    def compute() -> StageRows:
        found = benchmark_leaks(lake, descriptions["clip_id"].to_list())
        if found:
            raise EvaluationError(
                f"{NAME}: {len(found)} leaks between train and benchmark, first: {found[0]}"
            )
        asked = ask_queries(plan, descriptions, settings, taxonomy, gateway, asset=NAME)
        items = choose_items(asked.rows, settings.evaluation.max_items)
        spent = {name: asked.info[name] for name in ("calls", "cached_calls", "cost_usd")}
        info = spent | {"release": items[0]["release"] if items else "", **composition(items)}
        return StageRows(SAFEVIDBENCH_BASE.frame(items), _outcomes(asked.outcomes, items), info)

    inputs = {
        "descriptions": frame_hash(descriptions.drop("path")),
        "max_items": settings_hash(settings.evaluation.max_items, _SHARES, _ASKED_FOR_ONE),
        **query_inputs(settings, taxonomy),
    }
    return run_stage(lake, SAFEVIDBENCH_BASE, WHOLE, inputs, [cell.plan_id for cell in plan], compute)


def enough_cells(
    plan: Sequence[PlanCell], descriptions: pl.DataFrame, taxonomy: Taxonomy, max_items: int
) -> list[PlanCell]:
    """The part of a plan that is asked: enough of each kind to choose the items from, in the plan's order.

    Asking costs; a plan over all held-out clips may be many times larger than the benchmark.
    """
    clips = {clip["clip_id"]: clip for clip in descriptions.iter_rows(named=True)}
    together: dict[str, list[PlanCell]] = defaultdict(list)
    for cell in plan:
        together[cell.mirrored_from or cell.plan_id].append(cell)
    units = [
        _Unit(
            _kind_of_cells(cells, taxonomy),
            clips[cells[0].clip_id]["twin_group"] or cells[0].clip_id,
            tuple(_as_row(cell, clips[cell.clip_id]) for cell in cells),
        )
        for cells in together.values()
    ]
    used = _Used()
    asked: set[str] = set()
    for kind, share in _SHARES.items():
        room = round(_ASKED_FOR_ONE * share * max_items)
        for unit in used.take([unit for unit in units if unit.kind == kind], room):
            asked |= {row["query_id"] for row in unit.rows}
    return [cell for cell in plan if cell.plan_id in asked]


def _as_row(cell: PlanCell, clip: dict[str, Any]) -> dict[str, Any]:
    return {
        "query_id": cell.plan_id,
        "subcategory": cell.subcategory,
        "style": cell.style,
        "scene": clip["scene"],
    }


def _kind_of_cells(cells: Sequence[PlanCell], taxonomy: Taxonomy) -> str:
    """What a cell's query will be if it applies; the asker has the last word."""
    principle = taxonomy[cells[0].subcategory].principle
    if principle == "harmless" and cells[0].style == IMPLICIT:
        return "twins" if len(cells) > 1 else "shown"
    if principle == "harmless":
        return "benign" if cells[0].benign else "explicit"
    return "premise" if principle == "honest" else "ask"


def benchmark_leaks(lake: Lake, clip_ids: Sequence[str] | None = None) -> list[str]:
    """One line for each training clip that shares something with a benchmark clip; none is as it should be.

    Args:
        clip_ids: The benchmark's clips. Defaults to those of the committed items.
    """
    used = lake.read(SAFEVIDBENCH_BASE)["clip_id"].to_list() if clip_ids is None else clip_ids
    groups = lake.read(CORPUS_SPLIT).select("clip_id", "group_id")
    copies = lake.scan(SCENE_ASSIGNMENTS).select("clip_id", "near_copy_of").collect()
    corpus = (
        lake.scan(VIDEO_CORPUS)
        .select("clip_id", "source_id", "media_sha256", "twin_group", "split")
        .collect()
        .join(groups, on="clip_id", how="left")
        .join(copies, on="clip_id", how="left")
    )
    in_benchmark = pl.col("clip_id").is_in(list(set(used)))
    return leaks(corpus.filter(pl.col("split") == "train"), corpus.filter(in_benchmark))


def choose_items(queries: Sequence[dict[str, Any]], max_items: int) -> list[dict[str, Any]]:
    """Items with ids and release: as many as asked for, balanced over kinds, scenes and subcategories.

    The same words asked of several clips of a twin group are one unit: all of them are chosen, or none.

    Args:
        queries: Rows with `query_id` and every column of `records.QUERY_COLUMNS`.
    """
    units = list(_units(queries))
    used = _Used()
    chosen: list[_Unit] = []
    for kind, share in _SHARES.items():
        chosen += used.take([unit for unit in units if unit.kind == kind], round(share * max_items))
    left = [unit for unit in units if unit not in chosen]
    chosen += used.take(left, max_items - sum(len(unit.rows) for unit in chosen))
    return _with_ids([row for unit in chosen for row in unit.rows])


def composition(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a set of items holds, for the stage's metadata."""
    units = list(_units(items))
    return {
        "items": len(items),
        "videos": len({item["clip_id"] for item in items}),
        "twin_pairs": sum(unit.kind == "twins" for unit in units),
        "by_kind": dict(Counter(unit.kind for unit in units for _ in unit.rows)),
        "by_expectation": dict(Counter(item["expectation"] for item in items)),
        "scenes": len({item["scene"] for item in items}),
    }


@dataclass(frozen=True, eq=False)
class _Unit:
    """Queries that are chosen together: one, or the same words asked of all twins of a group."""

    kind: str
    cluster: str
    rows: tuple[dict[str, Any], ...]

    @property
    def order(self) -> str:
        return content_id("unit", *(row["query_id"] for row in self.rows))


def _units(queries: Iterable[dict[str, Any]]) -> Iterator[_Unit]:
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in queries:
        shared = row["rule"] == "enable shown" and row["twin_group"] is not None
        together[(row["twin_group"], row["query"]) if shared else ("", row["plan_id"])].append(row)
    for rows in together.values():
        cluster = rows[0]["twin_group"] or rows[0]["clip_id"]
        twins = len({row["clip_id"] for row in rows}) > 1
        rows.sort(key=lambda row: (row["clip_id"], row["plan_id"]))
        kept = tuple({row["clip_id"]: row for row in reversed(rows)}.values())
        yield _Unit("twins" if twins else _kind_of(rows[0]), cluster, kept)


def _kind_of(row: dict[str, Any]) -> str:
    verb, _, rest = row["rule"].partition(" ")
    if verb == "enable" and rest != "shown":
        return "explicit" if row["explicit"] else "benign"
    return {"premise": "premise", "ask": "ask"}.get(verb, "shown")


class _Used:
    """How often each cluster, topic and scene was chosen; what was used least is chosen next."""

    def __init__(self) -> None:
        self._times: Counter[tuple[str, str]] = Counter()

    def take(self, units: Sequence[_Unit], room: int) -> list[_Unit]:
        """Units that fit into so many items; a unit that does not fit is passed over."""
        # Ranks only ever rise, so a rank that is still current when it comes up is the least.
        heap = [(self._rank(unit), unit.order, place) for place, unit in enumerate(units)]
        heapq.heapify(heap)
        taken: list[_Unit] = []
        while heap and room:
            stale, order, place = heapq.heappop(heap)
            unit = units[place]
            rank = self._rank(unit)
            if stale != rank:
                heapq.heappush(heap, (rank, order, place))
            elif len(unit.rows) <= room:
                self._times.update(_groups_of(unit))
                taken.append(unit)
                room -= len(unit.rows)
        return taken

    def _rank(self, unit: _Unit) -> tuple[int, ...]:
        return tuple(self._times[group] for group in _groups_of(unit))


def _groups_of(unit: _Unit) -> list[tuple[str, str]]:
    """What is to be balanced, the most important first; topics are balanced within their kind."""
    row = unit.rows[0]
    topic = f"{unit.kind} {row['subcategory']} {row['style']}"
    return [("cluster", unit.cluster), ("topic", topic), ("scene", row["scene"])]


def _with_ids(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    items = [
        {
            "item_id": content_id(NAME, row["plan_id"], row["query"]),
            "benchmark": NAME,
            "media": "video",
            **{name: value for name, value in row.items() if name != "query_id"},
        }
        for row in rows
    ]
    items.sort(key=lambda item: item["item_id"])
    release = frame_hash(SAFEVIDBENCH_BASE.frame(items).drop(_NOT_IN_RELEASE))[:16]
    return [{**item, "release": release} for item in items]


def _outcomes(
    asked: Sequence[tuple[str, Outcome, str]], items: Sequence[dict[str, Any]]
) -> list[tuple[str, Outcome, str]]:
    """What became of each plan cell: asked, and chosen or not."""
    chosen = {item["plan_id"] for item in items}
    room: tuple[Outcome, str] = ("filtered", "asked, and not among the items: its kind was full")
    return [
        (plan_id, outcome, reason) if outcome != "ok" or plan_id in chosen else (plan_id, *room)
        for plan_id, outcome, reason in asked
    ]
