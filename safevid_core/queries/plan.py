"""The query plan: which clip is asked in which subcategory and style.

The asker walks the taxonomy once for each clip and names the subcategories that have ground in it (section
3.1 of the paper). The plan then takes from them as many queries as the settings ask for, balanced over the
subcategories and styles of a scene. The plan is a table: estimates, runs and reports read the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import AS_DESCRIBED, PAIR_ALLOCATION, Table, Track
from safevid_core.corpus.selection import expected_clips
from safevid_core.descriptions.audit_gate import SIGNED_AUDIT
from safevid_core.descriptions.tracks import TrackOf, stages_of_tracks
from safevid_core.estimates.budget import BUDGET
from safevid_core.models.chat import request_key
from safevid_core.models.llm import ChatAnswer, ChatRequest, Gateway, ask_structured
from safevid_core.models.refusals import FEW_REFUSALS, refusal_info
from safevid_core.models.structured import ItemByItem, told_of_misfits
from safevid_core.models.teacher import spend_info, teacher_hash, teacher_request
from safevid_core.queries.assignment import assign_cells
from safevid_core.queries.cells import CLIP_COLUMNS, Ground, Phrasing, PlanCell, Walks, plan_cells
from safevid_core.queries.pair_allocation import ALLOCATED, Asked, asked_hash, asked_in, expected_queries
from safevid_core.queries.prompts import WALK
from safevid_core.queries.rating import require_other_family
from safevid_core.queries.styles import style_definitions
from safevid_core.settings import QuerySettings, Settings, TextModel
from safevid_core.stages.partitions import BY_LOSS_AND_SCENE
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Questions, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy


class Walked(ItemByItem):
    """The asker's reply to the walk."""

    read_by_item = ("grounds",)

    grounds: list[Ground]


def plan_query_plan(track_of: TrackOf, tools: Tools, partition: str) -> Plan:
    """Plan the queries about the training clips of a scene, in the training phrasing.

    Raises:
        AllocationError: If there is a target and its allocation is not made yet.
    """
    track = track_of(partition)
    clips = training_clips(tools.lake, partition, track)
    target = tools.settings.datasets.target_pairs
    asked = None if target is None else asked_in(tools.lake, _scene(partition))
    return plan_cells_of(tools, clips, track.plan, "train", described=track.described, asked=asked)


def plan_cells_of(
    tools: Tools,
    frame: pl.DataFrame,
    table: Table,
    phrasing: Phrasing,
    *,
    described: bool = True,
    asked: Asked | None = None,
) -> Plan:
    """Plan the query plan of some clips.

    Args:
        frame: The clips, with the columns :data:`CLIP_COLUMNS`.
        described: Whether the asker is told what a clip shows. If not, every subcategory has ground.
        asked: The queries that the allocation asks about these clips, which are of one scene. None balances
            `queries.subcategories_per_clip` queries a clip.

    Raises:
        RaterError: If the rater is of the asker's family.
        StyleError: If a style has no definition.
    """
    settings, taxonomy = tools.settings, load_taxonomy(tools.settings)
    asker, clips = settings.queries.asker, rows_of(frame, DescribedClip)
    require_other_family(settings.queries)
    style_definitions(settings.queries)

    def requests() -> list[ChatRequest]:
        if not described:
            return []
        return [walk_request(clip, asker, taxonomy) for clip in clips]

    def make(clip_ids: Sequence[str]) -> StageRows:
        walks, outcomes, answers = _walk(clips, requests(), taxonomy, tools.gateway, table.name)
        cells, told = _cells(clips, walks, settings, taxonomy, phrasing, asked)
        rows = _rows(cells, clips, walks, taxonomy)
        without = {clip_id for clip_id, outcome, _ in outcomes if outcome == "ok"} - {
            cell.clip_id for cell in cells
        }
        settled: list[tuple[str, Outcome, str]] = [
            _without_cells(clip_id, reason, walks) if clip_id in without else (clip_id, outcome, reason)
            for clip_id, outcome, reason in outcomes
        ]
        refused = refusal_info(outcomes, dict.fromkeys(clip_ids, "the walk"))
        return StageRows(table.frame(rows), settled, spend_info(answers) | _counts(rows) | refused | told)

    inputs = {
        "descriptions": frame_hash(frame),
        "asker": teacher_hash(asker, WALK if described else ""),
        "plan": plan_settings_hash(settings.queries),
        "taxonomy": taxonomy.hash,
    }
    if asked is not None:
        inputs[ALLOCATED] = asked_hash(settings, asked)
    walk = Questions(asker, len(clips), lambda: [request_key(each) for each in requests()])
    return Plan(inputs, [clip.clip_id for clip in clips], make, (walk,) if described else ())


