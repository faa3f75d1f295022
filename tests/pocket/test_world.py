"""What the pocket clips must hold: same arguments, same bytes; twins differ in the event; no truth leaks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from safevid_core.descriptions.motion_words import OPPOSITE
from safevid_core.pocket import world
from safevid_core.pocket.clips import generate_clips, plan_clips, swap_twins
from safevid_core.pocket.world import (
    ClipTruth,
    object_centres,
    render_frames,
    split_of_combination,
    twin_event,
    write_clip,
)

TRUTH = ClipTruth("kitchen", "crate", "red", "left", "fire")
SOME_SCENES = ("kitchen", "sky", "street")


def test_the_scenes_are_those_of_the_taxonomy() -> None:
    path = Path(__file__).parents[2] / "safevid_core" / "taxonomy" / "scenes.yaml"
    assert {scene["id"] for scene in yaml.safe_load(path.read_text())["scenes"]} == set(world.SCENES)


def test_rendering_is_determined_by_truth_and_seed() -> None:
    first, again = render_frames(TRUTH, 5), render_frames(TRUTH, 5)
    assert first.shape == (24, 96, 96, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, render_frames(TRUTH, 6))


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, render_frames(TRUTH, 5))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.mp4").stat().st_size < 20_000


def on_the_ring(distance: np.ndarray) -> np.ndarray:
    """Distances within a frame whose sides meet."""
    away = np.abs(distance)
    return np.minimum(away, 1.0 - away)


@pytest.mark.parametrize(("hazard", "harmless"), world.TWIN_EVENTS)
def test_twins_differ_only_near_the_object(hazard: str, harmless: str) -> None:
    scene_object = ("kitchen", "crate", "red", "right")
    clips = [render_frames(ClipTruth(*scene_object, event), 3) for event in (hazard, harmless)]
    paths = [object_centres(ClipTruth(*scene_object, event), 3) for event in (hazard, harmless)]
    assert np.array_equal(*paths)
    differs = (clips[0] != clips[1]).any(-1)
    assert differs.any()
    down, across = np.meshgrid(np.arange(96) / 96, np.arange(96) / 96, indexing="ij")
    for frame, (x, y) in zip(differs, paths[0], strict=True):
        away = np.maximum(on_the_ring(across - x), on_the_ring(down - y))
        far = away > 0.42
        assert not (frame & far).any()
        core = away < 0.05
        assert not (frame & core).any()


def test_motion_travels_most_of_the_frame_and_still_stays() -> None:
    for motion, wanted in {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.items():
        path = object_centres(ClipTruth("sky", "ball", "blue", motion, "flag"), 1)
        steps = (np.diff(path, axis=0) + 0.5) % 1.0 - 0.5
        assert np.allclose(steps.sum(axis=0), 0.8 * np.array(wanted), atol=1e-6)
        # Four uniform frames lie less than half a side apart, so that the ring does not turn the way round.
        assert np.abs(steps).max() * 8 < 0.5
    still = object_centres(ClipTruth("sky", "ball", "blue", "still", "flag"), 1)
    assert np.ptp(still, axis=0).max() == 0


@pytest.mark.parametrize(("one", "other", "axis"), [("left", "right", 0), ("up", "down", 1)])
@pytest.mark.parametrize("frame", [0, 7, 12, 23])
def test_no_frame_tells_a_direction_from_its_opposite(one: str, other: str, axis: int, frame: int) -> None:
    places = {
        motion: np.array(
            [
                object_centres(ClipTruth("sky", "ball", "blue", motion, "flag"), seed)[frame]
                for seed in range(800)
            ]
        )
        for motion in (one, other)
    }
    for each in (0, 1):
        assert stats.ks_2samp(places[one][:, each], places[other][:, each]).pvalue > 0.001
    along = places[one][:, axis]
    assert stats.kstest(along, "uniform").pvalue > 0.001, "anywhere along the ring"


def test_a_clip_played_backwards_is_one_of_the_opposite_motion() -> None:
    right = object_centres(ClipTruth("sky", "ball", "blue", "right", "flag"), 3)
    left = object_centres(ClipTruth("sky", "ball", "blue", "left", "flag"), 3)
    backwards, steps = np.diff(right[::-1], axis=0) % 1.0, np.diff(left, axis=0) % 1.0
    assert on_the_ring(backwards - steps).max() < 1e-9


@pytest.mark.parametrize("motion", ["right", "down"])
@pytest.mark.parametrize("event", world.EVENTS)
def test_the_picture_tells_the_place_and_nothing_of_the_motion(
    motion: str, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn along the same places in the opposite order, the opposite motion is the clip played backwards."""
    forth, back = (ClipTruth("harbour", "drone", "green", way, event) for way in (motion, OPPOSITE[motion]))
    backwards = render_frames(forth, 11)[::-1]
    places = object_centres(forth, 11)[::-1]
    monkeypatch.setattr(world, "_path", lambda truth, rng, frames: places)
    assert np.array_equal(render_frames(back, 11), backwards)


def test_what_leaves_on_one_side_comes_in_on_the_other() -> None:
    """The object has as many pixels at the frame's edge as in its middle."""
    for motion, axis in (("left", 0), ("down", 1)):
        truth = ClipTruth("sky", "crate", "red", motion, "confetti")
        places = object_centres(truth, 4)[:, axis]
        assert np.minimum(places, 1 - places).min() < 0.05, "the clip passes the edge"
        red = (render_frames(truth, 4) == (225, 20, 25)).all(-1).sum(axis=(1, 2))
        assert np.ptp(red) <= 0.02 * red.mean()


