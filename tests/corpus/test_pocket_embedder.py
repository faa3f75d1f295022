"""The embedded embedder, through the same loader and stages as any other: scenes are found, copies too."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.contracts.tables import CLIP_MANIFEST, SCENE_ASSIGNMENTS
from safevid_core.settings import PACKAGE
from safevid_core.storage.lake import Lake
from tests.corpus.conftest import MakeSettings
from tests.stages import run_stage
from tests.video.clips_for_tests import write_video

EMBEDDER = PACKAGE / "pocket" / "checkpoints" / "open_clip"


@pytest.mark.skipif(
    not (EMBEDDER / "open_clip_config.json").is_file(), reason="the pocket embedder is not built"
)
def test_rendered_clips_get_their_scene_and_their_copies_are_found(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    from safevid_core.pocket.world import COLOURS, OBJECTS, SCENES, ClipTruth, render_frames, write_clip

    folder = tmp_path / "v"
    folder.mkdir()
    copied = 0
    for number, scene in enumerate(SCENES):
        truth = ClipTruth(
            scene, OBJECTS[number % len(OBJECTS)], COLOURS[number // 2 % len(COLOURS)], "left", "flag"
        )
        frames = render_frames(truth, number)
        write_clip(folder / f"{scene}.mp4", frames)
        if number % 5 == 0:
            write_video(folder / f"{scene}.copy.mp4", frames, options={"crf": "30"})
            copied += 1
    settings = make_settings(
        {"kind": "folder", "path": str(folder)},
        embedder={"model": str(EMBEDDER), "frames": 4},
        near_copy=0.97,
    )
    run_stage(settings, lake, "clip_manifest")
    run_stage(settings, lake, "scene_assignments")
    names = dict(lake.read(CLIP_MANIFEST).select("clip_id", "file_name").iter_rows())
    rows = [
        (names[clip_id].split(".")[0], scene, None if of is None else names[of].split(".")[0])
        for clip_id, scene, of in lake.read(SCENE_ASSIGNMENTS)
        .select("clip_id", "scene", "near_copy_of")
        .iter_rows()
    ]
    assert sum(shown == found for shown, found, _ in rows) >= 0.9 * len(rows)
    assert [shown for shown, _, of in rows if of is not None and of != shown] == []
    assert sum(of == shown for shown, _, of in rows) == copied