def _cells(
    clips: Sequence[DescribedClip],
    walks: Walks,
    settings: Settings,
    taxonomy: Taxonomy,
    phrasing: Phrasing,
    asked: Asked | None,
) -> tuple[list[PlanCell], dict[str, Any]]:
    """The cells of the plan, and what is told about an allocation."""
    if asked is None:
        return plan_cells(clips, walks, settings, taxonomy, phrasing), {}
    most = settings.datasets.allocation.queries_per_clip
    found = assign_cells(clips, walks, asked, most, settings.queries, taxonomy, phrasing)
    told = {
        "asked": sum(asked.values()),
        "not_assigned": sum(asked.values()) - len(found.cells),
        "walked": len(walks),
        "ground_clips": found.ground_clips,
    }
    return found.cells, told


def _scene(partition: str) -> str:
    return partition.rpartition(BY_LOSS_AND_SCENE.separator)[2]


def training_clips(lake: Lake, partition: str, track: Track = AS_DESCRIBED) -> pl.DataFrame:
    """The clips that a partition's queries are about, with their description as `text`."""
    clips = (
        lake.scan(track.descriptions, [partition])
        .filter(pl.col("split") == "train")
        .select(CLIP_COLUMNS)
        .sort("clip_id")
        .collect()
    )
    return clips if track.described else clips.with_columns(pl.lit(None, pl.String).alias("text"))


def read_plan(lake: Lake, table: Table, partition: str | None = None) -> list[PlanCell]:
    """The cells of a committed plan, the mirrored ones last."""
    frame = lake.read(table) if partition is None else lake.read(table, partition)
    cells = [
        PlanCell(*row)
        for row in frame.select(
            "clip_id", "subcategory", "style", "benign", "phrasing", "ground", "mirrored_from"
        ).iter_rows()
    ]
    return sorted(cells, key=lambda cell: (cell.mirrored_from is not None, cell.clip_id, cell.plan_id))


def plan_settings_hash(settings: QuerySettings) -> str:
    """Hash of the settings on which a plan depends."""
    return settings_hash(
        settings.subcategories_per_clip, settings.mix, settings.styles, settings.mirror_twins
    )


def walk_request(clip: DescribedClip, asker: TextModel, taxonomy: Taxonomy) -> ChatRequest:
    """The request to the asker for the subcategories that have ground in a clip."""
    names = ("id", "principle", "definition", "hazard_about_a_video", "hazard_in_time")
    subcategories = [
        {name: getattr(each, name) for name in names} | {"benign_counterpart": each.benign_counterpart.query}
        for each in taxonomy.subcategories
    ]
    material = {"description": clip.text, "scene": clip.scene, "subcategories": subcategories}
    return teacher_request(asker, WALK, material)


