"""What holds for every format: whole or absent, the same bytes again, one line for bad input."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from safevid_core.contracts.errors import VideoError
from safevid_core.contracts.tables import PAIRS, RELEASE, VIDEO_CORPUS
from safevid_core.datasets.exports import EXPORTS, ExportError, export_pairs
from safevid_core.datasets.exports.clip_media import Clip, cut_clips, parts_of_files, safe_name
from safevid_core.storage.lake import Lake
from safevid_core.video.decoding import iterate_frames, probe
from tests.command import is_one_line, safevid
from tests.datasets.exports.conftest import SCENE, own_lake
from tests.evaluation.small_lake import put, settings_for
from tests.stages import run_stage

FORMATS = sorted(EXPORTS)
OPENS_VIDEOS = [name for name, export in EXPORTS.items() if export.media != "none"]


def frames_for(name: str) -> int | None:
    return 2 if EXPORTS[name].media == "frames" else None


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_release_gives_the_same_bytes_and_stays_as_it_is(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    before = lake.manifest(RELEASE.name)
    first = export_pairs(lake, name, tmp_path / "a", frames=frames_for(name), validation=0.3)
    export_pairs(lake, name, tmp_path / "b", frames=frames_for(name), validation=0.3)
    ours, again = (files_below(tmp_path / folder) for folder in "ab")
    assert ours == again
    assert sum(first.pairs.values()) == lake.read(RELEASE).height
    assert not first.left_out
    assert lake.manifest(RELEASE.name) == before
    assert not run_stage(settings_for(lake.root), lake, "safevid_350k_release").computed


@pytest.mark.parametrize("name", OPENS_VIDEOS)
def test_a_video_that_is_gone_is_one_line_and_nothing_is_written(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    lake = own_lake(tmp_path, lake)
    sha256 = lake.read(RELEASE).sort("pair_id")["media_sha256"][-1]
    lake.media.path(sha256).unlink()
    with pytest.raises(VideoError, match=f"media {sha256[:12]}: its file .* is gone"):
        export_pairs(lake, name, tmp_path / "out", frames=frames_for(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["safevid"]


def test_a_format_that_names_videos_by_hash_needs_none_of_them(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    for sha256 in lake.read(RELEASE)["media_sha256"].unique():
        lake.media.path(sha256).unlink()
    export_pairs(lake, "hugging-face", tmp_path / "out")
    assert not any(str(tmp_path).encode() in data for data in files_below(tmp_path / "out").values())


def test_a_failure_half_way_leaves_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", fail)
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="out cannot be written \\(No space left on device\\); make room"):
        export_pairs(lake, "hugging-face", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not any((tmp_path / "out").iterdir())


@pytest.fixture
def most_bytes() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond some bytes, as a disk that fills does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("options", [[name] for name in FORMATS] + [["ms-swift", "--cut"]], ids=" ".join)
def test_a_disk_that_fills_is_one_line_and_leaves_nothing(
    options: list[str], lake: Lake, tmp_path: Path, most_bytes: Callable[[int], None]
) -> None:
    frames = frames_for(options[0])
    asked = ["export", "pairs", *options, *([] if frames is None else ["--frames", str(frames)])]
    whole = tmp_path / "whole"
    assert safevid(*asked, "--to", whole, root=lake.root).exit_code == 0
    most_bytes(max(map(len, files_below(whole).values())) // 2)
    done = safevid(*asked, "--to", tmp_path / "out", root=lake.root)
    assert is_one_line(done, 2, "out cannot be written (File too large); make room, or name another folder")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["csv"], "no format 'csv' for pairs; there are: hugging-face, inspect, "),
        (["trl"], "say how many with --frames"),
        (["ms-swift", "--frames", "8"], "ms-swift holds no frames; leave --frames out"),
        (["webdataset", "--frames", "0"], "--frames is 0; it must be from 1 to 999"),
        (["hugging-face", "--cut"], "hugging-face holds no video files; leave --cut out"),
        (["hugging-face", "--validation", "1"], "--validation is 1; it must be 0 or more and below 1"),
        (["hugging-face", "--release", "zz"], "no release 'zz'; the lake holds: "),
        (["hugging-face", "--to", "/proc/none"], "/proc/none cannot be written (No such file or directory)"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], says: str, lake: Lake, tmp_path: Path
) -> None:
    to = [] if "--to" in arguments else ["--to", str(tmp_path / "out")]
    done = safevid("export", "pairs", *arguments, *to, root=lake.root)
    assert is_one_line(done, 2, says)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_holds_something_stays_as_it_is(lake: Lake, tmp_path: Path) -> None:
    kept = tmp_path / "out" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    done = safevid("export", "pairs", "hugging-face", "--to", kept.parent, root=lake.root)
    assert is_one_line(done, 2, "out is not empty; name a new folder")
    assert files_below(kept.parent) == {"mine.txt": b"mine"}
    done = safevid("export", "pairs", "hugging-face", "--to", kept, root=lake.root)
    assert is_one_line(done, 2, "mine.txt is a file; name a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(lake: Lake, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = safevid("export", "pairs", "hugging-face", "--to", tmp_path / "out", root=lake.root)
    tmp_path.chmod(0o700)
    assert is_one_line(done, 2, "cannot be written (Permission denied)")


def test_the_command_says_what_it_wrote(lake: Lake, tmp_path: Path) -> None:
    release = lake.read(RELEASE)["release"][0]
    asked = ["--to", tmp_path / "out", "--validation", "0.3"]
    done = safevid("export", "pairs", "llava-next", *asked, root=lake.root)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{tmp_path / 'out'}: release {release}, pairs: train ")


@pytest.mark.parametrize("name", ["llama-factory", "ms-swift", "llava-next", "trl"])
def test_a_pair_whose_text_the_reader_would_replace_is_left_out_and_counted(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    lake = own_lake(tmp_path, lake)
    pairs = lake.read(PAIRS, SCENE).drop("profile").to_dicts()
    pairs[0]["rejected"] = "Look at <image> first."
    pairs[1]["prompt"] = "What does the tag <imagery> do?"
    put(lake, PAIRS, SCENE, pairs)
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    written = export_pairs(lake, name, tmp_path / "out", frames=frames_for(name))
    assert list(written.left_out.values()) == [1]
    assert sum(written.pairs.values()) == len(pairs) - 1
    if name == "trl":
        found = pl.read_parquet(tmp_path / "out" / "train" / "metadata.parquet").write_json()
    else:
        found = b"".join(files_below(tmp_path / "out").values()).decode()
    assert "Look at <image> first." not in found
    assert "<imagery>" in found


def with_a_part(lake: Lake, folder: Path) -> tuple[Lake, str]:
    """A lake in which one clip is the middle second of its file of two, and that clip's id."""
    lake = own_lake(folder, lake)
    pairs = lake.read(PAIRS, SCENE).drop("profile").to_dicts()
    clip = pairs[0]["clip_id"]
    for pair in pairs:
        if pair["clip_id"] == clip:
            pair |= {"start_s": 0.6, "end_s": 1.4}
    put(lake, PAIRS, SCENE, pairs)
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    return lake, clip


