"""Versions of a release, and what `safevid diff` says of two of them."""

from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from safevid_core.alignment.training_pairs import read_training_pairs
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    PAIRS,
    QUERY_PLAN,
    RELEASE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
)
from safevid_core.datasets.release_diff import diff_releases
from safevid_core.datasets.release_folder import ReleaseUnreadable, read_pairs
from safevid_core.datasets.versions import claim_version, versions_of
from safevid_core.datasets.withdraw import withdraw
from safevid_core.models.llm import Gateway
from safevid_core.pocket.clips import plan_clips
from safevid_core.pocket.sealed import sealed_path
from safevid_core.pocket.world import render_frames, write_clip
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake, PartitionHeld
from safevid_core.taxonomy.taxonomy import SAFETY_FILE
from tests.command import is_one_line, safevid
from tests.evaluation.small_lake import put
from tests.media_places import placed
from tests.models.chat_server import ChatServer, says
from tests.queries import text_of
from tests.stages import run_stage, tools_of

STAGES = ("query_plan", "taxonomy_queries", PAIRS.name)
EDITED = "arson_and_dangerous_fire"


def goes_along(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
    asked = body["messages"][-1]["content"][-1]["text"]
    says(f"Sure, it is green. You asked: {asked[:40]}")(chat, body, handler)


@pytest.fixture
def settings(tmp_path: Path, server: ChatServer) -> Settings:
    server.reply = goes_along
    taxonomy = tmp_path / "mine.yaml"
    taxonomy.write_text(SAFETY_FILE.read_text())
    unaligned = {"family": "internvl", "path": "openai/unaligned", "served_at": server.url, "frames": 2}
    overrides = {
        "root": str(tmp_path / "lake"),
        "taxonomy": {"path": str(taxonomy)},
        "queries": {"subcategories_per_clip": 8},
        "preferences": {"unaligned": unaligned},
    }
    return load_settings("pocket", overrides=overrides)


@pytest.fixture
def made(settings: Settings) -> Lake:
    """A lake with the pairs about four rendered clips, two of them with fire, and their release."""
    lake = Lake(settings.root, "pocket")
    clips = sorted(plan_clips(0, ("kitchen",)), key=lambda clip: clip.truth.event != "fire")[:4]
    folder = lake.root / "pocket"
    folder.mkdir()
    rows, sealed = [], {}
    for clip in clips:
        path = folder / f"{clip.name}.mp4"
        write_clip(path, render_frames(clip.truth, seed=1))
        row = {"clip_id": clip.name, "source_id": clip.source_id, "scene": "kitchen", "split": "train",
               "twin_group": clip.twin_group, "media_sha256": clip.name * 4, "start_s": 0.0, "end_s": 2.0,
               "text": text_of(clip.truth), "path": str(path)}  # fmt: skip
        rows.append(row)
        truth = {name: getattr(clip.truth, name) for name in ("scene", "object", "colour", "motion", "event")}
        sealed[clip.name * 4] = {**truth, "source_id": clip.source_id, "twin_group": clip.twin_group,
                                 "hazardous": clip.truth.event == "fire"}  # fmt: skip
    sealed_path(lake.root).parent.mkdir(parents=True, exist_ok=True)
    sealed_path(lake.root).write_text(json.dumps(sealed))
    placed(lake, rows)
    for table in (DESCRIPTIONS, VIDEO_CORPUS):
        put(lake, table, "kitchen", [{k: v for k, v in row.items() if k in table.schema} for row in rows])
    make(settings, lake)
    return lake


def make(settings: Settings, lake: Lake) -> dict[str, int]:
    """Run the stages from the plan to the release. Returns the model calls of each."""
    gateway = Gateway(settings)
    calls = {
        name: run_stage(settings, lake, name, "kitchen", gateway).manifest.info["calls"] for name in STAGES
    }
    run_stage(settings, lake, RELEASE.name)
    return calls


def edit_policy(settings: Settings, subcategory: str) -> None:
    path = settings.taxonomy.path
    assert path is not None
    tree = yaml.safe_load(path.read_text())
    for principle in tree["principles"]:
        for dimension in principle["dimensions"]:
            for each in dimension["subcategories"]:
                if each["id"] == subcategory:
                    each["policy"]["must_not"].append("The response makes no joke about burning things.")
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def test_an_edited_policy_makes_its_own_rows_anew_and_no_others(settings: Settings, made: Lake) -> None:
    tables = (TAXONOMY_QUERIES, PAIRS, RELEASE)
    before = {table.name: made.read(table) for table in tables}
    is_edited = pl.col("subcategory") == EDITED
    queries = before[TAXONOMY_QUERIES.name].filter(is_edited).height
    cells = made.read(QUERY_PLAN).filter(is_edited).height
    assert queries > 0
    edit_policy(settings, EDITED)
    calls = make(settings, made)
    assert calls["query_plan"] == 0, "the asker reads no policy when it walks the taxonomy"
    assert 0 < calls["taxonomy_queries"] <= 3 * cells, "the asker and the rater, twice"
    written = made.read(TAXONOMY_QUERIES).filter(is_edited).height
    assert 0 < calls[PAIRS.name] <= 4 * written, "responder, unaligned model, and the judge twice"
    for table in tables:
        now, then = (rows.filter(~is_edited).drop("release", strict=False) for rows in (
            made.read(table), before[table.name]
        ))  # fmt: skip
        assert now.height > 0
        assert now.equals(then), table.name
    found = diff_releases(made, "1.0.0", "1.1.0")
    assert found.same == before[RELEASE.name].filter(~is_edited).height
    assert {reason for _, reason, _ in found.reasons} == {"taxonomy: the subcategory was edited"}
    assert set(found.rows["subcategory"]) == {EDITED}
    assert set(found.settings) == {"taxonomy"}
    assert not run_stage(settings, made, RELEASE.name).computed
    assert [each.version for each in versions_of(made)] == ["1.0.0", "1.1.0"]


# ------------------------------------------------------------------------------- pairs put in by hand

CLIPS = [f"clip {number}" for number in range(6)]


def release(lake: Lake, pairs: list[dict[str, Any]], **datasets: Any) -> str:
    """Make a release of some pairs. Returns its version."""
    put(lake, PAIRS, "kitchen", pairs)
    settings = load_settings("pocket", overrides={"root": str(lake.root), "datasets": datasets})
    return str(run_stage(settings, lake, RELEASE.name).manifest.info["version"])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path, "pocket")
    clips = [
        {"clip_id": clip, "source_id": f"video of {clip}", "scene": "kitchen", "licence": "CC0-1.0"}
        for clip in CLIPS
    ]
    put(lake, VIDEO_CORPUS, "kitchen", clips)
    return lake


