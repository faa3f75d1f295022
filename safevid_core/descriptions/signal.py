"""A describer that measures pixels: the stage `signal_descriptions`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from safevid_core.descriptions.signals.measurement import Measurements, measure, measure_frames
from safevid_core.descriptions.signals.words import describe
from safevid_core.lake import Lake, StageReport, frame_hash, run_stage
from safevid_core.records import SIGNAL_DESCRIPTIONS, VIDEO_CORPUS, Outcome, StageRows, content_id
from safevid_core.settings import Settings
from safevid_core.video.decoding import VideoError

__all__ = ["Measurements", "describe", "make_signal_descriptions", "measure", "measure_frames"]

NAME = "signal"
# Raised when a measurement changes its meaning; what was measured before is then measured again.
REVISION = "2"


def make_signal_descriptions(settings: Settings, lake: Lake, scene: str) -> StageReport:
    """Measure every clip of one scene's corpus and say in words what was measured.

    A clip measured before, by its media, span and the revision of the measurement, is not decoded again.
    """
    clips = lake.read(VIDEO_CORPUS, scene).select(
        "clip_id", "scene", "split", "path", "media_sha256", "start_s", "end_s"
    )
    before = {row["request_key"]: row for row in lake.read(SIGNAL_DESCRIPTIONS, scene).to_dicts()}

    def compute() -> StageRows:
        rows, outcomes, measured = [], [], 0
        for clip in clips.to_dicts():
            key = content_id(NAME, REVISION, clip["media_sha256"], clip["start_s"], clip["end_s"])
            seen: tuple[str, str, list[float]] | None = None
            if key in before:
                old = before[key]
                seen = old["text"], old["measurements"], old["frame_times"]
            else:
                measured += 1
                try:
                    measurements, times = measure(clip["path"], clip["start_s"], clip["end_s"])
                    seen = describe(measurements), json.dumps(asdict(measurements)), times
                except VideoError as error:
                    outcomes.append(_outcome(clip["clip_id"], "failed", str(error)))
                    continue
            rows.append(_row(clip, key, *seen))
            outcomes.append(_outcome(clip["clip_id"], "ok", ""))
        return StageRows(SIGNAL_DESCRIPTIONS.frame(rows), outcomes, {"calls": 0, "measured": measured})

    inputs = {"clips": frame_hash(clips), "revision": REVISION}
    return run_stage(lake, SIGNAL_DESCRIPTIONS, scene, inputs, clips["clip_id"].to_list(), compute)


def _outcome(clip_id: str, outcome: Outcome, reason: str) -> tuple[str, Outcome, str]:
    return clip_id, outcome, reason


def _row(clip: dict[str, Any], key: str, text: str, measurements: str, times: list[float]) -> dict[str, Any]:
    return {
        "description_id": content_id(NAME, clip["clip_id"], REVISION),
        "clip_id": clip["clip_id"],
        "scene": clip["scene"],
        "split": clip["split"],
        "describer": NAME,
        "model": "measured from pixels",
        "revision": REVISION,
        "text": text,
        "frame_times": times,
        "request_key": key,
        "measurements": measurements,
    }
