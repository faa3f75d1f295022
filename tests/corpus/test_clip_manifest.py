"""Every file and manifest line is accounted for, and a clip is known by its content."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.tables import CLIP_MANIFEST
from safevid_core.corpus.sources import SourceError
from safevid_core.datasets.withdraw import withdraw
from safevid_core.storage.lake import Lake, NothingMade
from safevid_core.video.identity import clip_id, clip_id_of_file, file_sha256
from tests.corpus.conftest import MakeSettings
from tests.corpus.pictures import moving_picture
from tests.stages import run_stage, tools_of
from tests.video.clips_for_tests import counted_frames, write_audio_only, write_video


def clip(path: Path, seed: int = 0, **options: Any) -> Path:
    return write_video(path, moving_picture(seed), **options)


def outcomes_by_end(lake: Lake) -> dict[str, tuple[str, str]]:
    """File's relative name, or `:line` -> outcome and reason."""
    rows = lake.outcomes("clip_manifest").iter_rows(named=True)
    return {row["input_id"].partition("::")[2]: (row["outcome"], row["reason"]) for row in rows}


def write_lines(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def test_a_folder_accounts_for_every_file(tmp_path: Path, make_settings: MakeSettings, lake: Lake) -> None:
    folder = tmp_path / "videos"
    clip(folder / "a.mp4", 1)
    clip(folder / "deep" / "er" / "b.mkv", 2)
    clip(folder / "deep" / 'it\'s\n"odd" видео.mp4', 3)
    clip(folder / "no_suffix.mp4", 4).rename(folder / "no_suffix")
    write_video(folder / "one.mp4", counted_frames(1))
    write_video(folder / "tiny.mp4", counted_frames(12)[:, :16, :16])
    write_audio_only(folder / "song.mp4")
    shutil.copy(folder / "a.mp4", folder / "same_bytes.mp4")
    (folder / "text.mp4").write_text("no video at all\n" * 30)
    (folder / "zero.mov").write_bytes(b"")
    (folder / "README.md").write_text("# my clips\n")
    (folder / "sealed.json").write_text("{}")
    (folder / ".hidden.mp4").write_text("passed over")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")

    report = run_stage(make_settings({"kind": "folder", "path": str(folder)}), lake, "clip_manifest")

    outcomes = outcomes_by_end(lake)
    assert {name: outcome for name, (outcome, _) in outcomes.items()} == {
        "a.mp4": "ok",
        "deep/er/b.mkv": "ok",
        'deep/it\'s\n"odd" видео.mp4': "ok",
        "no_suffix": "ok",
        "one.mp4": "filtered",
        "tiny.mp4": "filtered",
        "song.mp4": "failed",
        "same_bytes.mp4": "filtered",
        "text.mp4": "failed",
        "zero.mov": "failed",
        "README.md": "filtered",
        "sealed.json": "filtered",
        "gone.mp4": "failed",
    }
    assert all("\n" not in reason for _, reason in outcomes.values())
    assert outcomes["README.md"][1].endswith("is not a video")
    assert "a.mp4" in outcomes["same_bytes.mp4"][1]
    assert "min_seconds" in outcomes["one.mp4"][1]
    assert "min_side" in outcomes["tiny.mp4"][1]
    assert "no video stream" in outcomes["song.mp4"][1]
    assert report.manifest.info["warnings"] == []
    rows = lake.read(CLIP_MANIFEST)
    for row in rows.iter_rows(named=True):
        path = lake.media.path(row["media_sha256"])
        assert path.is_absolute()
        assert row["media_sha256"] == file_sha256(path)
        assert row["clip_id"] == clip_id_of_file(row["media_sha256"])


def test_a_folder_is_walked_alike_whatever_the_disk_says(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    """Which of two equal files is the first must not depend on the order of the directory."""
    folder = tmp_path / "videos"
    for name in ("z/x.mp4", "m.mp4", "a/x.mp4"):
        clip(folder / name, 1)
    run_stage(make_settings({"kind": "folder", "path": str(folder)}), lake, "clip_manifest")
    assert [n for n, (o, _) in outcomes_by_end(lake).items() if o == "ok"] == ["m.mp4"]


def test_equal_names_in_two_folders_are_two_clips(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    clip(tmp_path / "v" / "x" / "same.mp4", 1)
    clip(tmp_path / "v" / "y" / "same.mp4", 2)
    run_stage(make_settings({"kind": "folder", "path": str(tmp_path / "v")}), lake, "clip_manifest")
    rows = lake.read(CLIP_MANIFEST)
    assert rows["clip_id"].n_unique() == rows.height == 2


def test_moving_a_file_does_not_change_its_clip_id(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    settings = make_settings({"kind": "folder", "path": str(tmp_path / "v")})
    path = clip(tmp_path / "v" / "a.mp4", 1)
    run_stage(settings, lake, "clip_manifest")
    before = lake.read(CLIP_MANIFEST)["clip_id"].to_list()
    path.rename(tmp_path / "v" / "renamed.mp4")
    run_stage(settings, lake, "clip_manifest")
    assert lake.read(CLIP_MANIFEST)["clip_id"].to_list() == before


def test_a_manifest_gives_ids_spans_and_provenance(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    write_video(tmp_path / "m" / "media" / "long.mp4", counted_frames(24), fps=12)
    clip(tmp_path / "m" / "media" / "cut.mp4", 3, fps=12)
    manifest = write_lines(
        tmp_path / "m" / "manifest.jsonl",
        {"file": "media/long.mp4", "source_id": "yt-1", "start_s": 0.5, "end_s": 1.5, "licence": "CC-BY-4.0"},
        {"file": "media/long.mp4", "source_id": "yt-1", "start_s": 1.5, "end_s": 2.0, "twin_group": "t"},
        {
            "path": str(tmp_path / "m" / "media" / "cut.mp4"),
            "source_id": "yt-1",
            "start_s": 100,
            "end_s": 101,
        },
        "",
        {"file": "media/long.mp4", "source_id": "yt-1", "start_s": 0.5, "end_s": 1.5},
        {"file": "media/long.mp4", "caption": "whole", "scene": "kitchen"},
    )
    source = {"kind": "manifest", "path": str(manifest), "licence": "house"}
    run_stage(make_settings(source), lake, "clip_manifest")
    rows = {row["source_row"].rpartition(":")[2]: row for row in lake.read(CLIP_MANIFEST).to_dicts()}
    assert set(rows) == {"1", "2", "3", "6"}
    assert rows["1"]["clip_id"] == clip_id("yt-1", 0.5, 1.5)
    assert (rows["1"]["start_s"], rows["1"]["end_s"], rows["1"]["frames"]) == (0.5, 1.5, 12)
    assert (rows["1"]["licence"], rows["2"]["licence"], rows["2"]["twin_group"]) == (
        "CC-BY-4.0",
        "house",
        "t",
    )
    assert rows["3"]["clip_id"] == clip_id("yt-1", 100, 101)
    assert (rows["3"]["start_s"], rows["3"]["end_s"]) == (0.0, 1.0), "the file was cut already"
    assert rows["6"]["clip_id"] == clip_id_of_file(rows["6"]["media_sha256"])
    assert (rows["6"]["caption"], rows["6"]["scene_hint"]) == ("whole", "kitchen")
    assert rows["6"]["source_id"].endswith(rows["6"]["media_sha256"])
    duplicate = outcomes_by_end(lake)["manifest.jsonl:5"]
    assert duplicate == ("filtered", "the same clip as 'sources[0]::manifest.jsonl:1'")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", "is not JSON"),
        ([1, 2], "JSON object"),
        ({"source_id": "x"}, "`file` or `path`"),
        ({"file": 3}, "`file` or `path`"),
        ({"file": "none.mp4"}, "No such file"),
        ({"file": "a.mp4", "source_id": ["x"]}, "`source_id` must be text"),
        ({"file": "a.mp4", "start_s": "0"}, "`start_s` must be seconds"),
        ({"file": "a.mp4", "start_s": -1}, "`start_s` must be seconds"),
        ('{"file": "a.mp4", "end_s": NaN}', "`end_s` must be seconds"),
        ({"file": "a.mp4", "start_s": 2, "end_s": 1}, "fix `end_s`"),
        ({"file": "a.mp4", "start_s": 50, "end_s": 60}, "fix the span"),
        ('{"file": "a.mp4", "caption": "\\ud800"}', "not valid Unicode"),
    ],
)
def test_a_bad_line_fails_alone_with_one_plain_reason(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake, line: object, words: str
) -> None:
    clip(tmp_path / "a.mp4", 1)
    manifest = write_lines(tmp_path / "manifest.jsonl", line, {"file": "a.mp4"})
    run_stage(make_settings({"kind": "manifest", "path": str(manifest)}), lake, "clip_manifest")
    outcomes = outcomes_by_end(lake)
    outcome, reason = outcomes["manifest.jsonl:1"]
    assert outcome == "failed"
    assert words in reason
    assert "\n" not in reason
    assert outcomes["manifest.jsonl:2"][0] == "ok"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"kind": "pocket"}, "render the clips first"),
        ({"kind": "folder"}, "set its `path`"),
        ({"kind": "folder", "path": "empty"}, "holds no files"),
        ({"kind": "folder", "path": "hidden"}, "holds no files"),
        ({"kind": "folder", "path": "missing"}, "does not exist"),
        ({"kind": "folder", "path": "good/a.mp4"}, "is a file"),
        ({"kind": "manifest", "path": "missing.jsonl"}, "does not exist"),
        ({"kind": "manifest", "path": "blank.jsonl"}, "has no lines"),
        ({"kind": "manifest", "path": "latin.jsonl"}, "not UTF-8"),
    ],
)
def test_a_source_from_which_nothing_can_come_stops_the_stage(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake, source: dict[str, str], words: str
) -> None:
    clip(tmp_path / "good" / "a.mp4", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden" / "folders" / "only").mkdir(parents=True)
    (tmp_path / "hidden" / ".DS_Store").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe\xfd")
    if "path" in source:
        source = {**source, "path": str(tmp_path / source["path"])}
    with pytest.raises(SourceError, match=words) as error:
        run_stage(
            make_settings(source, {"kind": "folder", "path": str(tmp_path / "good")}), lake, "clip_manifest"
        )
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("corpus.sources[0]")
    assert source.get("path", "") in str(error.value)
    assert lake.manifest(CLIP_MANIFEST.name) is None


def test_a_missing_folder_is_named_by_its_place_in_the_settings_and_its_whole_path(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path / "good" / "a.mp4", 1)
    monkeypatch.chdir(tmp_path)
    settings = make_settings({"kind": "folder", "path": "good"}, {"kind": "folder", "path": "gone"})
    with pytest.raises(SourceError) as error:
        run_stage(settings, lake, "clip_manifest")
    assert str(error.value) == (
        f"corpus.sources[1]: folder '{tmp_path}/gone' does not exist; check its `path` or SAFEVID_CLIPS, "
        "and that its disk is mounted"
    )
    assert lake.manifest(CLIP_MANIFEST.name) is None


def test_odd_sources_warn_and_the_rest_goes_on(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    clip(tmp_path / "good" / "a.mp4", 1)
    write_lines(tmp_path / "typo.jsonl", {"file": "good/a.mp4", "twin_grp": "x"})
    good = {"kind": "folder", "path": str(tmp_path / "good")}
    report = run_stage(
        make_settings({"kind": "manifest", "path": str(tmp_path / "typo.jsonl")}, good, good),
        lake,
        "clip_manifest",
    )
    typo, twice = report.manifest.info["warnings"]
    assert "'twin_grp'" in typo
    assert "listed twice" in twice
    assert report.manifest.outcomes == {"ok": 1, "filtered": 1, "failed": 0, "undecidable": 0}


def test_no_source_and_no_usable_clip_stop_the_stage(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    with pytest.raises(SourceError, match="names no source"):
        run_stage(make_settings(), lake, "clip_manifest")
    clip(tmp_path / "good" / "a.mp4", 1)
    settings = make_settings({"kind": "folder", "path": str(tmp_path / "good")}, min_seconds=60.0)
    with pytest.raises(
        NothingMade, match=r"clip_manifest: none of 1 inputs gave a row: .*corpus\.min_seconds"
    ):
        run_stage(settings, lake, "clip_manifest")
    assert lake.manifest(CLIP_MANIFEST.name) is None


def test_pocket_clips_are_read_from_their_manifest(make_settings: MakeSettings, lake: Lake) -> None:
    folder = lake.root / "pocket" / "clips"
    clip(folder / "media" / "c.mp4", 1)
    write_lines(
        folder / "manifest.jsonl", {"file": "media/c.mp4", "source_id": "pocket-0-x", "twin_group": None}
    )
    run_stage(make_settings({"kind": "pocket", "licence": "L"}), lake, "clip_manifest")
    (row,) = lake.read(CLIP_MANIFEST).to_dicts()
    assert (row["origin"], row["source_id"], row["licence"]) == ("pocket", "pocket-0-x", "L")


def test_only_changed_files_are_read_again(tmp_path: Path, make_settings: MakeSettings, lake: Lake) -> None:
    folder = tmp_path / "v"
    for seed in range(4):
        clip(folder / f"{seed}.mp4", seed)
    settings = make_settings({"kind": "folder", "path": str(folder)})
    assert run_stage(settings, lake, "clip_manifest").manifest.info["files_read"] == 4
    assert not run_stage(settings, lake, "clip_manifest").computed
    clip(folder / "new.mp4", 9)
    again = run_stage(settings, lake, "clip_manifest")
    assert (again.computed, again.manifest.rows, again.manifest.info["files_read"]) == (True, 5, 1)
    clip(folder / "0.mp4", 11)
    assert run_stage(settings, lake, "clip_manifest").manifest.info["files_read"] == 1
    os.utime(folder / "1.mp4")
    touched = run_stage(settings, lake, "clip_manifest")
    assert touched.manifest.info["files_read"] == 1
    assert touched.manifest.rows == 5


def test_a_name_that_is_no_utf8_fails_alone(tmp_path: Path, make_settings: MakeSettings, lake: Lake) -> None:
    folder = tmp_path / "v"
    good = clip(folder / "good.mp4", 1)
    try:
        shutil.copy(good, os.fsencode(folder) + b"/bad\xff.mp4")
    except OSError:
        pytest.skip("this file system takes no such names")
    run_stage(make_settings({"kind": "folder", "path": str(folder)}), lake, "clip_manifest")
    by_outcome = dict(outcomes_by_end(lake).values())
    assert set(by_outcome) == {"ok", "failed"}
    assert "rename it" in by_outcome["failed"]


def test_a_folder_that_was_moved_or_copied_changes_no_row_and_is_not_read_again(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    old, new = tmp_path / "v", tmp_path / "elsewhere" / "under another name"
    path = clip(old / "deep" / "a.mp4", 1)
    clip(old / "b.mp4", 2)
    (old / "broken.mp4").write_bytes(b"no video")
    (old / "bad.txt").write_text("no video")
    first = run_stage(make_settings({"kind": "folder", "path": str(old)}), lake, "clip_manifest")
    rows, outcomes = lake.read(CLIP_MANIFEST), lake.outcomes(CLIP_MANIFEST.name)
    shutil.copytree(old, new)  # which keeps times of modification, not those of change, nor inodes
    settings = make_settings({"kind": "folder", "path": str(new)})
    again = run_stage(settings, lake, "clip_manifest")
    assert not again.computed
    assert again.manifest == first.manifest
    assert lake.read(CLIP_MANIFEST).equals(rows)
    assert not any(str(tmp_path) in reason for reason in outcomes["reason"])
    assert not any(str(tmp_path) in value for value in rows["source_row"])
    assert lake.media.path(file_sha256(path)) == new / "deep" / "a.mp4", "known though nothing was made"
    clip(new / "b.mp4", 3)
    changed = run_stage(settings, lake, "clip_manifest")
    assert (changed.computed, changed.manifest.info["files_read"]) == (True, 1)


@pytest.mark.parametrize("to", ["w", "v"])
def test_a_copy_with_other_times_and_inodes_changes_nothing(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake, to: str
) -> None:
    """As `cp -r` makes it, elsewhere or in place of the first; a file that is no video is known again too."""
    clip(tmp_path / "v" / "a.mp4", 1)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"no video")
    first = run_stage(make_settings({"kind": "folder", "path": str(tmp_path / "v")}), lake, "clip_manifest")
    shutil.copytree(tmp_path / "v", tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").iterdir():
        os.utime(path, (1, 1))
    shutil.rmtree(tmp_path / "v")
    shutil.move(tmp_path / "copy", tmp_path / to)
    settings = make_settings({"kind": "folder", "path": str(tmp_path / to)})
    again = run_stage(settings, lake, "clip_manifest")
    assert (again.computed, again.manifest) == (False, first.manifest)
    assert lake.media.path(file_sha256(tmp_path / to / "a.mp4")) == tmp_path / to / "a.mp4"


@pytest.mark.parametrize("to", ["w", "v"])
def test_other_bytes_of_the_same_size_and_time_are_read(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake, to: str
) -> None:
    path = clip(tmp_path / "v" / "a.mp4", 1)
    first = run_stage(make_settings({"kind": "folder", "path": str(tmp_path / "v")}), lake, "clip_manifest")
    before, data = path.stat(), bytearray(path.read_bytes())
    shutil.rmtree(tmp_path / "v")
    place = data.rindex(b"Lavf")  # the name of the writing library: the video stays whole
    data[place : place + 4] = b"lAVF"
    other = tmp_path / to / "a.mp4"
    other.parent.mkdir()
    other.write_bytes(data)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    settings = make_settings({"kind": "folder", "path": str(tmp_path / to)})
    again = run_stage(settings, lake, "clip_manifest")
    assert (again.computed, again.manifest.info["files_read"], again.manifest.rows) == (True, 1, 1)
    assert again.manifest.content_hash != first.manifest.content_hash
    assert lake.read(CLIP_MANIFEST)["media_sha256"].to_list() == [file_sha256(other)]


def test_equal_names_in_two_sources_are_two_rows(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    sources = []
    for number, name in enumerate(("v", "w")):
        clip(tmp_path / name / "a.mp4", number)
        sources.append({"kind": "folder", "path": str(tmp_path / name)})
    run_stage(make_settings(*sources), lake, "clip_manifest")
    assert sorted(lake.read(CLIP_MANIFEST)["source_row"]) == ["sources[0]::a.mp4", "sources[1]::a.mp4"]


@pytest.mark.parametrize("stored", ["[]", "{", '{"/a.mp4": {"stat": [1], "sha256": "x"}}'])
def test_a_store_of_measured_files_that_is_none_is_made_anew(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake, stored: str
) -> None:
    clip(tmp_path / "v" / "a.mp4", 1)
    (lake.root / "cache").mkdir()
    (lake.root / "cache" / "measured_files.json").write_text(stored)
    settings = make_settings({"kind": "folder", "path": str(tmp_path / "v")})
    assert run_stage(settings, lake, "clip_manifest").manifest.info["files_read"] == 1
    assert not run_stage(settings, lake, "clip_manifest").computed


def test_a_withdrawn_clip_that_comes_back_is_refused_with_its_reason(
    tmp_path: Path, make_settings: MakeSettings, lake: Lake
) -> None:
    """The same file under another name, and a span of it, are the same clip; other files are not."""
    folder = tmp_path / "videos"
    for name, seed in (("a.mp4", 1), ("b.mp4", 2)):
        clip(folder / name, seed)
    settings = make_settings({"kind": "folder", "path": str(folder)})
    run_stage(settings, lake, "clip_manifest")
    withdraw(tools_of(settings, lake), "a.mp4", "the person asked for it")
    sha256 = file_sha256(folder / "a.mp4")
    (folder / "a.mp4").rename(folder / "again.mp4")
    lines = write_lines(tmp_path / "m.jsonl", {"file": "videos/again.mp4", "source_id": "s", "start_s": 0.2})
    sources = ({"kind": "folder", "path": str(folder)}, {"kind": "manifest", "path": str(lines)})
    run_stage(make_settings(*sources), lake, "clip_manifest")
    found = outcomes_by_end(lake)
    assert found["b.mp4"] == ("ok", "")
    for name in ("again.mp4", "m.jsonl:1"):
        outcome, reason = found[name]
        assert (outcome, reason.startswith("withdrawn on ")) == ("filtered", True), name
        assert reason.endswith(": the person asked for it")
    assert lake.media.last_known(sha256) is None