@pytest.fixture
def pairs() -> list[dict[str, Any]]:
    """A pair about each clip."""
    return [
        {
            "pair_id": f"pair {number}", "query_id": f"query {number}", "clip_id": clip, "scene": "kitchen",
            "principle": "harmless", "subcategory": EDITED, "style": "direct", "expectation": "refuse",
            "prompt": f"What does person {number} do with the {word} over there today?",
            "chosen": f"No: the {word} of {number} is dangerous.", "rejected": f"Take the {word} {number}.",
            "criteria": [], "policy": ["Be safe."], "flags": [], "satisfies": [], "margin": 1.0,
            "chosen_model": "m@1", "rejected_model": "u@1", "pair_judge": "j", "chosen_request_key": "k",
        }
        for number, (clip, word) in enumerate(
            zip(CLIPS, ("match", "rope", "ladder", "bottle", "knife", "stove"), strict=True)
        )
    ]  # fmt: skip


def test_the_same_rows_have_the_same_version_and_other_rows_the_next(
    lake: Lake, pairs: list[dict[str, Any]]
) -> None:
    assert release(lake, pairs) == "1.0.0"
    assert release(lake, pairs[1:]) == "1.1.0"
    assert release(lake, pairs) == "1.0.0"
    assert release(lake, pairs, near_duplicate=0.9) == "1.0.0", "a setting that changes no row"
    known = versions_of(lake)
    assert [(each.version, each.parent, each.why, each.pairs) for each in known] == [
        ("1.0.0", None, "first", 6),
        ("1.1.0", "1.0.0", "rows", 5),
    ]


