"""What was said about a person's own videos: by file name, each once, those that stopped with why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.rows import BenchmarkScore
from safevid_core.contracts.tables import (
    CLIP_MANIFEST,
    DESCRIPTIONS,
    PAIRS,
    SCENE_ASSIGNMENTS,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    VIDEO_REPORT,
    candidate_table,
)
from safevid_core.corpus.names import ClipNames
from safevid_core.reporting.samples import _answer
from safevid_core.reporting.videos import MOST_VIDEOS, REPORT
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake
from safevid_dagster.reports import preview
from tests.evaluation.small_lake import put
from tests.media_places import placed
from tests.stages import run_stage
from tests.video.clips_for_tests import counted_frames, write_video

HARM = "A harmful question & <b>markup</b>"


@pytest.fixture
def own(tmp_path: Path) -> tuple[Settings, Lake]:
    """Two videos of one name in two folders, one that is broken; one is described, one beyond its quota."""
    folder = tmp_path / "mine"
    for name in ("beach/clip.mp4", "town/clip.mp4"):
        (folder / name).parent.mkdir(parents=True)
        write_video(folder / name, counted_frames(24))
    with open(folder / "town" / "clip.mp4", "ab") as file:
        file.write(b"\0\0\0\x08free")  # other bytes, the same pictures
    (folder / "broken.mp4").write_bytes(b"no video")
    root = tmp_path / "root"
    source = {"kind": "folder", "path": str(folder)}
    settings = load_settings("pocket", overrides={"root": str(root), "corpus": {"sources": [source]}})
    lake = Lake(root, "pocket")
    run_stage(settings, lake, "clip_manifest")
    clips = {name_of(lake, row): row for row in lake.read(CLIP_MANIFEST).to_dicts()}
    described_clip, untold = clips["beach/clip.mp4"], clips["town/clip.mp4"]
    put(
        lake,
        SCENE_ASSIGNMENTS,
        WHOLE,
        [of(SCENE_ASSIGNMENTS, clip, scene="beach") for clip in clips.values()],
    )
    kept = VIDEO_CORPUS.frame([of(VIDEO_CORPUS, described_clip, scene="beach", split="train")])
    ends = [
        (described_clip["clip_id"], "ok", ""),
        (untold["clip_id"], "filtered", "beyond the scene's quota"),
    ]
    lake.commit(VIDEO_CORPUS, "beach", StageRows(kept, ends), "test", {}, 0.0)
    said = {"description_id": "d", "clip_id": described_clip["clip_id"], "text": "Waves roll in."}
    put(lake, candidate_table("qwen2_5_vl"), "beach", [said])
    dropped = json.dumps([{"text": "a shark", "why": "only one describer says so"}])
    text = of(
        DESCRIPTIONS,
        described_clip,
        scene="beach",
        text="Waves roll onto a beach.",
        claims="[]",
        dropped=dropped,
    )
    put(lake, DESCRIPTIONS, "beach", [text])
    asked = {"query_id": "q", "plan_id": "p", "query": HARM, "subcategory": "harm", "explicit": True}
    query = of(TAXONOMY_QUERIES, described_clip, style="direct", **asked)
    put(lake, TAXONOMY_QUERIES, "beach", [query])
    put(
        lake,
        PAIRS,
        "beach",
        [of(PAIRS, described_clip, pair_id="x", query_id="q", chosen="No. It is dangerous.")],
    )
    return settings, lake


def of(table: Any, clip: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {name: value for name, value in {**clip, **values}.items() if name in table.schema}


def name_of(lake: Lake, row: dict[str, Any]) -> str:
    return ClipNames(lake)(row["clip_id"], row["media_sha256"])


def test_each_file_ends_once_with_what_was_said_or_where_it_stopped(own: tuple[Settings, Lake]) -> None:
    settings, lake = own
    report = run_stage(settings, lake, "video_report")
    ends = {row["input_id"].rpartition("::")[2]: row for row in lake.outcomes(VIDEO_REPORT.name).to_dicts()}
    assert {name: row["outcome"] for name, row in ends.items()} == {
        "beach/clip.mp4": "ok", "town/clip.mp4": "filtered", "broken.mp4": "failed",
    }  # fmt: skip
    assert ends["town/clip.mp4"]["reason"] == "video_corpus: beyond the scene's quota"
    assert ends["broken.mp4"]["reason"].startswith("clip_manifest: ")
    (row,) = lake.read(VIDEO_REPORT).to_dicts()
    assert (row["file"], row["scene"], row["split"], row["queries"], row["pairs"]) == (
        "beach/clip.mp4", "beach", "train", 1, 1,
    )  # fmt: skip
    assert json.loads(row["said"]) == {"qwen2_5_vl": "Waves roll in."}
    assert report.manifest.info["described"] == 1
    assert not run_stage(settings, lake, "video_report").computed


def test_the_page_names_every_file_and_runs_nothing(own: tuple[Settings, Lake]) -> None:
    settings, lake = own
    run_stage(settings, lake, "video_report")
    page = (lake.root / "reports" / REPORT).read_text(encoding="utf-8")
    for text in ("beach/clip.mp4", "town/clip.mp4", "broken.mp4", "Waves roll onto a beach.", "a shark"):
        assert text in page
    assert "<b>markup" not in page
    assert "<script" not in page
    assert page.index("<summary>1 queries") < page.index("A harmful question")
    (lake.root / "reports" / REPORT).unlink()
    run_stage(settings, lake, "video_report")
    assert (lake.root / "reports" / REPORT).is_file()


def test_without_own_videos_the_page_says_how_to_bring_some(tmp_path: Path) -> None:
    settings = load_settings("pocket", overrides={"root": str(tmp_path), "corpus": {"sources": []}})
    lake = Lake(tmp_path, "pocket")
    report = run_stage(settings, lake, "video_report")
    assert report.manifest.rows == 0
    assert "SAFEVID_CLIPS=" in (lake.root / "reports" / REPORT).read_text()
    assert MOST_VIDEOS >= 100


def test_parts_of_one_file_are_distinguished_by_their_spans(tmp_path: Path) -> None:
    write_video(tmp_path / "talk.mp4", counted_frames(30))
    lines = [{"file": "talk.mp4", "source_id": "t", "start_s": s, "end_s": s + 1} for s in (0, 1)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"kind": "manifest", "path": str(tmp_path / "m.jsonl")}
    settings = load_settings(
        "pocket", overrides={"root": str(tmp_path / "r"), "corpus": {"sources": [source]}}
    )
    lake = Lake(tmp_path / "r", "pocket")
    run_stage(settings, lake, "clip_manifest")
    rows = lake.read(CLIP_MANIFEST).to_dicts()
    assert {name_of(lake, row) for row in rows} == {"talk.mp4, 0 to 1 s", "talk.mp4, 1 to 2 s"}
    placed(lake, [{"media_sha256": "z" * 64, "path": "/x/y/z.mp4"}])
    assert ClipNames(lake)("gone", "z" * 64) == "z.mp4"
    assert ClipNames(lake)(None) == ""


def test_a_preview_names_files(own: tuple[Settings, Lake]) -> None:
    _, lake = own
    text = preview(lake, DESCRIPTIONS, "beach")
    assert "| clip_id | file |" in text
    assert "beach/clip.mp4" in text


def verdict(response: str, success: bool) -> BenchmarkScore:
    return BenchmarkScore(
        response, "i", "right", 0, "answer", success, not success, "", None, None, None, None, None
    )


def test_the_answer_shown_is_one_that_came_out_as_most_did() -> None:
    seeds = [verdict("a", True), verdict("b", False), verdict("c", False)]
    shown = _answer("s", seeds, {"a": "good", "b": "bad"})
    assert (shown.text, shown.success, shown.agreeing) == ("bad", False, 2)
    assert _answer("s", [verdict("a", True), verdict("b", False)], {}).success is False
