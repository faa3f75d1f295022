"""The stage `pair_yield`: what became of the allocation, planned against made, stratum by stratum.

Each asked query ends in one column: it became a pair of the release, or the reason why not. Example: of 40
asked queries, 4 have no ground in a clip, 3 were rated weak, 5 pairs were dropped by the pair judge, and 28
were released. A later round of the allocation reads these figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import (
    PAIR_ALLOCATION,
    PAIR_YIELD,
    PAIRS,
    QUERY_PLAN,
    RELEASE,
    STRATUM_COLUMNS,
    TAXONOMY_QUERIES,
)
from safevid_core.queries.allocation_program import AllocationError
from safevid_core.queries.asking import NO_GROUND
from safevid_core.queries.assignment import ground_name
from safevid_core.queries.pair_allocation import if_allocated, scenes_of_other_plans
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash

# The columns that count asked queries, each in one of them.
ENDS = (
    "no_ground", "weak_query", "failed_query", "judged_out", "failed_pair", "kept_out", "released",
)  # fmt: skip
_PLANNED = (*STRATUM_COLUMNS, "planned", "asked")


def plan_pair_yield(tools: Tools, partition: str) -> Plan:
    """Plan to compare the allocation with the release.

    Raises:
        AllocationError: If the query plan of a scene was made for another allocation, or for none.
    """
    lake, scenes = tools.lake, BY_SCENE.names(tools.settings)
    others = scenes_of_other_plans(tools)
    if others:
        raise AllocationError(
            f"query_plan[{others[0]}] was not made for this allocation ({len(others)} scenes in all); make "
            "the release anew with `safevid run safevid_350k_release --upstream`"
        )
    allocation = lake.scan(PAIR_ALLOCATION).select(_PLANNED).sort("stratum_id").collect()
    ends = _ends(lake)
    walks = {scene: _walk(lake, scene) for scene in scenes}

    def make(units: Sequence[str]) -> StageRows:
        rows = yield_rows(allocation, ends, walks)
        there = set(rows["scene"].to_list())
        outcomes: list[tuple[str, Outcome, str]] = [
            (scene, "ok", "") if scene in there else (scene, "filtered", "the scene has no stratum")
            for scene in units
        ]
        counted = ("planned", "asked", *ENDS)
        return StageRows(rows, outcomes, rows.select(pl.col(counted).sum()).to_dicts()[0])

    inputs = {
        "allocation": frame_hash(allocation),
        "ends": frame_hash(ends),
        "walks": settings_hash(walks),
    }
    return Plan(inputs, scenes, make)


def yield_rows(
    allocation: pl.DataFrame, ends: pl.DataFrame, walks: dict[str, dict[str, Any]]
) -> pl.DataFrame:
    """The rows of `pair_yield`.

    Args:
        allocation: The columns of `pair_allocation` that the table repeats.
        ends: `stratum_id` and `end` of each query of the plan, `end` being one of :data:`ENDS`.
        walks: Scene -> `walked` and `ground_clips` of its query plan.
    """
    counts = ends.group_by("stratum_id").agg(
        pl.len().alias("planned_queries"),
        *((pl.col("end") == end).sum().alias(end) for end in ENDS),
    )
    rows = allocation.join(counts, on="stratum_id", how="left").with_columns(
        pl.col("planned_queries", *ENDS).fill_null(0).cast(pl.Int64)
    )
    names = [
        (scene, ground_name(subcategory, style, principle == "harmless" and expectation == "answer"))
        for scene, subcategory, style, principle, expectation in rows.select(
            "scene", "subcategory", "style", "principle", "expectation"
        ).iter_rows()
    ]
    found = [walks.get(scene, {}) for scene, _ in names]
    rows = rows.with_columns(
        pl.Series("clips", [each.get("walked", 0) for each in found], dtype=pl.Int64),
        pl.Series(
            "grounded",
            [each.get("ground_clips", {}).get(name, 0) for each, (_, name) in zip(found, names, strict=True)],
            dtype=pl.Int64,
        ),
        no_ground=pl.col("no_ground") + (pl.col("asked") - pl.col("planned_queries")).clip(0),
        pairs=pl.col("kept_out") + pl.col("released"),
        shortage=pl.col("planned") - pl.col("released"),
    )
    queries = pl.col("judged_out") + pl.col("failed_pair") + pl.col("pairs")
    return rows.with_columns(queries=queries).select(PAIR_YIELD.schema.names())


def _walk(lake: Lake, scene: str) -> dict[str, Any]:
    """How many clips of a scene were walked, and in how many each kind of stratum has ground."""
    manifest = lake.manifest(QUERY_PLAN.name, scene)
    info = {} if manifest is None else manifest.info
    return {name: info[name] for name in ("walked", "ground_clips") if name in info}


def _ends(lake: Lake) -> pl.DataFrame:
    """`stratum_id` and `end` of each query of the plan, in the order of the plan's ids."""
    helps = (pl.col("principle") == "helpful") | ((pl.col("principle") == "harmless") & pl.col("benign"))
    expectation = (
        pl.when(helps)
        .then(pl.lit("answer"))
        .when(pl.col("principle") == "honest")
        .then(pl.lit("correct"))
        .otherwise(pl.lit("refuse"))
    )
    stratum_id = pl.concat_str("scene", "subcategory", "style", expectation, separator="/")
    plan = lake.scan(QUERY_PLAN).filter(pl.col("mirrored_from").is_null())
    asked = _outcomes(lake, TAXONOMY_QUERIES.name, "query")
    return (
        plan.select("plan_id", stratum_id=stratum_id)
        .join(asked, left_on="plan_id", right_on="input_id", how="left")
        .join(lake.scan(TAXONOMY_QUERIES).select("query_id", "plan_id"), on="plan_id", how="left")
        .join(_outcomes(lake, PAIRS.name, "pair"), left_on="query_id", right_on="input_id", how="left")
        .join(lake.scan(PAIRS).select("pair_id", "query_id"), on="query_id", how="left")
        .join(_outcomes(lake, RELEASE.name, "release"), left_on="pair_id", right_on="input_id", how="left")
        .with_columns(
            end=pl.when((pl.col("query") == "filtered") & pl.col("query_reason").str.ends_with(NO_GROUND))
            .then(pl.lit("no_ground"))
            .when(pl.col("query") == "filtered")
            .then(pl.lit("weak_query"))
            .when(pl.col("query").ne_missing("ok"))
            .then(pl.lit("failed_query"))
            .when(pl.col("pair") == "filtered")
            .then(pl.lit("judged_out"))
            .when(pl.col("pair").ne_missing("ok"))
            .then(pl.lit("failed_pair"))
            .when(pl.col("release").ne_missing("ok"))
            .then(pl.lit("kept_out"))
            .otherwise(pl.lit("released"))
        )
        .sort("plan_id")
        .select("stratum_id", "end")
        .collect()
    )


def _outcomes(lake: Lake, asset: str, name: str) -> pl.LazyFrame:
    return (
        lake.outcomes(asset)
        .lazy()
        .select("input_id", pl.col("outcome").alias(name), pl.col("reason").alias(f"{name}_reason"))
    )


STAGE = Stage(
    PAIR_YIELD,
    "preferences",
    "The allocated pairs of each stratum beside those of the release, with the reasons for a shortage.",
    plan_pair_yield,
    reads=(PAIR_ALLOCATION.name, QUERY_PLAN.name, TAXONOMY_QUERIES.name, PAIRS.name, RELEASE.name),
    wanted=if_allocated,
)