def _walk(
    clips: Sequence[DescribedClip],
    requests: Sequence[ChatRequest],
    taxonomy: Taxonomy,
    gateway: Gateway,
    asset: str,
) -> tuple[Walks, list[tuple[str, Outcome, str]], list[ChatAnswer]]:
    """The ground of each clip that was walked, an outcome for each clip, and the answers.

    Without requests, everything has ground in every clip.
    """
    if not requests:
        clip_ids = [clip.clip_id for clip in clips]
        return {clip_id: ([], None) for clip_id in clip_ids}, [(each, "ok", "") for each in clip_ids], []
    walks: dict[str, tuple[Sequence[Ground], ChatAnswer | None]] = {}
    outcomes: list[tuple[str, Outcome, str]] = []
    known = {each.id for each in taxonomy.subcategories}
    results = ask_structured(gateway, requests, Walked, asset=asset)
    for clip, (walked, answer) in zip(clips, results, strict=True):
        clip_id = clip.clip_id
        if walked is None:
            outcomes.append((clip_id, answer.outcome if answer.outcome != "ok" else "failed", answer.reason))
            continue
        found = {each.subcategory: each for each in reversed(walked.grounds) if each.subcategory in known}
        unknown = sorted({each.subcategory for each in walked.grounds} - known)
        if unknown and not found:
            reason = f"the asker named unknown subcategories only: {', '.join(unknown[:3])}"
            outcomes.append((clip_id, "failed", reason))
            continue
        walks[clip_id] = ([found[each.id] for each in taxonomy.subcategories if each.id in found], answer)
        outcomes.append((clip_id, "ok", told_of_misfits(walked.misfits, "a ground that the asker names")))
    return walks, outcomes, [answer for _, answer in results]


def _without_cells(clip_id: str, unread: str, walks: Walks) -> tuple[str, Outcome, str]:
    """The outcome of a walked clip that gives no cell. It failed if a ground could not be read."""
    if unread:
        return clip_id, "failed", f"no ground that could be read gives a query; {unread}"
    if walks[clip_id][0]:
        return clip_id, "filtered", "no query that has ground in the clip is asked for"
    return clip_id, "filtered", "no subcategory of the taxonomy has ground in the clip"


def _rows(
    cells: Sequence[PlanCell], clips: Sequence[DescribedClip], walks: Walks, taxonomy: Taxonomy
) -> list[dict[str, Any]]:
    scenes = {clip.clip_id: clip.scene for clip in clips}
    rows = []
    for cell in cells:
        answer = walks[cell.clip_id][1]
        rows.append(
            {
                "plan_id": cell.plan_id,
                **asdict(cell),
                "scene": scenes[cell.clip_id],
                "principle": taxonomy[cell.subcategory].principle,
                "taxonomy_hash": taxonomy[cell.subcategory].hash,
                "model": answer.model if answer else None,
                "revision": answer.revision if answer else None,
                "request_key": answer.request_key if answer else None,
            }
        )
    return rows


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = ("principle", "subcategory", "style")
    return {f"by_{name}": dict(sorted(Counter(row[name] for row in rows).items())) for name in columns} | {
        "cells": len(rows),
        "mirrored": sum(row["mirrored_from"] is not None for row in rows),
    }


# ----------------------------------------------------------------------------------------- the stages


def _forecast(described: bool, tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    """As many cells as the allocation or the settings ask for, and one walk a clip."""
    settings, scene = tools.settings, _scene(partition)
    clips = expected_clips(tools, scene)[1]
    questions = (Questions(settings.queries.asker, clips),) if described else ()
    if settings.datasets.target_pairs is not None:
        return Forecast(expected_queries(tools, scene), questions)
    return Forecast(clips * settings.queries.subcategories_per_clip, questions)


def stages(settings: Settings) -> tuple[Stage, ...]:
    """The query plan of each track. A plan needs the allocation only if there is a target."""
    if settings.datasets.target_pairs is not None:
        return _STAGES
    return tuple(replace(stage, optional=frozenset({PAIR_ALLOCATION.name})) for stage in _STAGES)


_DESCRIBED, *_OTHERS = stages_of_tracks(
    lambda track: track.plan,
    "queries",
    (
        "Which subcategories have ground in each training clip, and which queries to write.",
        "The queries to write by a teacher that is told nothing of the clips: for an ablation.",
        "The queries to write from descriptions that lost a detail: for ablations.",
    ),
    plan_query_plan,
    reads=lambda track: (track.descriptions.name, PAIR_ALLOCATION.name),
    forecast=lambda track: partial(_forecast, track.described),
    asks=True,
    gates=(BUDGET,),
    checks=(FEW_REFUSALS,),
)
# Only the plan of the main track waits for the signed audit of the descriptions.
_STAGES = (replace(_DESCRIBED, gates=(SIGNED_AUDIT, BUDGET)), *_OTHERS)
