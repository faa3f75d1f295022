"""The audit of motion: whether texts name the direction that was measured from the pixels.

"says the opposite direction" depends on the order of the frames alone: the text has the axis right and the
order wrong. "says the measured motion" depends on more: a single frame may show the axis, and a guess between
its two directions is right half of the time. Example: `left` for a clip that moves right is the opposite.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from safevid_core.audits.audit_rows import Observation, cluster_of, figure_row, mean_of
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import DESCRIPTIONS, SIGNAL_DESCRIPTIONS, audit_table, candidate_table
from safevid_core.descriptions.motion_words import OPPOSITE, described_motion, measured_motion
from safevid_core.settings import Settings
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import frame_hash

TABLE = audit_table("temporal_audit")
RECONCILED = "reconciled"


def plan_temporal_audit(tools: Tools, partition: str) -> Plan:
    """Plan to measure how often each describer and the reconciled text name the measured direction, its
    opposite, or none."""
    settings, lake = tools.settings, tools.lake
    clips = (
        lake.scan(DESCRIPTIONS)
        .select("clip_id", "source_id", "twin_group", pl.col("text").alias(RECONCILED))
        .sort("clip_id")
        .collect()
    )
    for name in settings.descriptions.describers:
        said = lake.scan(candidate_table(name)).select("clip_id", pl.col("text").alias(name)).collect()
        clips = clips.join(said, on="clip_id", how="left")
    measured = lake.scan(SIGNAL_DESCRIPTIONS).select("clip_id", "measurements").collect()
    clips = clips.join(measured, on="clip_id", how="left").sort("clip_id")
    speakers = [RECONCILED, *settings.descriptions.describers]

    def make(clip_ids: Sequence[str]) -> StageRows:
        rows = clips.to_dicts()
        truths = {row["clip_id"]: _motion_of(row) for row in rows}
        moving = [row for row in rows if truths[row["clip_id"]] is not None]
        figures = [
            figure_row(measure, speaker, mean_of(_observe(moving, truths, speaker, measure)))
            for speaker in speakers
            for measure in ("says the measured motion", "says the opposite direction", "says none")
        ]
        outcomes = [_outcome(row["clip_id"], truths[row["clip_id"]]) for row in rows]
        return StageRows(TABLE.frame(figures), outcomes, {"clips": len(rows), "measured": len(moving)})

    return Plan({"clips": frame_hash(clips)}, clips["clip_id"].to_list(), make)


def _motion_of(clip: dict[str, Any]) -> str | None:
    return measured_motion(json.loads(clip["measurements"])) if clip["measurements"] else None


def _observe(
    clips: list[dict[str, Any]], truths: dict[str, str | None], speaker: str, measure: str
) -> list[Observation]:
    found = []
    for clip in clips:
        if clip[speaker] is None:
            continue
        true, said = truths[clip["clip_id"]] or "", described_motion(clip[speaker])
        if measure == "says the opposite direction" and true not in OPPOSITE:
            continue
        holds = {
            "says the measured motion": said == true,
            "says the opposite direction": said == OPPOSITE.get(true, ""),
            "says none": said is None,
        }[measure]
        found.append((clip["clip_id"], cluster_of(clip), float(holds)))
    return found


def _outcome(clip_id: str, motion: str | None) -> tuple[str, Outcome, str]:
    if motion is None:
        return clip_id, "filtered", "no single direction and no stillness was measured"
    return clip_id, "ok", ""


def stage(settings: Settings) -> Stage:
    """The audit's stage. It reads the candidate descriptions of every describer of the settings."""
    return Stage(
        TABLE,
        "audits",
        "How often the described direction of motion is the one measured from the pixels, and how often "
        "the opposite one, which only the order of the frames tells apart.",
        plan_temporal_audit,
        reads=(DESCRIPTIONS.name, SIGNAL_DESCRIPTIONS.name, *settings.descriptions.candidate_tables),
    )
