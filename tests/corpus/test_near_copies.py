"""A copy that was encoded again or scaled is caught; other clips, and twins, are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.corpus.near_copies import connected_groups, copies_of, near_copy_pairs
from safevid_core.video.decoding import decode_uniform, probe, resize
from tests.corpus.pictures import moving_picture
from tests.video.clips_for_tests import sample_files, write_video


def thumbnails(path: Path) -> np.ndarray:
    return np.stack([resize(frame, (32, 32)) for frame in decode_uniform(path, 4).pixels])


def pairs_by_pixels(paths: list[Path]) -> list[tuple[int, int]]:
    """Pairs when the embedding proposes every pair: what the pixels alone decide."""
    return near_copy_pairs(np.ones((len(paths), 1)), np.stack([thumbnails(path) for path in paths]), 0.5)


def test_reencoded_and_rescaled_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    clips = [moving_picture(seed, height=128, width=192) for seed in range(5)]
    paths = [write_video(tmp_path / f"{seed}.mp4", each) for seed, each in enumerate(clips)]
    paths.append(write_video(tmp_path / "coarse.mp4", clips[1], options={"crf": "38"}))
    half = np.stack([resize(frame, (64, 96)) for frame in clips[2]])
    paths.append(write_video(tmp_path / "half.mp4", half, codec="libx265"))
    assert sorted(pairs_by_pixels(paths)) == [(1, 5), (2, 6)]


@pytest.mark.skipif(not sample_files("clips"), reason="the sample clips are not beside this checkout")
def test_real_clips_encoded_again_are_found_and_different_ones_are_not(tmp_path: Path) -> None:
    originals = sample_files("clips")[:4]
    copies = []
    for index, path in enumerate(originals):
        info = probe(path)
        frames = decode_uniform(path, info.frames // 2, size=(info.height // 4 * 2, info.width // 4 * 2))
        half_rate = round(info.fps / 2)
        copies.append(
            write_video(tmp_path / f"{index}.mp4", frames.pixels, fps=half_rate, options={"crf": "34"})
        )
    found = sorted(pairs_by_pixels([*originals, *copies]))
    assert found == [(index, len(originals) + index) for index in range(4)]


def test_one_small_object_of_another_colour_is_another_clip(tmp_path: Path) -> None:
    one = moving_picture(0)
    other = one.copy()
    other[:, 20:34, 40:54] = 255 - other[:, 20:34, 40:54]
    paths = [write_video(tmp_path / "a.mp4", one), write_video(tmp_path / "b.mp4", other)]
    assert pairs_by_pixels(paths) == []


def test_a_low_cosine_proposes_nothing() -> None:
    same = np.zeros((2, 4, 32, 32, 3), np.uint8)
    assert near_copy_pairs(np.eye(2), same, 0.9) == []
    assert near_copy_pairs(np.ones((2, 1)), same, 0.9) == [(0, 1)]


def test_blocks_cover_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 3, 40)
    pictures = np.zeros((40, 1, 32, 32, 3), np.uint8) + (shades * 100)[:, None, None, None, None].astype(
        np.uint8
    )
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if shades[i] == shades[j]}
    monkeypatch.setattr("safevid_core.corpus.near_copies._ROWS_AT_ONCE", 7)
    monkeypatch.setattr("safevid_core.corpus.near_copies._PAIRS_AT_ONCE", 5)
    assert set(near_copy_pairs(np.ones((40, 1)), pictures, 0.9)) == expected


def test_the_first_of_a_chain_is_kept_and_twins_are_never_copies() -> None:
    ids = ["a", "b", "c", "d", "t1", "t2", "z"]
    twins = {"t1": "g", "t2": "g"}
    assert copies_of(ids, [(0, 1), (1, 2)], {}) == {"b": "a", "c": "a"}
    assert copies_of(ids, [(4, 5)], twins) == {}
    # A copy of both twins goes; both twins stay, although "d" sorts before them.
    assert copies_of(ids, [(3, 4), (3, 5)], twins) == {"d": "t1"}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30))
def test_groups_are_the_connected_components(joins: list[tuple[int, int]]) -> None:
    groups = connected_groups(range(10), joins)
    assert [each for group in groups for each in group[:1]] == sorted(group[0] for group in groups)
    reach = {each: {each} for each in range(13)}
    for _ in range(13):
        for one, other in joins:
            both = reach[one] | reach[other]
            for member in both:
                reach[member] = reach[member] | both
    assert {frozenset(group) for group in groups} == {
        frozenset(reach[each] & set(range(10))) for each in range(10)
    }
