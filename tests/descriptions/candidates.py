"""Clips of one scene and what describers said of them, put into a lake by hand."""

from __future__ import annotations

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import VIDEO_CORPUS, candidate_table
from safevid_core.storage.lake import Lake

SCENE = "kitchen"
DESCRIBERS = ("llava_next_video", "qwen2_5_vl", "internvl2_5")
CRATE = "A red crate moves left in a kitchen. It is on fire."
BALL = "A blue ball stays still in a kitchen. It shows a flag."


def commit_corpus(lake: Lake, clip_ids: tuple[str, ...], scene: str = SCENE) -> None:
    rows = [
        {
            "clip_id": clip_id,
            "source_id": f"source-{clip_id}",
            "scene": scene,
            "split": "train",
            "media_sha256": clip_id,
            "start_s": 0.0,
            "end_s": 2.0,
            "origin": "pocket",
        }
        for clip_id in clip_ids
    ]
    outcomes: list[tuple[str, Outcome, str]] = [(clip_id, "ok", "") for clip_id in clip_ids]
    lake.commit(VIDEO_CORPUS, scene, StageRows(VIDEO_CORPUS.frame(rows), outcomes), "given", {})


def commit_candidates(lake: Lake, describer: str, texts: dict[str, str | None], scene: str = SCENE) -> None:
    """What a describer said of each clip; None where it failed."""
    table = candidate_table(describer)
    rows = [
        {
            "description_id": content_id(describer, clip_id),
            "clip_id": clip_id,
            "scene": scene,
            "split": "train",
            "describer": describer,
            "text": text,
        }
        for clip_id, text in texts.items()
        if text is not None
    ]
    outcomes: list[tuple[str, Outcome, str]] = [
        (clip_id, "failed", "clip has no video stream") if text is None else (clip_id, "ok", "")
        for clip_id, text in texts.items()
    ]
    lake.commit(table, scene, StageRows(table.frame(rows), outcomes), "given", {})
