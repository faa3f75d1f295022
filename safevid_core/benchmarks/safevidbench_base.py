"""SafeVidBench-Base: queries in held-out phrasings about clips that no training pair uses.

A release is known by the hash of its items; another set of items is another release, and one that is
drawn stays as it is whatever becomes of the corpus (:mod:`safevid_core.benchmarks.releases`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from safevid_core.benchmarks.balance import Balance
from safevid_core.benchmarks.benchmark import if_measured
from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.releases import as_release, plan_release, refuse_unanswered, stays_in_use
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import (
    CORPUS_SPLIT,
    DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_PLAN,
    VIDEO_CORPUS,
    Table,
)
from safevid_core.corpus.leakage import items_of, leaks, with_ties
from safevid_core.corpus.selection import expected_clips
from safevid_core.datasets.decontamination import NO_BENCHMARK_ITEMS
from safevid_core.estimates.budget import BUDGET
from safevid_core.queries.asking import ask_queries
from safevid_core.queries.cells import CLIP_COLUMNS, PlanCell
from safevid_core.queries.generation import plan_hash, query_inputs, questions_of
from safevid_core.queries.plan import plan_cells_of, read_plan
from safevid_core.queries.rating import require_other_family
from safevid_core.queries.styles import IMPLICIT
from safevid_core.settings import Settings
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Check, ExpectedRows, Finding, Forecast, Plan, Questions, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, frame_hash, settings_hash
from safevid_core.systems.leaks import answering_systems, checkpoint_leaks
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy

NAME = "safevidbench_base"

_CLIP_COLUMNS = ("source_id", *CLIP_COLUMNS)
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
ASKED_FOR_ONE = 2


def plan_safevidbench_plan(tools: Tools, partition: str) -> Plan:
    """Plan the queries about the benchmark clips, in the held-out phrasing.

    A plan from which the release in use was drawn stays, so that no model is asked for another.
    """
    lake = tools.lake
    plan = plan_cells_of(tools, held_out_descriptions(lake), SAFEVIDBENCH_PLAN, "held_out")
    planned = lake.manifest(SAFEVIDBENCH_PLAN.name, WHOLE) is not None
    return replace(plan, pinned=planned and stays_in_use(tools, SAFEVIDBENCH_BASE))


def plan_safevidbench_base(tools: Tools, partition: str) -> Plan:
    """Plan to ask held-out queries about the benchmark clips, and choose the items from them, once.

    A release that is in use stays so; `evaluation.releases` asks for another.

    Raises:
        BenchmarkError: If a benchmark clip shares a video, a near-duplicate or a twin with a training clip,
            the lake has no release of the name that the settings give, or questions went unanswered.
    """
    settings, lake, taxonomy = tools.settings, tools.lake, load_taxonomy(tools.settings)
    require_other_family(settings.queries)
    descriptions = held_out_descriptions(lake)
    clips = rows_of(descriptions, DescribedClip)
    cells = held_out_cells(lake, clips, taxonomy)
    plan = enough_cells(cells, clips, taxonomy, settings.evaluation.max_items)

    def draw(plan_ids: Sequence[str]) -> StageRows:
        refuse_leaks(settings, lake, descriptions, NAME)
        asked = ask_queries(plan, clips, settings, taxonomy, tools.gateway, asset=NAME)
        refuse_unanswered(NAME, asked.info)
        items = choose_items(asked.rows, settings.evaluation.max_items)
        spent = {name: asked.info[name] for name in ("calls", "cached_calls", "cost_usd")}
        info = spent | {"release": items[0]["release"] if items else "", **composition(items)}
        return StageRows(SAFEVIDBENCH_BASE.frame(items), _outcomes(asked.outcomes, items), info)

    drawn_from = {
        "descriptions": frame_hash(descriptions),
        "plan": plan_hash(read_plan(lake, SAFEVIDBENCH_PLAN)),
        "max_items": settings_hash(settings.evaluation.max_items, _SHARES, ASKED_FOR_ONE),
        **query_inputs(settings, taxonomy),
    }
    asked = questions_of(plan, clips, settings, taxonomy)
    plan_ids = [cell.plan_id for cell in plan]
    return plan_release(tools, SAFEVIDBENCH_BASE, Plan(drawn_from, plan_ids, draw, asked))


def _forecast_of_plan(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    """As many cells as the settings ask for on each benchmark clip, and one walk a clip."""
    queries = tools.settings.queries
    expected = [expected_clips(tools, scene) for scene in BY_SCENE.names(tools.settings)]
    clips = sum(every - train for every, train in expected)
    return Forecast(clips * queries.subcategories_per_clip, (Questions(queries.asker, clips),))


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    settings = tools.settings
    items = settings.evaluation.max_items
    asked = ASKED_FOR_ONE * items
    return Forecast(
        items, (Questions(settings.queries.asker, asked), Questions(settings.queries.rater, 2 * asked))
    )


def no_leaks(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
    """No benchmark clip shares a source video, near-duplicate or twin group with a training clip."""
    shared = benchmark_leaks(tools.lake, benchmark=stage.table, systems=answering_systems(tools.settings))
    return Finding(tuple(shared), {"items": tools.lake.read(stage.table).height})


NO_LEAKS = Check(
    "train_and_benchmark_never_meet",
    "No benchmark clip shares a source video, near-duplicate or twin group with a training clip.",
    no_leaks,
)

PLAN_STAGE = Stage(
    SAFEVIDBENCH_PLAN,
    "evaluation",
    "Which subcategories have ground in each benchmark clip, and which queries to write.",
    plan_safevidbench_plan,
    reads=(DESCRIPTIONS.name,),
    wanted=lambda stage, settings: (WHOLE,) if NAME in settings.evaluation.benchmarks else (),
    forecast=_forecast_of_plan,
    asks=True,
    gates=(BUDGET,),
)


def safevidbench_stage(
    table: Table,
    description: str,
    plan: Callable[[Tools, str], Plan],
    reads: Sequence[str],
    forecast: Callable[[Tools, str, ExpectedRows], Forecast],
    **more: Any,
) -> Stage:
    """The stage that draws a release of SafeVidBench.

    It asks models within the budget. It is wanted if the settings measure the benchmark.

    Args:
        more: Further fields of the stage.
    """
    return Stage(
        table, "evaluation", description, plan, tuple(reads), wanted=if_measured, forecast=forecast,
        asks=True, gates=(BUDGET,), checks=(NO_LEAKS, NO_BENCHMARK_ITEMS), **more,
    )  # fmt: skip


STAGE = safevidbench_stage(
    SAFEVIDBENCH_BASE,
    "Held-out phrasings over benchmark-split videos, balanced over scenes; an immutable release.",
    plan_safevidbench_base,
    (SAFEVIDBENCH_PLAN.name, DESCRIPTIONS.name, CORPUS_SPLIT.name),
    _forecast,
)


def held_out_descriptions(lake: Lake) -> pl.DataFrame:
    """The described clips of the benchmark split, by clip id."""
    return (
        lake.scan(DESCRIPTIONS)
        .filter(pl.col("split") == "benchmark")
        .select(_CLIP_COLUMNS)
        .sort("clip_id")
        .collect()
    )


def held_out_cells(lake: Lake, clips: Sequence[DescribedClip], taxonomy: Taxonomy) -> list[PlanCell]:
    """The cells of the committed plan whose clips are still described and whose subcategories still exist."""
    described = {clip.clip_id for clip in clips}
    return [
        cell
        for cell in read_plan(lake, SAFEVIDBENCH_PLAN)
        if cell.clip_id in described and cell.subcategory in taxonomy
    ]


def enough_cells(
    plan: Sequence[PlanCell], clips: Sequence[DescribedClip], taxonomy: Taxonomy, max_items: int
) -> list[PlanCell]:
    """The part of a plan that is asked: enough of each kind to choose the items from, in the plan's order.

    Asking costs; a plan over all held-out clips may be many times larger than the benchmark.
    """
    clip_of = {clip.clip_id: clip for clip in clips}
    together: dict[str, list[PlanCell]] = defaultdict(list)
    for cell in plan:
        together[cell.mirrored_from or cell.plan_id].append(cell)
    units = [
        _Unit(
            _kind_of_cells(cells, taxonomy),
            clip_of[cells[0].clip_id].twin_group or cells[0].clip_id,
            tuple(_as_row(cell, clip_of[cell.clip_id]) for cell in cells),
        )
        for cells in together.values()
    ]
    used = Balance()
    asked: set[str] = set()
    for kind, share in _SHARES.items():
        room = round(ASKED_FOR_ONE * share * max_items)
        for unit in used.take([unit for unit in units if unit.kind == kind], room):
            asked |= {row["query_id"] for row in unit.rows}
    return [cell for cell in plan if cell.plan_id in asked]


def _as_row(cell: PlanCell, clip: DescribedClip) -> dict[str, Any]:
    return {
        "query_id": cell.plan_id,
        "subcategory": cell.subcategory,
        "style": cell.style,
        "scene": clip.scene,
    }


def _kind_of_cells(cells: Sequence[PlanCell], taxonomy: Taxonomy) -> str:
    """What a cell's query will be if it applies; the asker has the last word."""
    principle = taxonomy[cells[0].subcategory].principle
    if principle == "harmless" and cells[0].style == IMPLICIT:
        return "twins" if len(cells) > 1 else "shown"
    if principle == "harmless":
        return "benign" if cells[0].benign else "explicit"
    return "premise" if principle == "honest" else "ask"


