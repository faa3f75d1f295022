"""A describer that measures pixels: the stage `signal_descriptions`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import Clip, rows_of
from safevid_core.contracts.tables import SIGNAL_DESCRIPTIONS, VIDEO_CORPUS
from safevid_core.descriptions.signals.measurement import Measurements, measure, measure_frames
from safevid_core.descriptions.signals.words import describe
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Forecast, Needs, Plan, Stage, Tools
from safevid_core.storage.lake import frame_hash
from safevid_core.video.decoding import VideoError

__all__ = ["Measurements", "describe", "measure", "measure_frames"]

NAME = "signal"
# Raised when a measurement changes its meaning; what was measured before is then measured again.
REVISION = "2"


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured of a clip. `measurements` is JSON."""

    request_key: str
    text: str
    frame_times: list[float]
    measurements: str


def plan_signal_descriptions(tools: Tools, scene: str) -> Plan:
    """Plan to measure every clip of one scene's corpus and say in words what was measured.

    A clip measured before, by its media, span and the revision of the measurement, is not decoded again.
    """
    lake = tools.lake
    clips = lake.read(VIDEO_CORPUS, scene).select(
        "clip_id", "scene", "split", "media_sha256", "start_s", "end_s"
    )

    def make(clip_ids: Sequence[str]) -> StageRows:
        before = {row.request_key: row for row in rows_of(lake.read(SIGNAL_DESCRIPTIONS, scene), _Measured)}
        rows, outcomes, measured = [], [], 0
        for clip in rows_of(clips.filter(pl.col("clip_id").is_in(clip_ids)), Clip):
            key = content_id(NAME, REVISION, clip.media_sha256, clip.start_s, clip.end_s)
            found = before.get(key)
            if found is None:
                measured += 1
                try:
                    measurements, times = measure(
                        lake.media.path(clip.media_sha256), clip.start_s or 0.0, clip.end_s
                    )
                except VideoError as error:
                    outcomes.append(_outcome(clip.clip_id, "failed", str(error)))
                    continue
                found = _Measured(key, describe(measurements), times, json.dumps(asdict(measurements)))
            rows.append(_row(clip, found))
            outcomes.append(_outcome(clip.clip_id, "ok", ""))
        return StageRows(SIGNAL_DESCRIPTIONS.frame(rows), outcomes, {"calls": 0, "measured": measured})

    return Plan({"clips": frame_hash(clips), "revision": REVISION}, clips["clip_id"].to_list(), make)


STAGE = Stage(
    SIGNAL_DESCRIPTIONS,
    "descriptions",
    "Duration, cuts, flashes, colours and motion, measured from the pixels by no model.",
    plan_signal_descriptions,
    reads=("video_corpus",),
    partitions=BY_SCENE,
    forecast=lambda tools, scene, rows: Forecast(rows("video_corpus", scene)),
    needs=Needs(("numpy",), batch=32),
)


def _outcome(clip_id: str, outcome: Outcome, reason: str) -> tuple[str, Outcome, str]:
    return clip_id, outcome, reason


def _row(clip: Clip, measured: _Measured) -> dict[str, Any]:
    return {
        "description_id": content_id(NAME, clip.clip_id, REVISION),
        "clip_id": clip.clip_id,
        "scene": clip.scene,
        "split": clip.split,
        "describer": NAME,
        "model": "measured from pixels",
        "revision": REVISION,
        **asdict(measured),
    }
