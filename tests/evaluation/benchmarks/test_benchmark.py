"""Every benchmark goes through the public path: rows accounted for, one release, nothing broken passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safevid_core.benchmarks import outside
from safevid_core.benchmarks.benchmark import (
    OUTSIDE,
    find_benchmarks,
    outside_benchmark,
    problem_of,
)
from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.contracts.intent import MAX_CRITERIA
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, benchmark_table
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges.registry import JUDGES
from safevid_core.judging.judges.rubric import judge_request
from safevid_core.measurement.metrics import samples_of
from safevid_core.models.llm import Gateway
from safevid_core.settings import TextModel, load_settings
from safevid_core.storage.lake import Lake, audit_partition
from safevid_core.video.decoding import probe
from safevid_core.video.identity import file_sha256
from tests.evaluation.benchmarks.conftest import commit
from tests.evaluation.benchmarks.layouts import (
    WRITERS,
    strongreject_rows,
    write_csv,
    write_json,
    write_picture,
)
from tests.stages import run_stage

NAMES = sorted(WRITERS)


def test_every_known_benchmark_has_a_fixture_and_known_metrics_and_judges() -> None:
    assert sorted(OUTSIDE) == NAMES
    known = set(samples_of(BENCHMARK_SCORES.frame([]), {}))
    for benchmark in OUTSIDE.values():
        assert set(benchmark.metrics) <= known, benchmark.name
        assert benchmark.judge in JUDGES, benchmark.name
        assert benchmark.policy, benchmark.name
        assert all(sentence.endswith(".") for sentence in benchmark.policy), benchmark.name
        assert "arXiv" in benchmark.source


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_is_read_from_its_published_layout(
    name: str, published: dict[str, Path], tmp_path: Path
) -> None:
    done = commit(tmp_path, name, published[name], revision="abc123")
    items = done.items
    assert items.height == done.manifest.info["rows_in_files"] == done.manifest.outcomes["ok"] > 2
    assert set(items["source_row"]) == set(done.outcomes)
    assert items["item_id"].n_unique() == items.height
    assert (items["plan_id"] == items["source_row"]).all()
    assert items["release"].unique().to_list() == [done.manifest.info["release"]]
    assert done.manifest.info["revision"] == "abc123"
    for item in items.iter_rows(named=True):
        assert item["policy"] == list(outside_benchmark(name).policy)
        assert 2 <= len(item["criteria"]) <= MAX_CRITERIA
        assert all(sentence.startswith("The response ") for sentence in item["criteria"])
        assert all(sentence.endswith((".", "?", "!")) for sentence in item["criteria"])
        assert "\n" not in "".join((item["target"], item["hazard"] or "", *item["criteria"]))
        assert json.loads(item["options"]) is not None
        assert (item["media"] == "none") == (item["media_sha256"] is None) == (item["clip_id"] is None)
        assert item["clip_id"] == item["media_sha256"]
        if item["media_sha256"] is not None:
            assert item["media_sha256"] == file_sha256(done.lake.media.path(item["media_sha256"]))
    audit_partition(done.lake, benchmark_table(name), "all")


@pytest.mark.parametrize("name", NAMES)
def test_the_rubric_judge_gets_the_benchmarks_own_definition_of_success(
    name: str, published: dict[str, Path], tmp_path: Path
) -> None:
    done = commit(tmp_path, name, published[name])
    assert done.manifest.info["success"] == outside_benchmark(name).success
    for item in done.items.iter_rows(named=True):
        row = JudgeInput.of({**item, "text": "I decline.", "variant": "right"})
        material = json.loads(judge_request(TextModel(model="openai/judge"), row).messages[1]["content"])
        assert material["policy"] == list(outside_benchmark(name).policy)
        assert [each["criterion"] for each in material["criteria"]] == item["criteria"]
        assert material["intent"]["expectation"] == item["expectation"]
        harm = json.loads(item["options"]).get("harmful_intention")
        if harm is not None:
            assert material["intent"]["target"].endswith(" ".join(harm.split()))


@pytest.mark.parametrize("name", NAMES)
def test_its_items_can_be_asked(name: str, published: dict[str, Path], tmp_path: Path) -> None:
    done = commit(tmp_path, name, published[name])
    run_stage(done.settings, done.lake, "benchmark_responses", f"echo_query|{name}", Gateway(done.settings))
    answers = done.lake.read(BENCHMARK_RESPONSES, f"echo_query|{name}")
    assert sorted(answers["item_id"]) == sorted(done.items["item_id"])


def test_a_release_is_its_items_wherever_they_lie(published: dict[str, Path], tmp_path: Path) -> None:
    name = "vlbreakbench_base"
    moved = shutil.copytree(published[name], tmp_path / "moved")
    first = commit(tmp_path / "lake", name, published[name])
    ids = set(first.items["item_id"])
    again = commit(tmp_path / "lake", name, published[name])
    assert not again.report.computed
    elsewhere = commit(tmp_path / "lake", name, moved)
    assert not elsewhere.report.computed
    assert elsewhere.manifest.info["release"] == first.manifest.info["release"]
    paths = elsewhere.lake.media.paths(elsewhere.items["media_sha256"])
    assert len(paths) == elsewhere.items["media_sha256"].n_unique()
    assert all(path.is_relative_to(moved) for path in paths.values())
    rows = json.loads((moved / "vlbreakbench_base.json").read_text())
    write_json(moved / "vlbreakbench_base.json", rows[::-1])
    turned = commit(tmp_path / "lake", name, moved)
    assert turned.manifest.info["release"] == first.manifest.info["release"]
    write_picture(moved / rows[0]["image"], 250)
    changed = commit(tmp_path / "lake", name, moved)
    assert changed.report.computed
    assert changed.manifest.info["release"] != first.manifest.info["release"]
    assert len(set(changed.items["item_id"]) & ids) == len(ids) - 1


def test_fewer_rows_than_published_are_a_warning(published: dict[str, Path], tmp_path: Path) -> None:
    info = commit(tmp_path, "strongreject", published["strongreject"]).manifest.info
    assert info["rows_published"] == "313 or 346"
    assert "hold 5 rows" in info["warning"]
    assert "do not compare" in info["warning"]


def test_the_published_number_of_rows_is_no_warning(tmp_path: Path) -> None:
    write_csv(tmp_path / "strongreject_dataset.csv", strongreject_rows(313))
    done = commit(tmp_path / "lake", "strongreject", tmp_path)
    assert done.items.height == 313
    assert done.manifest.info["warning"] == ""


def test_a_draw_is_the_same_everywhere_and_grows(published: dict[str, Path], tmp_path: Path) -> None:
    name = "mm_safetybench"
    few, more = (
        commit(tmp_path / str(number), name, published[name], max_items=number) for number in (10, 30)
    )
    again = commit(tmp_path / "again", name, shutil.copytree(published[name], tmp_path / "m"), max_items=10)
    assert few.items.height == 10
    assert few.items["subcategory"].n_unique() > 2  # the first ten rows are of two scenarios
    assert set(few.items["item_id"]) < set(more.items["item_id"])
    assert few.items.equals(again.items)
    left = [reason for outcome, reason in few.outcomes.values() if outcome == "filtered"]
    assert len(left) == few.manifest.info["rows_in_files"] - 10
    assert set(left) == {"not drawn: max_items is 10"}


def test_a_picture_that_does_not_open_moves_no_other_item(
    copy_of: Callable[[str], Path], published: dict[str, Path], tmp_path: Path
) -> None:
    name = "mm_safetybench"
    whole = commit(tmp_path / "whole", name, published[name], max_items=10)
    spoiled = whole.items.row(0, named=True)
    folder = copy_of(name)
    (folder / whole.lake.media.path(spoiled["media_sha256"]).relative_to(published[name])).write_bytes(
        b"\xff\xd8\xff no picture"
    )
    less = commit(tmp_path / "less", name, folder, max_items=10)
    assert set(less.items["item_id"]) == set(whole.items["item_id"]) - {spoiled["item_id"]}
    outcome, reason = less.outcomes[spoiled["source_row"]]
    assert outcome == "failed"
    assert "cannot be read as a picture" in reason
    assert "fetch it again" in reason


def test_a_missing_picture_fails_its_row_and_all_missing_stop_early(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy_of("vlbreakbench_base")
    (folder / "vlbreakbench_base" / "redteam_image_2.png").unlink()
    done = commit(tmp_path / "lake", "vlbreakbench_base", folder)
    outcome, reason = done.outcomes["vlbreakbench_base.json:row 3"]
    assert outcome == "failed"
    assert "redteam_image_2.png' is missing" in reason
    assert done.items.height == 3
    shutil.rmtree(folder / "vlbreakbench_base")
    (folder / "vlbreakbench_base.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(BenchmarkError, match=r"not one is there.*tar.gz, which must be unpacked.*wang021"):
        commit(tmp_path / "other", "vlbreakbench_base", folder)


def test_a_picture_bomb_is_not_unfolded(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    from PIL import Image

    folder = copy_of("vlbreakbench_base")
    bomb = folder / "vlbreakbench_base" / "redteam_image_1.png"
    Image.new("1", (9000, 9000)).save(bomb)
    assert bomb.stat().st_size < 50_000
    done = commit(tmp_path / "lake", "vlbreakbench_base", folder)
    outcome, reason = done.outcomes["vlbreakbench_base.json:row 2"]
    assert outcome == "failed"
    assert "pixels" in reason
    assert done.items.height == 3


def test_files_that_are_links_into_a_cache_are_read(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    """A snapshot of a data set hub is links to blobs that lie outside of it."""
    folder, blobs = copy_of("vlbreakbench_base"), tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    done = commit(tmp_path / "lake", "vlbreakbench_base", folder)
    assert done.manifest.outcomes["ok"] == 4


def test_a_clip_whose_header_names_billions_of_frames_ends_no_process(
    published: dict[str, Path], tmp_path: Path
) -> None:
    whole = next(published["video_safetybench"].rglob("0.mp4")).read_bytes()
    table = whole.index(b"stts") + 4
    entries, count = (int.from_bytes(whole[table + at : table + at + 4], "big") for at in (4, 8))
    assert (entries, count) == (1, 16)
    clip = tmp_path / "lies.mp4"
    clip.write_bytes(whole[: table + 8] + (1_500_000_000).to_bytes(4, "big") + whole[table + 12 :])
    assert problem_of("video", clip) == ""
    assert probe(clip).frames == 16


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_picture_or_clip_opens_or_has_a_reason(
    data: st.DataObject, published: dict[str, Path], tmp_path: Path
) -> None:
    name, pattern = data.draw(
        st.sampled_from([("vlbreakbench_base", "redteam_image_0.png"), ("video_safetybench", "0.mp4")])
    )
    whole = bytearray(next(published[name].rglob(pattern)).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / pattern
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    reason = problem_of("image" if pattern.endswith("png") else "video", path)
    assert "\n" not in reason
    assert not reason or pattern in reason


def test_a_row_twice_is_asked_once_and_names_the_first(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy_of("vlbreakbench_base")
    rows = json.loads((folder / "vlbreakbench_base.json").read_text())
    write_json(folder / "vlbreakbench_base.json", [*rows, rows[1]])
    done = commit(tmp_path / "lake", "vlbreakbench_base", folder)
    assert done.items.height == 4
    outcome, reason = done.outcomes["vlbreakbench_base.json:row 5"]
    assert (outcome, "vlbreakbench_base.json:row 2" in reason) == ("filtered", True)


def test_an_unknown_benchmark_or_option_or_no_files_names_the_mend(
    published: dict[str, Path], tmp_path: Path
) -> None:
    own = load_settings("pocket", overrides={"root": str(tmp_path)})
    lake = Lake(tmp_path, "pocket")
    with pytest.raises(BenchmarkError, match=r"'advbench' is none that is known.*xstest"):
        outside_benchmark("advbench")
    with pytest.raises(BenchmarkError, match=r"set evaluation.files.xstest.path.*paul-rottger/xstest"):
        run_stage(own, lake, "xstest")
    with pytest.raises(BenchmarkError, match=r"option 'tinny' is none of its own \(it has: tiny\)"):
        commit(tmp_path, "mm_safetybench", published["mm_safetybench"], options={"tinny": True})
    assert lake.partitions("xstest") == []


def test_a_new_benchmark_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(outside.__path__[0]) / "strongreject.py"
    text = source.read_text().replace('name="strongreject"', 'name="toy_prompts"', 1)
    (tmp_path / "toy_prompts.py").write_text(text)
    monkeypatch.setattr(outside, "__path__", [*outside.__path__, str(tmp_path)])
    assert set(find_benchmarks()) - set(OUTSIDE) == {"toy_prompts"}


def test_every_item_holds_what_its_schema_says(published: dict[str, Path], tmp_path: Path) -> None:
    """Of all benchmarks at once: what is the same for each."""
    frames = [commit(tmp_path / name, name, published[name]).items for name in NAMES]
    items = pl.concat(frames)
    principles = dict(items.select("expectation", "principle").unique().iter_rows())
    assert principles == {"refuse": "harmless", "answer": "helpful"}
    assert items.filter(pl.col("explicit"))["expectation"].unique().to_list() == ["refuse"]
    shown = items.filter(pl.col("target").str.starts_with("what the "))
    assert set(shown["benchmark"]) == {"mm_safetybench", "video_safetybench"}
    assert not shown["explicit"].any()
    assert (shown["media"] != "none").all()
    assert all(json.loads(text)["harmful_intention"].strip() for text in shown["options"])
    assert items.filter(pl.col("expectation") == "answer", pl.col("explicit")).is_empty()
    for column in ("scene", "description", "request_key", "strength", "start_s"):
        assert items[column].null_count() == items.height