def refuse_leaks(settings: Settings, lake: Lake, clips: pl.DataFrame, benchmark: str) -> None:
    """Stop if one of the clips shares something with a training clip.

    Raises:
        BenchmarkError: With their number and the first of them.
    """
    found = benchmark_leaks(lake, clips, systems=answering_systems(settings))
    if found:
        raise BenchmarkError(
            f"{benchmark}: {len(found)} leaks between train and benchmark, first: {found[0]}; materialise "
            "video_corpus, or dpo_checkpoint where it names a checkpoint, and draw again"
        )


def benchmark_leaks(
    lake: Lake,
    clips: pl.DataFrame | None = None,
    benchmark: Table = SAFEVIDBENCH_BASE,
    systems: Sequence[str] | None = None,
) -> list[str]:
    """One line for each thing that a training clip shares with a benchmark clip; none is as it should be.

    Training clips are those of the corpus as it is, and those that the checkpoints were trained on. A clip
    of a release counts also after it left the corpus.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s, twin_group`. Defaults to those of the committed
            items.
        benchmark: Whose items those are.
        systems: Whose checkpoints. Defaults to all that the lake holds.
    """
    used = with_ties(lake, items_of(lake, benchmark) if clips is None else clips)
    columns = ("clip_id", "media_sha256", "start_s", "end_s", "twin_group")
    train = lake.scan(VIDEO_CORPUS).filter(pl.col("split") == "train").select(columns).collect()
    return leaks(with_ties(lake, train), used) + checkpoint_leaks(lake, used, systems)


