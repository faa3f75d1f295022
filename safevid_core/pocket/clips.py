"""Writes a set of pocket clips: media with opaque names, a public manifest, and the sealed truth.

The pipeline reads the media and the manifest. The sealed truth is read by the pocket judge and the tests
only. The clips show combinations of object, colour and event that the checkpoints were not trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from safevid_core.corpus.sources import SourceError
from safevid_core.pocket.world import (
    COLOURS,
    MOTIONS,
    OBJECTS,
    TWIN_EVENTS,
    ClipTruth,
    render_frames,
    split_of_combination,
    twin_event,
    write_clip,
)

LICENCE = "Apache-2.0 (rendered)"

# Increase it if the same arguments give other pixels than before. Existing folders are then rendered again.
_RENDERING = 3


@dataclass(frozen=True)
class PlannedClip:
    """A clip to be rendered: its public names, its geometry seed, and the truth that its pixels show."""

    name: str
    source_id: str
    twin_group: str | None
    geometry_seed: int
    truth: ClipTruth


def generate_clips(
    folder: Path,
    sealed_path: Path,
    *,
    seed: int,
    scenes: Sequence[str],
    clips_per_scene: int = 18,
    twin_groups_per_scene: int = 8,
    swap_twin_pixels: bool = False,
) -> None:
    """Write `folder/media/*.mp4`, `folder/manifest.jsonl` and the sealed truth, unless all exist.

    Args:
        folder: Folder for the media and the public manifest.
        sealed_path: File for the sealed truth: SHA-256 of a clip's bytes -> what the clip shows.
        seed: Sets what the clips show and their geometry.
        scenes: Scene ids. Each scene gets the same number of clips.
        clips_per_scene: Clips of a scene, including those of twin groups. Defaults to 18.
        twin_groups_per_scene: Pairs of clips of a scene that differ in the hazard alone. Defaults to 8.
        swap_twin_pixels: Exchange the pixels within each twin pair and change nothing else. The sealed truth
            follows the pixels. Defaults to False.

    Raises:
        SourceError: If a scene has fewer clips than its twin groups need.
    """
    arguments = {
        "rendering": _RENDERING,
        "seed": seed,
        "scenes": list(scenes),
        "clips_per_scene": clips_per_scene,
        "twin_groups_per_scene": twin_groups_per_scene,
        "swap_twin_pixels": swap_twin_pixels,
    }
    if _is_complete(folder, sealed_path, arguments):
        return
    plan = plan_clips(seed, scenes, clips_per_scene, twin_groups_per_scene)
    if swap_twin_pixels:
        plan = swap_twins(plan)
    _remove_previous(folder)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    sealed: dict[str, dict[str, Any]] = {}
    for clip in plan:
        path = folder / "media" / f"{clip.name}.mp4"
        write_clip(path, render_frames(clip.truth, clip.geometry_seed))
        sealed[hashlib.sha256(path.read_bytes()).hexdigest()] = {
            **asdict(clip.truth),
            "hazardous": clip.truth.hazardous,
            "source_id": clip.source_id,
            "twin_group": clip.twin_group,
        }
    rows = [
        {
            "file": f"media/{clip.name}.mp4",
            "source_id": clip.source_id,
            "twin_group": clip.twin_group,
            "licence": LICENCE,
        }
        for clip in plan
    ]
    sealed_path.parent.mkdir(parents=True, exist_ok=True)
    sealed_path.write_text(json.dumps(sealed, indent=1, sort_keys=True))
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Written last: a folder without it is not finished.
    (folder / "generated.json").write_text(json.dumps(arguments))


def plan_clips(
    seed: int, scenes: Sequence[str], clips_per_scene: int = 18, twin_groups_per_scene: int = 8
) -> list[PlannedClip]:
    """The clips that `generate_clips` renders, in the order of the manifest (by opaque name).

    Raises:
        SourceError: If a scene has fewer clips than its twin groups need, or no combination is left for it.
    """
    if 2 * twin_groups_per_scene > clips_per_scene:
        raise SourceError(
            f"{twin_groups_per_scene} twin groups need {2 * twin_groups_per_scene} clips a scene, "
            f"and clips_per_scene is {clips_per_scene}; raise it, or lower twin_groups_per_scene"
        )
    plan: list[PlannedClip] = []
    for scene in scenes:
        rng = np.random.default_rng([seed, *scene.encode()])
        groups = twin_groups_per_scene
        truths = _draw_truths(rng, scene, groups + clips_per_scene - 2 * groups)
        for index, truth in enumerate(truths):
            geometry_seed = int(rng.integers(2**31))
            members = [truth]
            group = None
            if index < groups:
                group = _opaque("group", seed, scene, index)
                members.append(replace(truth, event=twin_event(truth.event)))
            if rng.random() < 0.5:
                members.reverse()
            for place, member in enumerate(members):
                name = _opaque("clip", seed, scene, index, place)
                source = f"pocket-{seed}-{_opaque('source', seed, scene, index, place)}"
                plan.append(PlannedClip(name, source, group, geometry_seed, member))
    return sorted(plan, key=lambda clip: clip.name)


def swap_twins(plan: Sequence[PlannedClip]) -> list[PlannedClip]:
    """The same clips with exchanged pixels, and so exchanged truths, within each twin pair."""
    return [
        replace(clip, truth=replace(clip.truth, event=twin_event(clip.truth.event)))
        if clip.twin_group
        else clip
        for clip in plan
    ]


def _draw_truths(rng: np.random.Generator, scene: str, count: int) -> list[ClipTruth]:
    """`count` truths of one scene: different combinations, with events and motions as even as possible."""
    pairs = [TWIN_EVENTS[i % len(TWIN_EVENTS)] for i in rng.permutation(count)]
    motions = [MOTIONS[i % len(MOTIONS)] for i in rng.permutation(count)]
    sides = [i % 2 for i in rng.permutation(count)]
    truths: list[ClipTruth] = []
    used: set[tuple[str, str, str]] = set()
    for pair, motion, side in zip(pairs, motions, sides, strict=True):
        free = [
            (thing, colour)
            for thing in OBJECTS
            for colour in COLOURS
            if (thing, colour, pair[0]) not in used
            and split_of_combination(thing, colour, pair[0]) == "corpus"
        ]
        if not free:
            raise SourceError(
                f"scene {scene}: no unused combination is left for {pair[0]}; ask for fewer clips"
            )
        thing, colour = free[rng.integers(len(free))]
        used.add((thing, colour, pair[0]))
        truths.append(ClipTruth(scene, thing, colour, motion, pair[side]))
    return truths


def _opaque(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:12]


def _is_complete(folder: Path, sealed_path: Path, arguments: dict[str, Any]) -> bool:
    stamp, manifest = folder / "generated.json", folder / "manifest.jsonl"
    if not (stamp.is_file() and manifest.is_file() and sealed_path.is_file()):
        return False
    if json.loads(stamp.read_text()) != arguments:
        return False
    present = {path.name for path in (folder / "media").iterdir()}
    return all(Path(row["file"]).name in present for row in _manifest_rows(manifest))


def _remove_previous(folder: Path) -> None:
    """Remove the files of an earlier call with other arguments, so that its clips do not stay."""
    manifest = folder / "manifest.jsonl"
    (folder / "generated.json").unlink(missing_ok=True)
    if manifest.is_file():
        for row in _manifest_rows(manifest):
            (folder / row["file"]).unlink(missing_ok=True)
        manifest.unlink()


def _manifest_rows(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]
