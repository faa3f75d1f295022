"""`safevid withdraw`: removal, seals, refusals, a purge, and a kill at every act."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from huggingface_hub import DatasetCard

from safevid_core.alignment.training_pairs import read_training_pairs
from safevid_core.benchmarks.releases import read_release
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    BENCHMARK_RELEASES,
    DECIDED_SIDES,
    PAIRS,
    RELEASE,
    SAFEVIDBENCH_BASE,
    WITHDRAWN,
)
from safevid_core.corpus.withdrawn import read_withdrawn
from safevid_core.datasets.named import UnknownId
from safevid_core.datasets.release_folder import read_pairs, read_record
from safevid_core.datasets.withdraw import NotAClip, finish_all, not_withdrawn, withdraw
from safevid_core.datasets.withdrawal_intent import read_intents, read_report
from safevid_core.models.bill import bill
from safevid_core.models.ledger import Ledger
from safevid_core.models.llm import Gateway
from safevid_core.pipeline import build_registry
from safevid_core.settings import load_settings
from safevid_core.stages.stage import Tools
from safevid_core.storage.lake import WHOLE, Lake, audit_partition, directory_hash
from safevid_core.storage.seals import WithdrawnError, seals_of_directory, seals_of_partition
from tests.command import is_one_line, safevid
from tests.datasets.old_release import write_old_release
from tests.datasets.traced_lake import Traced, build
from tests.stages import run_stage

WHY = "the person asked for it"


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return build(tmp_path / "lake", tmp_path / "mine")


def tools_of(root: Path) -> Tools:
    settings = load_settings("pocket", overrides={"root": str(root)})
    return Tools(settings, Lake(root, "pocket"), build_registry(settings), lambda: Gateway(settings))


def withdrawn(traced: Traced, name: str, **more: Any) -> dict[str, Any]:
    return withdraw(tools_of(traced.lake.root), traced.clips.get(name, name), WHY, **more)


def holding(root: Path, words: list[str]) -> set[str]:
    """The files below a folder that hold one of some words; Parquet files by their values."""
    found = set()
    for path in (each for each in root.rglob("*") if each.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data = pl.read_parquet(path).write_ndjson().encode()
        if any(word.encode() in data for word in words):
            found.add(path.relative_to(root).as_posix())
    return found


def test_nothing_is_left_of_a_clip_but_tombstone_and_sealed_release(traced: Traced) -> None:
    root, name = traced.lake.root, "c1"
    before = directory_hash(root / traced.release_folder)
    table = traced.lake.manifest(RELEASE.name)
    report = withdrawn(traced, name)
    release = f"{traced.release_folder}/train/pairs-00000.parquet"
    assert table is not None
    assert holding(root, [traced.said(name)]) == {release, f"tables/{RELEASE.name}/all/{table.files['rows']}"}
    assert directory_hash(root / traced.release_folder) == before
    assert traced.lake.manifest(RELEASE.name) == table
    assert not traced.media[name].exists()
    assert traced.lake.media.last_known(read_withdrawn(traced.lake).rows["media_sha256"][0]) is None
    assert report["rows_removed"] == {
        "clip_manifest": 1, "video_corpus": 1, "descriptions": 1, "query_plan": 2, "taxonomy_queries": 1,
        "safevid_350k_pairs": 1, "own_style_answers": 1,
    }  # fmt: skip
    assert report["files_removed"] == {"media": 1, "frames": 1, "embedding": 1, "features": 1}
    tombstone = traced.lake.read(WITHDRAWN).row(0, named=True)
    assert (tombstone["clip_id"], tombstone["reason"]) == (traced.clips[name], WHY)
    assert tombstone["media_sha256"] is not None
    assert tombstone["withdrawn_at"] == report["date"]
    assert traced.clips[name] in traced.lake.read(DECIDED_SIDES)["clip_id"], "a side is for ever"


def test_other_clips_stay_as_they_were(traced: Traced) -> None:
    root = traced.lake.root
    before = holding(root, [traced.said("c2"), traced.said("c3")])
    withdrawn(traced, "c1")
    kinds = {name.rpartition("/")[0] for name in before}
    assert {
        name.rpartition("/")[0] for name in holding(root, [traced.said("c2"), traced.said("c3")])
    } == kinds
    assert traced.media["c2"].exists()
    answers = traced.ledger.answers(["asked c2", "asked c3", "own c2"])
    assert {call.text for call in answers.values()} == {traced.said("c2"), traced.said("c3")}


def test_the_bill_stays_and_the_texts_go(traced: Traced) -> None:
    before = bill(traced.ledger, by=()).to_dicts()
    report = withdrawn(traced, "c1")
    assert bill(traced.ledger, by=()).to_dicts() == before
    assert (report["calls_blanked"], report["calls_cost_usd"]) == (7, 1.75)
    assert traced.ledger.answers(["asked c1", "rated c1"]) == {}


def test_every_partition_still_accounts_for_its_rows(traced: Traced) -> None:
    withdrawn(traced, "c1")
    registry = build_registry(traced.settings)
    for stage in registry:
        for partition in traced.lake.partitions(stage.name):
            audit_partition(traced.lake, stage.table, partition)
    outcomes = dict(traced.lake.outcomes(PAIRS.name)[["input_id", "reason"]].iter_rows())
    assert outcomes["query c1"].startswith("withdrawn on 20")
    assert outcomes["query c2"] == ""


def test_a_file_of_the_user_is_named_and_not_touched(traced: Traced) -> None:
    report = withdrawn(traced, "c2")
    assert traced.media["c2"].exists()
    assert any(str(traced.media["c2"]) in line for line in report["cannot_be_undone"])
    assert "media" not in report["files_removed"]


def test_what_holds_it_is_refused(traced: Traced) -> None:
    tools = tools_of(traced.lake.root)
    read_training_pairs(tools.lake, "release")
    withdrawn(traced, "c1")
    with pytest.raises(
        WithdrawnError, match=f"holds 1 rows about withdrawn clips .{traced.clips['c1']}; withdrawn"
    ):
        read_training_pairs(tools.lake, "release")
    with pytest.raises(WithdrawnError, match=WHY):
        read_pairs(tools.lake.root / traced.release_folder)
    marks = [seals_of_directory(tools.lake, traced.checkpoints[name]) for name in ("pocket", "own_style")]
    assert [bool(each) for each in marks] == [True, False], "own_style was not trained on the clip"
    assert seals_of_partition(tools.lake, "benchmark_scores", "pocket@1|safevidbench_base")
    assert not seals_of_partition(tools.lake, "benchmark_scores", "own_style@1|safevidbench_base")


def test_a_checkpoint_that_was_trained_on_it_is_not_promoted(traced: Traced) -> None:
    withdrawn(traced, "c1")
    tools = tools_of(traced.lake.root)
    stage = tools.registry["promotion_decision"]
    with pytest.raises(WithdrawnError, match="the training data of candidate pocket@1 holds 1 rows"):
        stage.plan(tools, WHOLE)


def test_the_next_release_leaves_it_out_and_the_mark_of_the_old_one_is_void(traced: Traced) -> None:
    withdrawn(traced, "c1")
    put_back = traced.lake.read(RELEASE, WHOLE).select(PAIRS.schema.names())
    # Even pairs that came back from a copy are left out.
    outcomes: list[Any] = [(query, "ok", "") for query in put_back["query_id"]]
    traced.lake.commit(PAIRS, "kitchen", StageRows(put_back, outcomes), "by hand", {})
    run_stage(traced.settings, traced.lake, RELEASE.name)
    assert traced.lake.read(RELEASE)["pair_id"].to_list() == ["pair c2"]
    assert not seals_of_partition(traced.lake, RELEASE.name, WHOLE)
    read_training_pairs(traced.lake, "release")


def test_a_benchmark_release_has_a_successor(traced: Traced) -> None:
    lake = traced.lake
    items = lake.read(SAFEVIDBENCH_BASE).drop("profile")
    more = pl.concat([items, items.with_columns(item_id=pl.lit("other"), plan_id=pl.lit("plan other"),
                      clip_id=pl.lit("c4"), media_sha256=pl.lit("0f"))])  # fmt: skip
    stage = StageRows(more, [("plan c3", "ok", ""), ("plan other", "ok", "")], {"release": "r1"})
    for table, partition in ((SAFEVIDBENCH_BASE, WHOLE), (BENCHMARK_RELEASES, "safevidbench_base@r1")):
        lake.commit(table, partition, stage, "by hand", {})
    withdrawn(traced, "c3")
    with pytest.raises(WithdrawnError, match="release r1 of safevidbench_base holds 1 rows"):
        read_release(lake, SAFEVIDBENCH_BASE, "r1")
    in_use = lake.manifest(SAFEVIDBENCH_BASE.name)
    assert in_use is not None
    successor = read_release(lake, SAFEVIDBENCH_BASE, in_use.info["release"])
    assert successor.rows["item_id"].to_list() == ["other"]
    assert lake.read(SAFEVIDBENCH_BASE)["item_id"].to_list() == ["other"]
    assert lake.read(BENCHMARK_RELEASES, "safevidbench_base@r1").height == 2, "the old one is not edited"


def test_the_lines_of_a_review_sheet_and_all_pages_go(traced: Traced) -> None:
    sheets = traced.lake.local_path("reviews", "descriptions")
    sheets.mkdir(parents=True)
    lines = [f'{traced.clips[name]},"{traced.said(name)}, and more",yes' for name in ("c1", "c2")]
    (sheets / "sheet.csv").write_text("\ufeffclip_id,text,true\n" + "\n".join(lines) + "\n")
    (sheets / "sheet.html").write_text(f"<p>{traced.clips['c1']} {traced.said('c1')}</p>")
    traced.lake.write_report("videos.html", traced.said("c1").encode())
    report = withdrawn(traced, "c1")
    assert report["files_removed"]["review sheet"] == 2
    assert (sheets / "sheet.csv").read_text().splitlines() == ["\ufeffclip_id,text,true", lines[1]]
    assert not (sheets / "sheet.html").exists()
    assert not traced.lake.has_report("videos.html")


def test_a_purge_destroys_the_release_and_keeps_a_record(traced: Traced) -> None:
    root = traced.lake.root
    withdrawn(traced, "c1")
    report = withdrawn(traced, "c1", purge=True)
    assert holding(root, [traced.said("c1")]) == set()
    assert not (root / traced.release_folder).exists()
    (destroyed,) = report["purged"]
    assert (destroyed["address"], destroyed["rows"]) == (traced.release_folder, ["pair c1"])
    rows = traced.lake.read(RELEASE)
    successor = root / destroyed["successor"]
    assert read_pairs(successor)["release"].to_list() == rows["release"].to_list()
    record = read_record(successor)
    assert (record.version, record.parent) == ("1.1.0", "1.0.0")
    assert record.successor_of == report["withdrawal"]
    assert DatasetCard.load(successor / "README.md").data.language == ["en"], "the Hub reads the front matter"
    assert rows["pair_id"].to_list() == ["pair c2"]
    assert rows["release"][0] != traced.release
    read_training_pairs(traced.lake, "release")


def test_a_purge_replaces_a_folder_of_an_earlier_version(traced: Traced) -> None:
    with traced.lake.new_directory("release") as folder:
        write_old_release(folder, traced.lake.read(RELEASE).to_dicts(), "an old release")
        old = traced.lake.keep("release", folder)
    report = withdrawn(traced, "c1", purge=True)
    successors = {each["address"]: each["successor"] for each in report["purged"]}
    assert not (traced.lake.root / old).exists()
    back = read_pairs(traced.lake.root / successors[old])
    assert back.select("pair_id", "split", "licence").rows() == [("pair c2", "train", "CC0-1.0")]
    assert holding(traced.lake.root, [traced.said("c1")]) == set()


def test_a_whole_source_video_is_withdrawn(traced: Traced) -> None:
    report = withdrawn(traced, "video-c1")
    assert (report["scope"], report["clips"]) == ("source", [traced.clips["c1"]])
    other = {"clip_id": "new", "source_id": "video-c1", "media_sha256": "0f", "start_s": 90.0, "end_s": 95.0}
    assert WHY in read_withdrawn(traced.lake).why(other)


def test_a_clip_that_comes_back_is_known_by_id_bytes_or_source(traced: Traced) -> None:
    withdrawn(traced, "c1")
    tombstones = read_withdrawn(traced.lake)
    row = tombstones.rows.row(0, named=True)
    media = row["media_sha256"]
    assert tombstones.why({"clip_id": traced.clips["c1"]})
    assert tombstones.why({"clip_id": "x", "media_sha256": media, "start_s": 1.0, "end_s": 3.0})
    assert not tombstones.why({"clip_id": "x", "media_sha256": media, "start_s": 2.0, "end_s": 3.0})
    assert tombstones.why_unread("video-c1")
    assert not tombstones.why_unread("video-c2")
    assert not tombstones.why({"clip_id": traced.clips["c2"], "source_id": "video-c2", "media_sha256": "0f"})


def test_an_id_of_something_else_or_of_nothing(traced: Traced) -> None:
    tools = tools_of(traced.lake.root)
    with pytest.raises(UnknownId):
        withdraw(tools, "nothing", WHY)
    with pytest.raises(NotAClip, match="'query c1' is a query about clip"):
        withdraw(tools, "query c1", WHY)
    assert read_intents(traced.lake) == []
    done = safevid("withdraw", "nothing", "--reason", WHY, "--yes", root=traced.lake.root)
    assert is_one_line(done, 2, "has the id 'nothing'")
    done = safevid("withdraw", traced.clips["c1"], "--yes", root=traced.lake.root)
    assert is_one_line(done, 2, "needs its reason")


def test_the_list_of_the_settings_is_honoured(
    traced: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "gone.txt"
    listed.write_text(f"{traced.clips['c1']}  # asked for on Monday\n\nvideo-of-tomorrow\n")
    (tmp_path / "mine.yaml").write_text("corpus:\n  withdrawn: gone.txt\n")
    monkeypatch.setenv("SAFEVID_SETTINGS", str(tmp_path / "mine.yaml"))
    done = safevid("withdraw", "--listed", "--yes", "--json", root=traced.lake.root)
    reports = json.loads(done.stdout)["withdrawals"]
    assert [report["clips"] for report in reports] == [[traced.clips["c1"]], []]
    again = safevid("withdraw", "--listed", "--yes", root=traced.lake.root)
    assert again.stdout == "Nothing to withdraw, and no withdrawal is unfinished.\n"
    coming = {"clip_id": "y", "source_id": "video-of-tomorrow"}
    assert "listed in corpus.withdrawn" in read_withdrawn(traced.lake).why(coming)
    assert not_withdrawn(tools_of(traced.lake.root), ["video-of-tomorrow", "another"]) == ["another"]


def test_a_list_in_the_settings_is_ids_and_no_paths(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("corpus:\n  withdrawn: [0f1a, video/of/today]\n")
    assert load_settings("pocket", tmp_path / "mine.yaml").corpus.withdrawn == ("0f1a", "video/of/today")


def test_the_command_says_what_it_did_and_asks_first(traced: Traced) -> None:
    asked = safevid("withdraw", "one.mp4", "--reason", WHY, root=traced.lake.root, said="n\n")
    assert asked.exit_code == 1
    assert traced.media["c1"].exists()
    done = safevid("withdraw", "one.mp4", "--reason", WHY, root=traced.lake.root, said="y\n")
    assert f"withdrawn: {traced.clips['c1']} (" in done.stdout
    assert "rows removed: 8 (1 clip_manifest" in done.stdout
    assert f"sealed: {traced.release_folder}" in done.stdout
    again = safevid("withdraw", "one.mp4", "--reason", "another", "--yes", root=traced.lake.root)
    assert f": {WHY})" in again.stdout, "it is withdrawn once"
    assert traced.lake.read(WITHDRAWN).height == 1


# ------------------------------------------------------------------------------------------------ kills


class Killed(BaseException):
    """Ends a withdrawal where a kill would."""


def _die_at(act: int, die: Callable[[], None]) -> Callable[[str], None]:
    """A function that ends its process, or its block, before the act of this number."""
    acts = iter(range(1_000))

    def on_act(what: str) -> None:
        if next(acts) == act:
            die()

    return on_act


def _raise() -> None:
    raise Killed


def _finish_and_die(root: Path, act: int) -> None:
    finish_all(tools_of(root), _die_at(act, lambda: os.kill(os.getpid(), signal.SIGKILL)))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A lake whose withdrawal, with a purge, was killed right after its intent was written."""
    place = tmp_path_factory.mktemp("half")
    made = build(place / "lake", place / "mine")
    with pytest.raises(Killed):
        withdraw(tools_of(made.lake.root), made.clips["c1"], WHY, purge=True, on_act=_die_at(1, _raise))
    return made