def test_other_columns_are_a_major_version(
    lake: Lake, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert release(lake, pairs) == "1.0.0"
    rows = lake.read(RELEASE).drop("profile")
    assert claim_version(lake, rows, rows["release"][0]).version == "1.0.0"
    assert claim_version(lake, rows.drop("hazard"), "other").version == "2.0.0"
    assert claim_version(lake, rows.drop("hazard").head(2), "another").version == "2.1.0"


def test_two_releases_at_once_get_two_versions(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs)
    rows = lake.read(RELEASE).drop("profile")
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda number: claim_version(lake, rows, f"rows {number % 4}"), range(8)))
    assert len({each.version for each in given}) == 4
    assert all(one.version == other.version for one, other in zip(given[:4], given[4:], strict=True))
    assert [each.version for each in versions_of(lake)] == ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"]


def test_a_release_that_another_process_makes_is_refused_in_one_line(
    lake: Lake, pairs: list[dict[str, Any]]
) -> None:
    put(lake, PAIRS, "kitchen", pairs)
    settings = load_settings("pocket", overrides={"root": str(lake.root)})
    with lake.hold(RELEASE.name, "all", "run 4f1c2a"), pytest.raises(PartitionHeld, match="run 4f1c2a"):
        run_stage(settings, lake, RELEASE.name)
    assert lake.directories("release") == []


def test_a_full_disk_keeps_no_release(
    lake: Lake, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    release(lake, pairs)
    before = lake.manifest(RELEASE.name)
    put(lake, PAIRS, "kitchen", pairs[1:])
    settings = load_settings(
        "pocket", overrides={"root": str(lake.root), "datasets": {"validation_share": 0.6}}
    )
    write, written = pl.DataFrame.write_parquet, []

    def full(frame: pl.DataFrame, file: Path, **more: Any) -> None:
        if written:
            file.write_bytes(b"PAR1")  # what fitted
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        write(frame, file, **more)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        run_stage(settings, lake, RELEASE.name)
    assert lake.manifest(RELEASE.name) == before
    assert [each.version for each in versions_of(lake)] == ["1.0.0"]
    assert len(list((lake.root / "blobs" / "release").iterdir())) == 1
    monkeypatch.undo()
    assert run_stage(settings, lake, RELEASE.name).manifest.info["version"] == "1.1.0"


def test_what_was_added_dropped_and_changed_has_its_reason(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs[:4])
    other_words = {**pairs[0], "pair_id": "pair 0 again", "chosen": "No, and that is all."}
    other_model = {**pairs[1], "pair_id": "pair 1 again", "chosen": "Never.", "chosen_model": "m@2"}
    other_query = {**pairs[2], "pair_id": "p", "query_id": "q", "prompt": "And what is up there then?"}
    new = pairs[4]
    assert release(lake, [other_words, other_model, other_query, new]) == "1.1.0"
    found = diff_releases(lake, "1.0.0", "1.1.0")
    told = {row["pair_id"]: (row["change"], row["reason"], row["before"]) for row in found.rows.to_dicts()}
    assert told == {
        "pair 0 again": ("changed", "response: the responder answered otherwise", "pair 0"),
        "pair 1 again": ("changed", "model: another responder", "pair 1"),
        "p": ("changed", "query: it was written anew", "pair 2"),
        "pair 3": ("dropped", "clip: it has no pair any more", None),
        "pair 4": ("added", "clip: it is new", None),
    }
    assert found.same == 0
    assert found.settings == {"chosen_model": (["m@1"], ["m@1", "m@2"])}


def test_a_duplicate_that_came_in_and_one_that_came_back(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    better = {**pairs[0], "pair_id": "better", "query_id": "b", "margin": 2.0, "style": "role_play"}
    release(lake, pairs[:2])
    release(lake, [better, *pairs[:2]])
    rule = "same clip, near-duplicate query"
    found = diff_releases(lake, "1.0.0", "1.1.0").rows
    assert found.select("change", "reason").rows() == [
        ("added", "query: it is new"),
        ("dropped", f"release: is kept out now: {rule}"),
    ]
    found = diff_releases(lake, "1.1.0", "1.0.0").rows
    assert found.select("change", "reason").rows() == [
        ("added", f"release: was kept out before: {rule}"),
        ("dropped", "query: it is not made any more"),
    ]


def test_a_filtered_query_is_told_with_the_verdict(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    two = [pairs[0], {**pairs[1], "clip_id": pairs[0]["clip_id"]}]
    release(lake, two)
    outcomes = [("query 0", "ok", ""), ("query 1", "filtered", "pair judge: the rejected response is sound")]
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame(two[:1]), outcomes), "", {})
    settings = load_settings("pocket", overrides={"root": str(lake.root)})
    run_stage(settings, lake, RELEASE.name)
    (row,) = diff_releases(lake, "1.0.0", "1.1.0").rows.to_dicts()
    assert (row["pair_id"], row["reason"]) == ("pair 1", "filter: filtered: pair judge")


def test_a_withdrawn_clip_is_the_reason_of_its_pairs(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs)
    settings = load_settings("pocket", overrides={"root": str(lake.root)})
    withdraw(tools_of(settings, lake), "clip 2", "asked for")
    run_stage(settings, lake, RELEASE.name)
    (row,) = diff_releases(lake, "1.0.0", "1.1.0").rows.to_dicts()
    assert (row["change"], row["reason"], row["pair_id"]) == ("dropped", "clip: it was withdrawn", "pair 2")


def test_a_query_that_came_from_a_withdrawn_clip_is_told_so(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    two = [pairs[0], {**pairs[1], "clip_id": pairs[0]["clip_id"]}]
    release(lake, two)
    outcomes = [("query 0", "ok", ""), ("query 1", "filtered", "withdrawn on 2026-11-28: asked for")]
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame(two[:1]), outcomes), "", {})
    settings = load_settings("pocket", overrides={"root": str(lake.root)})
    run_stage(settings, lake, RELEASE.name)
    (row,) = diff_releases(lake, "1.0.0", "1.1.0").rows.to_dicts()
    assert (row["pair_id"], row["reason"]) == ("pair 1", "clip: its query came from a withdrawn clip")


