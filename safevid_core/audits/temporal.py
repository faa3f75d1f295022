"""The audit of motion: whether texts name the direction that was measured from the pixels.

"says the opposite direction" depends on the order of the frames alone: the text has the axis right and the
order wrong. "says the measured motion" depends on more: a single frame may show the axis, and a guess between
its two directions is right half of the time. Example: `left` for a clip that moves right is the opposite.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from safevid_core.audits.audit_rows import Observation, figure_row, mean_of, with_clusters
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
        motions = [measured_motion(json.loads(each)) if each else None for each in clips["measurements"]]
        known = with_clusters(clips).with_columns(motion=pl.Series(motions, dtype=pl.String))
        moving = known.drop_nulls("motion")
        figures = [
            figure_row(measure, speaker, mean_of(_observe(moving, speaker, measure)))
            for speaker in speakers
            for measure in ("says the measured motion", "says the opposite direction", "says none")
        ]
        outcomes = [_outcome(clip, motion) for clip, motion in known.select("clip_id", "motion").iter_rows()]
        return StageRows(TABLE.frame(figures), outcomes, {"clips": known.height, "measured": moving.height})

    return Plan({"clips": frame_hash(clips)}, clips["clip_id"].to_list(), make)


def _observe(clips: pl.DataFrame, speaker: str, measure: str) -> list[Observation]:
    """For each clip that the speaker described, whether its text does what the measure counts.

    Args:
        clips: Columns `clip_id, cluster, motion` (the measured motion) and one of texts for each speaker.
    """
    found = []
    texts = clips.drop_nulls(speaker).select("clip_id", "cluster", "motion", speaker)
    for clip_id, cluster, true, text in texts.iter_rows():
        if measure == "says the opposite direction" and true not in OPPOSITE:
            continue
        said = described_motion(text)
        holds = {
            "says the measured motion": said == true,
            "says the opposite direction": said == OPPOSITE.get(true, ""),
            "says none": said is None,
        }[measure]
        found.append((clip_id, cluster, float(holds)))
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