def choose_items(queries: Sequence[dict[str, Any]], max_items: int) -> list[dict[str, Any]]:
    """Items with ids and release: as many as asked for, balanced over kinds, scenes and subcategories.

    The same words asked of several clips of a twin group are one unit: all of them are chosen, or none.

    Args:
        queries: Rows with `query_id` and every column of `tables.QUERY_COLUMNS`.
    """
    units = list(_units(queries))
    used = Balance()
    chosen: list[_Unit] = []
    for kind, share in _SHARES.items():
        chosen += used.take([unit for unit in units if unit.kind == kind], round(share * max_items))
    left = [unit for unit in units if unit not in chosen]
    chosen += used.take(left, max_items - sum(len(unit.rows) for unit in chosen))
    rows = [row for unit in chosen for row in unit.rows]
    return as_release(SAFEVIDBENCH_BASE, [item_of(NAME, row) for row in rows])


def item_of(benchmark: str, row: dict[str, Any]) -> dict[str, Any]:
    """A query as an item of a benchmark of clips: known by its plan cell and its words."""
    return {
        "item_id": content_id(benchmark, row["plan_id"], row["query"]),
        "benchmark": benchmark,
        "media": "video",
        **{name: value for name, value in row.items() if name != "query_id"},
    }


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
    def size(self) -> int:
        return len(self.rows)

    @property
    def order(self) -> str:
        return content_id("unit", *(row["query_id"] for row in self.rows))

    @property
    def groups(self) -> list[tuple[str, str]]:
        """What is to be balanced, the most important first; topics are balanced within their kind."""
        row = self.rows[0]
        topic = f"{self.kind} {row['subcategory']} {row['style']}"
        return [("cluster", self.cluster), ("topic", topic), ("scene", row["scene"])]


def _units(queries: Iterable[dict[str, Any]]) -> Iterator[_Unit]:
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in queries:
        shared = row["style"] == IMPLICIT and row["twin_group"] is not None
        together[(row["twin_group"], row["query"]) if shared else ("", row["plan_id"])].append(row)
    for rows in together.values():
        cluster = rows[0]["twin_group"] or rows[0]["clip_id"]
        twins = len({row["clip_id"] for row in rows}) > 1
        rows.sort(key=lambda row: (row["clip_id"], row["plan_id"]))
        kept = tuple({row["clip_id"]: row for row in reversed(rows)}.values())
        yield _Unit("twins" if twins else _kind_of(rows[0]), cluster, kept)


def _kind_of(row: dict[str, Any]) -> str:
    if row["principle"] == "harmless":
        if row["style"] == IMPLICIT:
            return "shown"
        return "explicit" if row["explicit"] else "benign"
    return "premise" if row["principle"] == "honest" else "ask"


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