def _state(root: Path) -> dict[str, Any]:
    """Everything that a withdrawal leaves, without names and times that are drawn anew."""
    lake = Lake(root, "pocket")
    tables = {
        f"{asset}[{partition}]": manifest.content_hash
        for asset in lake.assets()
        for partition in lake.partitions(asset)
        if (manifest := lake.manifest(asset, partition)) is not None
    }
    passing = ("rows-", "outcomes-", "ledger.sqlite", "media.sqlite")
    files = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(passing) and path.suffix != ".lock"
    )
    data = sorted(path.parent.as_posix().removeprefix(str(root)) for path in root.rglob("*-*.parquet"))
    ledger = Ledger(load_settings("pocket", overrides={"root": str(root)}).ledger_url)
    texts = sorted(
        call.text or "" for call in ledger.answers(f"asked {name}" for name in ("c1", "c2", "c3")).values()
    )
    return {"tables": tables, "files": files, "data": data, "texts": texts}


def _copy(half: Traced, place: Path) -> Path:
    """The same lake elsewhere. The intent names files by their places, which move along."""
    root = place / "lake"
    shutil.copytree(half.lake.root, root)
    for intent in root.glob("withdrawals/*/intent.json"):
        intent.write_text(intent.read_text().replace(str(half.lake.root), str(root)))
    return root