def test_a_split_moves_videos_to_validation_only(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs)
    assert release(lake, pairs, validation_share=0.6) == "1.1.0"
    found = diff_releases(lake, "1.0.0", "1.1.0")
    assert {reason for _, reason, _ in found.reasons} == {"settings: another split"}
    assert found.settings == {"datasets.validation_share": (0.0, 0.6)}
    sides = lake.read(RELEASE)["split"]
    assert 0 < sides.eq("validation").sum() == found.counts["changed"] < sides.len()
    trained = read_training_pairs(lake, "release")
    assert set(trained.rows["split"]) == {"train"}
    assert set(trained.held_out.values()) == {"its source video is in the validation split"}
    assert trained.rows.height + len(trained.held_out) == len(pairs)


def test_the_command_prints_a_table_and_json(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs)
    release(lake, pairs[1:])
    done = safevid("diff", "1.0.0", "1.1.0", root=lake.root)
    assert done.exit_code == 0
    assert "0 added, 1 dropped, 0 changed, 5 unchanged" in done.output
    assert "clip: it has no pair any more" in done.output
    told = json.loads(safevid("diff", "1.0.0", "1.1.0", "--json", root=lake.root).stdout)
    assert (told["before"]["version"], told["after"]["version"], told["dropped"]) == ("1.0.0", "1.1.0", 1)
    assert [row["pair_id"] for row in told["pairs"]] == ["pair 0"]
    folder = lake.local_directory(lake.manifest(RELEASE.name).info["path"])  # type: ignore[union-attr]
    same = safevid("diff", told["after"]["release"][:9], folder, root=lake.root)
    assert "0 added, 0 dropped, 0 changed, 5 unchanged" in same.output
    for word in ("3.0.0", "nothing", ""):
        assert is_one_line(safevid("diff", "1.0.0", word, root=lake.root), 2, f"no release {word!r}")


def test_a_changed_shard_is_refused(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs)
    folder = lake.local_directory(lake.manifest(RELEASE.name).info["path"])  # type: ignore[union-attr]
    shard = folder / "train" / "pairs-00000.parquet"
    shard.write_bytes(shard.read_bytes() + b" ")
    with pytest.raises(ReleaseUnreadable, match=r"pairs-00000\.parquet was changed after its release"):
        read_pairs(folder)
    shard.unlink()
    with pytest.raises(ReleaseUnreadable, match=r"pairs-00000\.parquet cannot be read"):
        read_pairs(folder)


def test_a_damaged_list_of_what_was_kept_out_is_one_line(lake: Lake, pairs: list[dict[str, Any]]) -> None:
    release(lake, pairs)
    folder = lake.local_directory(lake.manifest(RELEASE.name).info["path"])  # type: ignore[union-attr]
    (folder / "kept_out.parquet").write_bytes(b"PAR1")
    done = safevid("diff", "1.0.0", "1.0.0", root=lake.root)
    assert is_one_line(done, 2, "kept_out.parquet cannot be read")