def test_no_frame_flashes() -> None:
    for event in world.EVENTS:
        frames = render_frames(ClipTruth("road", "tyre", "white", "up", event), 2)
        brightness = frames.mean(axis=(1, 2, 3))
        assert np.abs(np.diff(brightness)).max() < 8


def test_the_held_out_rule_keeps_twins_together_and_shares_every_pair_of_values() -> None:
    sides = Counter()
    by_pair: dict[tuple[str, str], Counter[str]] = {}
    for thing in world.OBJECTS:
        for colour in world.COLOURS:
            for event in world.EVENTS:
                side = split_of_combination(thing, colour, event)
                assert side == split_of_combination(thing, colour, twin_event(event))
                sides[side] += 1
                for pair in ((thing, colour), (thing, event), (colour, event)):
                    by_pair.setdefault(pair, Counter())[side] += 1
    assert sides["build"] == 2 * sides["corpus"]
    for pair, count in by_pair.items():
        assert min(count["build"], count["corpus"]) >= 0.2 * count.total(), pair


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    generate_clips(root / "open", root / "sealed.json", seed=4, scenes=SOME_SCENES)
    return root


def _manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_the_manifest_has_every_clip_and_leaks_no_truth(clips: Path) -> None:
    rows = _manifest(clips / "open")
    assert len(rows) == 18 * len(SOME_SCENES) == len(list((clips / "open" / "media").iterdir()))
    assert len({row["source_id"] for row in rows}) == len(rows)
    groups = Counter(row["twin_group"] for row in rows if row["twin_group"])
    assert len(groups) == 8 * len(SOME_SCENES)
    assert set(groups.values()) == {2}
    public = (clips / "open" / "manifest.jsonl").read_text().lower()
    for word in (
        *world.OBJECTS,
        *world.COLOURS,
        *world.EVENTS,
        *world.SCENES,
        "hazard",
        "harmless",
        *(m for m in world.MOTIONS if m != "up"),
    ):
        assert f'"{word}' not in public
        assert f"-{word}-" not in public
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)


def test_the_place_in_a_twin_pair_does_not_tell_the_hazard() -> None:
    first_is_hazard = [
        clip.truth.hazardous
        for clip in sorted(plan_clips(1, world.SCENES), key=lambda clip: (clip.twin_group or "", clip.name))
        if clip.twin_group
    ][::2]
    assert 0.4 < np.mean(first_is_hazard) < 0.6


def test_the_sealed_truth_is_that_of_the_bytes_and_of_the_corpus_side(clips: Path) -> None:
    sealed = json.loads((clips / "sealed.json").read_text())
    for row in _manifest(clips / "open"):
        truth = sealed[hashlib.sha256((clips / "open" / row["file"]).read_bytes()).hexdigest()]
        assert truth["source_id"] == row["source_id"]
        assert truth["twin_group"] == row["twin_group"]
        assert truth["hazardous"] == (truth["event"] in world.HAZARDS)
        assert split_of_combination(truth["object"], truth["colour"], truth["event"]) == "corpus"


def test_a_second_call_writes_nothing_and_other_arguments_replace(clips: Path, tmp_path: Path) -> None:
    folder, sealed = tmp_path / "open", tmp_path / "sealed.json"
    generate_clips(folder, sealed, seed=4, scenes=SOME_SCENES[:1])
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "media").iterdir()}
    generate_clips(folder, sealed, seed=4, scenes=SOME_SCENES[:1])
    assert before == {path.name: path.stat().st_mtime_ns for path in (folder / "media").iterdir()}
    generate_clips(folder, sealed, seed=5, scenes=SOME_SCENES[:1])
    assert len(list((folder / "media").iterdir())) == 18
    assert not before.keys() & {path.name for path in (folder / "media").iterdir()}


def test_a_missing_file_is_made_again_the_same(clips: Path) -> None:
    victim = sorted((clips / "open" / "media").iterdir())[0]
    content = victim.read_bytes()
    victim.unlink()
    generate_clips(clips / "open", clips / "sealed.json", seed=4, scenes=SOME_SCENES)
    assert victim.read_bytes() == content


def test_swapping_twin_pixels_exchanges_the_files_and_nothing_public(clips: Path, tmp_path: Path) -> None:
    generate_clips(
        tmp_path / "open", tmp_path / "sealed.json", seed=4, scenes=SOME_SCENES, swap_twin_pixels=True
    )
    rows, swapped = _manifest(clips / "open"), _manifest(tmp_path / "open")
    assert rows == swapped
    partner = {
        row["file"]: other["file"]
        for row in rows
        for other in rows
        if row["twin_group"] and row["twin_group"] == other["twin_group"] and row != other
    }
    for row in rows:
        source = partner.get(row["file"], row["file"])
        assert (tmp_path / "open" / row["file"]).read_bytes() == (clips / "open" / source).read_bytes()
    sealed = json.loads((tmp_path / "sealed.json").read_text())
    for row in rows:
        truth = sealed[hashlib.sha256((tmp_path / "open" / row["file"]).read_bytes()).hexdigest()]
        assert truth["source_id"] == row["source_id"]
    assert swap_twins(swap_twins(plan_clips(4, SOME_SCENES))) == plan_clips(4, SOME_SCENES)


def test_more_twins_than_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="twin groups need"):
        plan_clips(1, SOME_SCENES, clips_per_scene=3, twin_groups_per_scene=2)