def _is_finished(root: Path, said: str) -> bool:
    lake = Lake(root, "pocket")
    (intent,) = read_intents(lake)
    return read_report(lake, intent.id) is not None and not holding(root, [said])


def test_killed_before_its_intent_nothing_has_happened(traced: Traced) -> None:
    before = _state(traced.lake.root)
    with pytest.raises(Killed):
        withdrawn(traced, "c1", on_act=_die_at(0, _raise))
    assert _state(traced.lake.root) == before
    assert finish_all(tools_of(traced.lake.root)) == []


def test_ended_at_every_act_it_finishes_when_run_again(half: Traced, tmp_path: Path) -> None:
    whole = _copy(half, tmp_path / "whole")
    acts: list[str] = []
    assert len(finish_all(tools_of(whole), acts.append)) == 1
    assert (acts[0], acts[-1], len(acts) > 20) == ("tombstones", "done", True)
    wanted = _state(whole)
    for act, what in enumerate(acts):
        root = _copy(half, tmp_path / str(act))
        with pytest.raises(Killed):
            finish_all(tools_of(root), _die_at(act, _raise))
        assert not _is_finished(root, half.said("c1"))
        assert len(finish_all(tools_of(root))) == 1
        assert _state(root) == wanted, what
        assert _is_finished(root, half.said("c1")), what


@pytest.mark.slow
@pytest.mark.parametrize("act", [1, 7, 13, 18, 23])
def test_a_killed_process_leaves_what_the_next_one_finishes(half: Traced, tmp_path: Path, act: int) -> None:
    root = _copy(half, tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=_finish_and_die, args=(root, act))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(finish_all(tools_of(root))) == 1
    assert _is_finished(root, half.said("c1"))