def test_a_part_of_a_file_is_refused_where_the_reader_takes_whole_files(lake: Lake, tmp_path: Path) -> None:
    lake, clip = with_a_part(lake, tmp_path)
    of = lake.read(RELEASE)["clip_id"].n_unique()
    message = rf"1 of {of} clips are parts .*{clip}: 0\.6 s to 1\.4 s of .*--cut"
    with pytest.raises(ExportError, match=message):
        export_pairs(lake, "llama-factory", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cut_clip_shows_the_frames_of_its_span(lake: Lake, tmp_path: Path) -> None:
    lake, clip = with_a_part(lake, tmp_path)
    export_pairs(lake, "ms-swift", tmp_path / "out", cut=True)
    names = {path.stem for path in (tmp_path / "out" / "videos").iterdir()}
    assert names == set(lake.read(RELEASE)["clip_id"])
    cut = tmp_path / "out" / "videos" / f"{clip}.mp4"
    sha256 = lake.read(RELEASE).filter(pl.col("clip_id") == clip)["media_sha256"][0]
    whole = lake.media.path(sha256)
    assert probe(cut).duration_s == pytest.approx(0.8, abs=2 / probe(whole).fps)
    ours = list(iterate_frames(cut))
    theirs = list(iterate_frames(whole, start_s=0.6, end_s=1.4))
    assert len(ours) == len(theirs)
    # H.264 at quality 18 changes a pixel by little; another span would show the object elsewhere.
    for (_, frame), (_, wanted) in zip(ours, theirs, strict=True):
        assert abs(frame.astype(int) - wanted.astype(int)).mean() < 3


def test_a_file_of_a_kind_that_inspect_does_not_take_is_refused(lake: Lake, tmp_path: Path) -> None:
    lake = own_lake(tmp_path, lake)
    sha256 = lake.read(RELEASE)["media_sha256"][0]
    path = lake.media.path(sha256)
    other = path.rename(path.with_suffix(".mkv"))
    lake.media.record([(sha256, other, other.stat().st_size)])
    with pytest.raises(ExportError, match=r"takes .mp4, .mov, .mpeg, .mpg, and 1 of .* --cut"):
        export_pairs(lake, "inspect", tmp_path / "out")
    assert export_pairs(lake, "inspect", tmp_path / "out", cut=True).pairs


def test_odd_sides_lose_a_row_and_a_column(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 35, 33, "bgr0"
        for value in range(0, 200, 25):
            frame = av.VideoFrame.from_ndarray(np.full((33, 35, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = Clip("../odd one", "train", path, "hash", 0.0, None)
    places = cut_clips([clip], tmp_path)
    assert places == {"../odd one": f"videos/{safe_name('../odd one')}.mp4"}
    info = probe(tmp_path / places["../odd one"])
    assert (info.width, info.height, info.frames) == (34, 32, 8)


def test_a_clip_to_the_end_of_its_file_is_no_part(lake: Lake) -> None:
    row = lake.read(VIDEO_CORPUS).row(0, named=True)
    path = lake.media.path(row["media_sha256"])
    spans = [(0.0, None), (0.0, 2.0), (0.2, 1.8), (0.0, 60.0), (0.8, None), (0.0, 1.0)]
    clips = [Clip(str(span), "train", path, "hash", *span) for span in spans]
    assert [clip.clip_id for clip in parts_of_files(clips)] == ["(0.8, None)", "(0.0, 1.0)"]
