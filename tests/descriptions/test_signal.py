"""Known flashes, cuts, colours and motions, encoded on the spot, come out as they went in."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import SIGNAL_DESCRIPTIONS, VIDEO_CORPUS
from safevid_core.descriptions.motion_words import described_motion, measured_motion, measured_object_motion
from safevid_core.descriptions.signal import Measurements, describe, measure, measure_frames
from safevid_core.pocket.world import OBJECT_RGB
from safevid_core.settings import load_settings
from safevid_core.storage.lake import Lake
from safevid_core.video.decoding import VideoError
from safevid_core.video.identity import file_sha256
from tests.media_places import placed
from tests.stages import run_stage
from tests.video.clips_for_tests import counted_frames, sample_files, write_video


def ground(frames: int, height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """A still, textured, muted picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(70, 150, (height // 8, width // 8, 1)) + rng.integers(-12, 12, 3)
    picture = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    return np.repeat(picture[None], frames, axis=0)


def with_box(
    frames: np.ndarray, path: list[tuple[float, float]], colour: str = "red", side: int = 26
) -> np.ndarray:
    """A square drawn over the frames, its top left corner at each of `path` (x, y in pixels)."""
    out = frames.copy()
    for frame, (x, y) in zip(out, path, strict=True):
        frame[round(y) : round(y) + side, round(x) : round(x) + side] = OBJECT_RGB[colour]
    return out


def line(start: tuple[float, float], end: tuple[float, float], count: int) -> list[tuple[float, float]]:
    steps = np.linspace(0, 1, count)
    return [(start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in steps]


PATHS = {
    "left": ((90, 35), (12, 35)),
    "right": ((12, 35), (90, 35)),
    "up": ((50, 66), (50, 4)),
    "down": ((50, 4), (50, 66)),
}


def measured(path: Path, frames: np.ndarray, fps: int = 12) -> Measurements:
    return measure(str(write_video(path, frames, fps=fps)))[0]


def named(result: Measurements) -> tuple[str | None, str | None]:
    """The motion of the object or the picture, and of the object alone."""
    return measured_motion(asdict(result)), measured_object_motion(asdict(result))


def flashing(rate: float, seconds: float, fps: int, share: float, low: int, high: int) -> np.ndarray:
    """A picture of which a share (of the width) alternates between two levels, `rate` flashes a second."""
    frames = ground(int(seconds * fps))
    edge = round(share * frames.shape[2])
    for index, frame in enumerate(frames):
        bright = int(index / fps * rate * 2 + 1e-6) % 2
        frame[:, :edge] = high if bright else low
    return frames


@pytest.mark.parametrize("rate", [2, 4, 8])
@pytest.mark.parametrize("fps", [24, 30])
def test_flashes_are_counted_and_held_against_the_limit(tmp_path: Path, rate: int, fps: int) -> None:
    result = measured(tmp_path / "f.mp4", flashing(rate, 3, fps, 1.0, 20, 235), fps)
    assert result.flashes_per_second == pytest.approx(rate, abs=0 if fps == 24 else 1)
    assert (result.flashes_per_second > 3) == (rate > 3)
    assert result.cuts_s == ()
    text = describe(result)
    assert f"Flashes: {result.flashes_per_second:g} within a second" in text
    assert ("above the limit of 3" in text) == (rate > 3)
    assert "nothing moves" in text


@pytest.mark.parametrize(
    ("share", "low", "high", "flashes"),
    [
        (0.15, 20, 235, False),  # less than a quarter of the picture
        (0.40, 20, 235, True),
        (1.00, 100, 112, False),  # less than 10% of the maximum relative luminance
        (1.00, 100, 160, True),
        (1.00, 236, 255, False),  # the darker state is not below 0.80
    ],
)
def test_small_faint_and_bright_flicker_is_no_flash(
    tmp_path: Path, share: float, low: int, high: int, flashes: bool
) -> None:
    result = measured(tmp_path / "f.mp4", flashing(4, 2, 24, share, low, high), 24)
    assert (result.flashes_per_second > 0) == flashes


def test_red_flashes_are_distinguished_from_general_ones(tmp_path: Path) -> None:
    frames = ground(48)
    for index, frame in enumerate(frames):
        frame[:] = (160, 0, 0) if index // 3 % 2 else (66, 66, 66)  # about equal luminance
    result = measured(tmp_path / "r.mp4", frames, 24)
    assert result.red_flashes_per_second == pytest.approx(4, abs=1)
    assert result.flashes_per_second == 0
    assert "Red flashes" in describe(result)


@settings(max_examples=40, deadline=None)
@given(rate=st.integers(1, 7), fps=st.sampled_from([24, 25, 30, 50, 60]), share=st.floats(0.3, 1.0))
def test_the_rate_of_any_square_flicker_is_found(rate: int, fps: int, share: float) -> None:
    frames = flashing(rate, 2.5, fps, share, 10, 240)[:, ::6, ::2]
    times = np.arange(len(frames)) / fps
    assert abs(measure_frames(frames, times).flashes_per_second - rate) <= (0 if fps % (2 * rate) == 0 else 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**16))
def test_any_pictures_are_measured_without_a_crash(count: int, height: int, width: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    result = measure_frames(frames, np.arange(count) / 25)
    assert result.frames == count
    assert describe(result).startswith("Duration ")


def test_cuts_are_found_at_their_times(tmp_path: Path) -> None:
    shots = [
        with_box(ground(length, seed=seed), line((10, 30), (60, 40), length), colour)
        for length, seed, colour in ((20, 1, "red"), (16, 2, "blue"), (28, 3, "white"))
    ]
    shots[1] = np.clip(shots[1].astype(int) + 70, 0, 255).astype(np.uint8)
    result = measured(tmp_path / "c.mp4", np.concatenate(shots))
    assert result.cuts_s == pytest.approx((20 / 12, 36 / 12), abs=0.02)
    assert "2 cuts, at 1.7, 3.0 s." in describe(result)


def test_a_cut_between_two_dark_shots_is_found(tmp_path: Path) -> None:
    dark = [
        with_box(ground(20, seed=seed) // 4, [place] * 20) for seed, place in ((1, (5, 5)), (2, (90, 60)))
    ]
    assert measured(tmp_path / "d.mp4", np.concatenate(dark)).cuts_s == pytest.approx((20 / 12,), abs=0.02)


def test_motion_flashes_and_fades_are_no_cuts(tmp_path: Path) -> None:
    moving = with_box(ground(24), line((2, 35), (100, 35), 24), "white", side=26)
    fade = (ground(36) * np.linspace(1, 0, 36)[:, None, None, None]).astype(np.uint8)
    assert measured(tmp_path / "a.mp4", moving).cuts_s == ()
    assert measured(tmp_path / "b.mp4", fade).cuts_s == ()


@pytest.mark.parametrize("direction", PATHS)
@pytest.mark.parametrize("colour", ["red", "white", "purple"])
def test_the_direction_and_colour_of_one_moving_thing(tmp_path: Path, direction: str, colour: str) -> None:
    frames = with_box(ground(24), line(*PATHS[direction], 24), colour)
    result = measured(tmp_path / "m.mp4", frames)
    text = describe(result)
    assert f"Motion: something moves {direction}, steadily." in text
    assert f"What moves is {colour}." in text
    (segment,) = result.motion
    start, end = PATHS[direction]
    covered = np.hypot(end[0] - start[0], end[1] - start[1]) / 128
    assert segment.travel == pytest.approx(covered, rel=0.25)


def test_a_thing_that_turns_round_is_reported_in_order(tmp_path: Path) -> None:
    there, back = line((8, 35), (94, 35), 24), line((94, 35), (8, 35), 24)
    text = describe(measured(tmp_path / "t.mp4", with_box(ground(48), there + back)))
    assert "something moves right, then something moves left" in text


@pytest.mark.parametrize("direction", PATHS)
def test_a_thing_that_crosses_the_edge_is_followed(tmp_path: Path, direction: str) -> None:
    start, end = (np.array(place) for place in PATHS[direction])
    way = np.sign(end - start)
    frames = ground(36)
    for index, frame in enumerate(frames):
        thing = np.zeros(frame.shape[:2], bool)
        thing[36:60, 52:76] = True
        thing = np.roll(thing, tuple(int(2.5 * index * step) for step in way[::-1]), (0, 1))
        frame[thing] = OBJECT_RGB["blue"]
    result = measured(tmp_path / "r.mp4", frames)
    assert named(result) == (direction, direction)
    assert f"Motion: something moves {direction}, steadily." in describe(result)


def test_a_thing_that_leaves_while_another_comes_in(tmp_path: Path) -> None:
    wide = ground(36, width=288)
    wide = with_box(with_box(wide, line((150, 35), (230, 35), 36)), line((28, 35), (108, 35), 36), "blue")
    result = measured(tmp_path / "e.mp4", wide[:, :, 80:208])
    assert named(result) == ("right", "right")


@pytest.mark.parametrize("kind", ["noise", "cut"])
def test_a_short_disturbance_does_not_silence_the_rest(tmp_path: Path, kind: str) -> None:
    frames = with_box(ground(36), line(*PATHS["left"], 36))
    if kind == "noise":
        grain = np.random.default_rng(0).normal(0, 60, frames[8:12].shape)
        frames[8:12] = np.clip(frames[8:12] + grain, 0, 255)
    else:
        frames[20:] = with_box(255 - ground(36, seed=1), line(*PATHS["left"], 36))[20:]
    assert named(measured(tmp_path / "d.mp4", frames)) == ("left", "left")


@pytest.mark.parametrize("turn", [0.25, 0.5, 0.75])
def test_a_thing_that_turns_round_on_the_ring_is_named_by_no_direction(tmp_path: Path, turn: float) -> None:
    shown = np.linspace(0, 1, 36)
    shifts = 100 * np.where(shown < turn, shown, 2 * turn - shown)
    for start in (0, 40, 80):
        frames = ground(36)
        for frame, shift in zip(frames, shifts, strict=True):
            frame[35:61, (np.arange(26) + start + round(shift)) % frame.shape[1]] = OBJECT_RGB["white"]
        result = measured(tmp_path / "t.mp4", frames)
        assert named(result) == (None, None)
        assert described_motion(describe(result)) is None


@pytest.mark.parametrize("axis", [0, 1])
def test_two_things_that_part_are_not_one_that_crosses_the_edge(tmp_path: Path, axis: int) -> None:
    there, back = (18, 35) if axis == 0 else (51, 12), (84, 35) if axis == 0 else (51, 58)
    away = np.array([1, 0] if axis == 0 else [0, 1]) * 10
    frames = with_box(ground(24), line(there, tuple(there - away), 24))
    frames = with_box(frames, line(back, tuple(back + away), 24), "white")
    assert named(measured(tmp_path / "p.mp4", frames)) == (None, None)


def test_a_bar_as_high_as_the_picture_is_a_thing(tmp_path: Path) -> None:
    frames = np.full((24, 96, 128, 3), 30, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, 10 + 4 * index : 24 + 4 * index] = 230
    assert named(measured(tmp_path / "b.mp4", frames)) == ("right", "right")


@pytest.mark.parametrize("direction", PATHS)
def test_a_pan_past_a_thing_is_reported_of_the_picture_only(tmp_path: Path, direction: str) -> None:
    wide = with_box(ground(1, 192, 256), [(110, 80)])[0]
    moves = {"left": (0, 2), "right": (0, -2), "up": (2, 0), "down": (-2, 0)}[direction]
    frames = np.stack(
        [
            wide[48 + down : 144 + down, 64 + across : 192 + across]
            for down, across in (np.multiply(moves, index - 12) for index in range(24))
        ]
    )
    result = measured(tmp_path / "p.mp4", frames)
    assert named(result) == (direction, None)
    assert f"Motion: the whole picture shifts {direction}, steadily." in describe(result)


@pytest.mark.parametrize(("step", "words"), [(2, "left"), (-2, "right")])
def test_a_panning_camera_shifts_the_whole_picture(tmp_path: Path, step: int, words: str) -> None:
    wide = ground(1, width=256)[0]
    starts = range(0, 48 * abs(step), abs(step)) if step > 0 else range(48 * abs(step), 0, step)
    frames = np.stack([wide[:, start : start + 128] for start in starts])
    text = describe(measured(tmp_path / "p.mp4", frames))
    assert f"Motion: the whole picture shifts {words}, steadily." in text


def test_stillness(tmp_path: Path) -> None:
    result = measured(tmp_path / "s.mp4", with_box(ground(24), [(50, 35)] * 24, "blue"))
    assert "Motion: nothing moves." in describe(result)
    assert "No cuts. No flashes." in describe(result)
    assert "blue" in {colour.name for colour in result.colours}
    assert result.changed_share < 0.01


@pytest.mark.parametrize("colour", OBJECT_RGB)
def test_a_plain_colour_is_named(tmp_path: Path, colour: str) -> None:
    frames = np.zeros((6, 48, 64, 3), np.uint8) + np.array(OBJECT_RGB[colour], np.uint8)
    assert [each.name for each in measured(tmp_path / "c.mp4", frames).colours] == [colour]


def test_length_and_rate(tmp_path: Path) -> None:
    result = measured(tmp_path / "a.mp4", ground(50), fps=25)
    assert (result.duration_s, result.fps, result.frames) == (pytest.approx(2.0, abs=0.01), 25, 50)
    assert describe(result).startswith("Duration 2.0 s at 25 frames a second.")
    within, times = measure(str(tmp_path / "a.mp4"), 0.4, 1.4)
    assert within.duration_s == pytest.approx(1.0, abs=0.01)
    assert times[0] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("rate", ["12", "24000/1001", "25", "30000/1001", "48", "60"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "h264"])
def test_a_file_reads_its_own_rate(tmp_path: Path, suffix: str, rate: str) -> None:
    import av

    path = tmp_path / f"r.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if suffix == "avi" else "libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for frame in with_box(ground(20), line(*PATHS["left"], 20)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    result, _ = measure(str(path))
    assert round(result.fps, 2) == round(float(Fraction(rate)), 2)
    assert result.duration_s == pytest.approx(20 / float(Fraction(rate)), abs=2e-3)


def test_the_rate_of_an_unsteady_pace_is_that_of_most_frames() -> None:
    times = np.delete(np.arange(60) / 12, [10, 11, 30, 31, 32])
    assert measure_frames(ground(55), times.round(4)).fps == pytest.approx(12, abs=0.01)


def test_one_frame_is_measured(tmp_path: Path) -> None:
    result = measured(tmp_path / "one.mp4", counted_frames(1))
    assert "nothing moves" in describe(result)


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(VideoError):
        measure(str(tmp_path / "x.mp4"))


@pytest.mark.skipif(not sample_files("clips"), reason="the sample clips are not beside this checkout")
def test_real_clips_are_measured() -> None:
    for path in sample_files("clips")[:3]:
        result, _ = measure(str(path))
        assert result.fps == pytest.approx(30, abs=0.1)
        assert result.cuts_s == ()


def corpus_rows(folder: Path) -> list[dict[str, object]]:
    rows = []
    for name, direction in (("a", "left"), ("b", "down")):
        frames = with_box(ground(24), line(*PATHS[direction], 24))
        path = write_video(folder / f"{name}.mp4", frames)
        row = {"clip_id": name, "scene": "park", "split": "train", "path": str(path)}
        rows.append({**row, "media_sha256": file_sha256(path), "start_s": 0.0, "end_s": 2.0})
    (folder / "bad.mp4").write_bytes(b"")
    bad = {"clip_id": "c", "scene": "park", "split": "benchmark", "path": str(folder / "bad.mp4")}
    return [*rows, {**bad, "media_sha256": "x", "start_s": 0.0, "end_s": 2.0}]


def test_the_stage_describes_a_scene_and_measures_again_only_what_changed(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "root", "pocket")
    tree = load_settings("pocket", overrides={"root": str(tmp_path / "root")})
    rows = corpus_rows(tmp_path)

    def commit(rows: list[dict[str, object]]) -> None:
        ids = [str(row["clip_id"]) for row in rows]
        stage = StageRows(VIDEO_CORPUS.frame(placed(lake, rows)), sequence_outcomes(ids, "ok"))
        lake.commit(VIDEO_CORPUS, "park", stage, str(len(rows)), {})

    commit(rows[:1] + rows[2:])
    report = run_stage(tree, lake, "signal_descriptions", "park")
    assert report.manifest.outcomes == {"ok": 1, "filtered": 0, "failed": 1, "undecidable": 0}
    assert not run_stage(tree, lake, "signal_descriptions", "park").computed
    commit(rows)
    report = run_stage(tree, lake, "signal_descriptions", "park")
    assert report.manifest.info["measured"] == 2, "the new clip, and the one that failed"
    described = {row["clip_id"]: row for row in lake.read(SIGNAL_DESCRIPTIONS, "park").to_dicts()}
    assert "moves left" in described["a"]["text"]
    assert "moves down" in described["b"]["text"]
    assert described["a"]["describer"] == "signal"
    assert len(described["a"]["frame_times"]) == 24
    assert json.loads(described["b"]["measurements"])["motion"][0]["direction"] == "down"
    assert run_stage(tree, lake, "signal_descriptions", "beach").manifest.rows == 0


def test_rendered_pocket_clips_move_as_they_were_drawn(tmp_path: Path) -> None:
    world = pytest.importorskip("safevid_core.pocket.world")
    for seed in range(40):
        motion = world.MOTIONS[seed % len(world.MOTIONS)]
        scene, event = world.SCENES[seed % len(world.SCENES)], list(world.EVENTS)[seed % len(world.EVENTS)]
        thing = world.OBJECTS[seed % len(world.OBJECTS)]
        colour = world.COLOURS[seed // 2 % len(world.COLOURS)]
        truth = world.ClipTruth(scene, thing, colour, motion, event)
        path = tmp_path / "clip.mp4"
        world.write_clip(path, world.render_frames(truth, seed))
        result = measure(str(path))[0]
        text = describe(result)
        assert described_motion(text) == motion
        assert named(result) == (motion, motion)
        assert text.startswith("Duration 2.0 s at 12 frames a second. No cuts. No flashes.")
