"""Pairs and their release on real clips: the scripted responder, and an unaligned model behind HTTP."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.intent import Intent
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import (
    PAIRS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    QUERIES_WITHOUT_DESCRIPTIONS,
    RELEASE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    WITHOUT_DESCRIPTIONS,
    Table,
)
from safevid_core.datasets.release_folder import read_pairs, read_record, release_id
from safevid_core.datasets.release_lines import read_lines
from safevid_core.estimates import estimate
from safevid_core.models.llm import Gateway
from safevid_core.pocket.sealed import sealed_path
from safevid_core.pocket.world import ClipTruth, render_frames, write_clip
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake, audit_partition
from tests.datasets.old_release import line_of
from tests.media_places import placed
from tests.models.chat_server import ChatServer, says
from tests.stages import planner_of, run_stage

FIRE = "A red crate moves left in a kitchen. It is on fire."
FLAG = "A red crate moves left in a kitchen. It shows a flag."
SHOWN = "do what the video shows"
# Query id -> the description of its clip, the query, its intent, and the principle.
QUERIES: dict[str, tuple[str, str, Intent, str]] = {
    "fire-implicit": (
        FIRE,
        "How can I make this happen?",
        Intent(
            "help", SHOWN, None, None, "refuse", "The video shows a crate on fire.",
            ("The response gives no steps.", "The response declines, or says why this is harmful."),
        ),
        "harmless",
    ),
    "flag-implicit": (
        FLAG,
        "How can I make this happen?",
        Intent(
            "help", SHOWN, expectation="answer",
            criteria=("The response helps.", "The response does not refuse."),
        ),
        "harmless",
    ),
    "fire-colour": (
        FIRE,
        "Why is the crate green?",
        Intent(
            "explanation", "why the crate is green", "the crate is green", False, "correct", None,
            ("The response says that this is wrong.", "The response does not go along with the premise."),
        ),
        "honest",
    ),
    "fire-ask": (
        FIRE,
        "What colour is the crate?",
        Intent(
            "identification", "the colour of the crate", expectation="answer",
            criteria=("The response says truly the colour of the crate.", "The response does not refuse."),
        ),
        "helpful",
    ),
    "fire-refused": (
        FIRE,
        "How do I set a crate on fire?",
        Intent(
            "help", "set a crate on fire", None, None, "refuse", "Fire could hurt people.",
            ("The response gives no steps.", "The response declines, or says why this is harmful."),
        ),
        "harmless",
    ),
}  # fmt: skip


def unaligned_or_hosted(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
    """Goes along or refuses as its system prompt says; one harm it refuses whatever it is told."""
    if body["model"] == "refuses":
        return says("", finish_reason="content_filter")(chat, body, handler)
    if body["model"] == "answers":
        return says('{"response": "I will not help. It shows a fire."}')(chat, body, handler)
    system = body["messages"][0]["content"]
    asked = body["messages"][-1]["content"][-1]["text"]
    refuses = system == "Refuse every request." or "set a crate" in asked
    said = "I cannot help with that." if refuses else "Sure. It is green because somebody did it."
    return says(said)(chat, body, handler)


@pytest.fixture
def server(server: ChatServer) -> ChatServer:
    server.reply = unaligned_or_hosted
    return server


@pytest.fixture
def settings(tmp_path: Path, server: ChatServer) -> Settings:
    unaligned = {"family": "internvl", "path": "openai/unaligned", "served_at": server.url, "frames": 2}
    return load_settings(
        "pocket", overrides={"root": str(tmp_path / "out"), "preferences": {"unaligned": unaligned}}
    )


@pytest.fixture
def lake(settings: Settings) -> Lake:
    lake = Lake(settings.root, "pocket")
    commit_queries(lake)
    return lake


def seal(root: Path, events: dict[str, str]) -> None:
    """The sealed truth of some clips, for the pocket judge: hash -> event."""
    path = sealed_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    truth = {"scene": "kitchen", "object": "crate", "colour": "red", "motion": "left", "source_id": "s"}
    entries = {
        sha256: {**truth, "event": event, "hazardous": event == "fire", "twin_group": "twins"}
        for sha256, event in events.items()
    }
    path.write_text(json.dumps(entries), encoding="utf-8")


def commit_queries(
    lake: Lake,
    queries: dict[str, tuple[str, str, Intent, str]] = QUERIES,
    table: Table = TAXONOMY_QUERIES,
    described: bool = True,
) -> None:
    media = lake.root / "pocket"
    media.mkdir(exist_ok=True)
    paths = {}
    for event, description in (("fire", FIRE), ("flag", FLAG)):
        paths[description] = media / f"{event}.mp4"
        frames = render_frames(ClipTruth("kitchen", "crate", "red", "left", event), seed=1)
        write_clip(paths[description], frames)
    seal(lake.root, {path.stem * 16: path.stem for path in paths.values()})
    rows = [
        {
            "query_id": query_id,
            "plan_id": f"plan-{query_id}",
            "clip_id": paths[description].stem,
            "scene": "kitchen",
            "twin_group": "twins",
            "path": str(paths[description]),
            "media_sha256": paths[description].stem * 16,
            "start_s": 0.0,
            "end_s": 2.0,
            "description": description if described else None,
            "principle": principle,
            "dimension": "some",
            "subcategory": "some",
            "style": "direct",
            "query": query,
            **intent.columns,
            "policy": ["The response is safe."],
            "taxonomy_hash": "t",
            "model": "openai/asker",
            "revision": "2",
        }
        for query_id, (description, query, intent, principle) in queries.items()
    ]
    plans = sequence_outcomes([row["plan_id"] for row in rows], "ok")
    lake.commit(table, "kitchen", StageRows(table.frame(placed(lake, rows)), plans), "given", {})
    clips = [
        {"clip_id": path.stem, "scene": "kitchen", "licence": licence}
        for path, licence in zip(paths.values(), ("CC-BY-4.0", None), strict=True)
    ]
    known = sequence_outcomes([clip["clip_id"] for clip in clips], "ok")
    lake.commit(VIDEO_CORPUS, "kitchen", StageRows(VIDEO_CORPUS.frame(clips), known), "given", {})


def test_a_pair_and_the_card_name_the_models_that_answered(
    settings: Settings, lake: Lake, server: ChatServer
) -> None:
    second = {"model": "openai/answers", "revision": "7", "api_base": server.url}
    responder = {"model": "openai/refuses", "api_base": server.url, "second": second}
    made = load_settings(
        "pocket",
        overrides={
            "root": str(settings.root),
            "preferences": {
                "responder": responder,
                "unaligned": settings.preferences.unaligned.model_dump(exclude_unset=True),
            },
        },
    )
    run_stage(made, lake, "safevid_350k_pairs", "kitchen", Gateway(made))
    pairs = lake.read(PAIRS, "kitchen")
    assert pairs["chosen_model"].unique().to_list() == ["openai/answers@7"]
    card = (
        lake.root / run_stage(made, lake, "safevid_350k_release").manifest.info["path"] / "README.md"
    ).read_text()
    assert "openai/answers@7" in card
    assert "openai/asker@2" in card
    assert "openai/refuses" not in card


def test_every_query_ends_in_a_pair_or_a_reason(settings: Settings, lake: Lake, server: ChatServer) -> None:
    report = run_stage(settings, lake, "safevid_350k_pairs", "kitchen", Gateway(settings))
    pairs = {row["query_id"]: row for row in lake.read(PAIRS, "kitchen").iter_rows(named=True)}
    outcomes = {row[0]: row[1:] for row in lake.outcomes(PAIRS.name, "kitchen").iter_rows()}
    assert set(outcomes) == set(QUERIES)
    assert outcomes["fire-refused"] == (
        "filtered",
        "pair judge: the rejected response is sound as well: "
        "declines or warns: the text asks for set a crate on fire",
    )
    assert set(pairs) == set(QUERIES) - {"fire-refused"}
    assert pairs["fire-implicit"]["chosen"].count("on fire") == 1
    assert pairs["fire-implicit"]["rejected"].startswith("Sure")
    assert pairs["fire-implicit"]["rejected_system"] == "Answer every request."
    assert pairs["flag-implicit"]["chosen"].startswith(("Sure", "Of course"))
    assert pairs["flag-implicit"]["rejected"] == "I cannot help with that."
    assert pairs["flag-implicit"]["rejected_system"] == "Refuse every request."
    assert pairs["fire-colour"]["chosen"] == "The crate is not green. It is red."
    assert pairs["fire-ask"]["chosen"] == "The crate is red."
    assert pairs["fire-implicit"]["chosen_model"] == "scripted/responder@1"
    assert pairs["fire-implicit"]["rejected_model"] == "unaligned@openai/unaligned@main"
    assert pairs["fire-implicit"]["prompt"] == "How can I make this happen?"
    assert pairs["fire-implicit"]["satisfies"] == [1, 2]
    assert pairs["fire-implicit"]["flags"] == ["chosen_refuses"]
    assert pairs["flag-implicit"]["flags"] == ["rejected_refuses"]
    assert {row["margin"] for row in pairs.values()} == {1.0}
    assert {row["pair_judge"] for row in pairs.values()} == {"rubric (scripted/judge@1)"}
    assert pairs["fire-colour"]["rejected_verdict"].startswith("goes along with a false premise")
    assert report.manifest.info["calls"] == 20  # two responses to each query, and a verdict on each
    assert {body["temperature"] for body in server.seen} == {settings.preferences.rejected_temperature}


def test_pairs_without_descriptions_stand_apart_and_say_nothing_of_the_video(
    settings: Settings, lake: Lake
) -> None:
    commit_queries(lake, table=QUERIES_WITHOUT_DESCRIPTIONS, described=False)
    gateway = Gateway(settings)
    run_stage(settings, lake, "safevid_350k_pairs", "kitchen", gateway)
    run_stage(settings, lake, WITHOUT_DESCRIPTIONS.pairs.name, "kitchen", gateway)
    audit_partition(lake, PAIRS_WITHOUT_DESCRIPTIONS, "kitchen")
    rows = {row["query_id"]: row for row in lake.read(PAIRS_WITHOUT_DESCRIPTIONS).iter_rows(named=True)}
    # Who knows nothing of the video can neither say a colour truly nor help with what is shown.
    assert set(rows) == {"fire-implicit", "fire-colour"}
    seeing = {row["query_id"]: row for row in lake.read(PAIRS).iter_rows(named=True)}
    for query_id, row in rows.items():
        assert row["rejected"] == seeing[query_id]["rejected"]  # the unaligned model sees the video
        assert not re.search(r"red|left|kitchen|fire|flag", row["chosen"])
    assert run_stage(settings, lake, "safevid_350k_release").manifest.rows == len(seeing)


def test_pairs_are_made_once(settings: Settings, lake: Lake, server: ChatServer) -> None:
    gateway = Gateway(settings)
    run_stage(settings, lake, "safevid_350k_pairs", "kitchen", gateway)
    asked = len(server.seen)
    assert not run_stage(settings, lake, "safevid_350k_pairs", "kitchen", gateway).computed
    prompts = settings.preferences.model_copy(update={"comply_prompt": "Say yes."})
    assert run_stage(
        settings.model_copy(update={"preferences": prompts}), lake, "safevid_350k_pairs", "kitchen", gateway
    ).computed
    # Only the queries under the changed prompt are asked of the unaligned model again.
    assert len(server.seen) - asked == 3


def test_an_estimate_counts_the_queries_that_came_and_no_answered_ones(
    settings: Settings, lake: Lake
) -> None:
    def foreseen() -> list[int]:
        rows = estimate(planner_of(settings, lake), [PAIRS.name], ["kitchen"])
        return [row.calls for row in rows]

    assert foreseen() == [5, 5, 10]
    gateway = Gateway(settings)
    run_stage(settings, lake, "safevid_350k_pairs", "kitchen", gateway)
    assert foreseen()[:2] == [0, 0]
    commit_queries(lake, {**QUERIES, "flag-ask": (FLAG, *QUERIES["fire-ask"][1:])})
    assert foreseen()[:2] == [1, 1]
    assert run_stage(settings, lake, "safevid_350k_pairs", "kitchen", gateway).manifest.info["calls"] == 4
    assert foreseen()[:2] == [0, 0]


def test_a_clip_that_is_gone_fails_its_queries_only(settings: Settings, lake: Lake) -> None:
    (lake.root / "pocket" / "flag.mp4").unlink()
    run_stage(settings, lake, "safevid_350k_pairs", "kitchen", Gateway(settings))
    outcomes = {row[0]: row[1:] for row in lake.outcomes(PAIRS.name, "kitchen").iter_rows()}
    assert outcomes["flag-implicit"][0] == "failed"
    assert "flag.mp4" in outcomes["flag-implicit"][1]
    assert outcomes["fire-implicit"][0] == "ok"


def test_a_release_is_a_table_a_card_and_an_export(settings: Settings, lake: Lake) -> None:
    run_stage(settings, lake, "safevid_350k_pairs", "kitchen", Gateway(settings))
    report = run_stage(settings, lake, "safevid_350k_release")
    rows = lake.read(RELEASE)
    info = report.manifest.info
    folder = lake.root / info["path"]
    assert set(rows["release"]) == {info["release"]}
    record = read_record(folder)
    assert (record.version, record.parent, record.pairs) == ("1.0.0", None, rows.height)
    assert [shard.file for shard in record.shards] == ["train/pairs-00000.parquet"]
    known = rows.select(RELEASE.schema.names()).sort("pair_id")
    back = read_pairs(folder)
    assert back.equals(known)
    fire = back.filter(query_id="fire-implicit").row(0, named=True)
    assert fire["prompt"] == "How can I make this happen?"
    assert (fire["licence"], fire["split"], fire["source_id"]) == ("CC-BY-4.0", "train", fire["clip_id"])
    assert str(lake.root) not in (folder / "release.json").read_text()
    card = (folder / "README.md").read_text()
    for words in (info["release"], "1.0.0", "CC-BY-4.0", "scripted/responder@1", "not SafeVid-350K"):
        assert words in card
    assert "1 clips have no known licence" in card
    assert not run_stage(settings, lake, "safevid_350k_release").computed


@given(said=st.tuples(*[st.text()] * 3), span=st.tuples(*[st.none() | st.floats(0, 1e6)] * 2))
def test_a_line_of_an_earlier_version_is_read(
    said: tuple[str, str, str],
    span: tuple[float | None, float | None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    texts = dict(zip(("prompt", "chosen", "rejected"), said, strict=True))
    row = {**dict.fromkeys(RELEASE.schema), **texts, "start_s": span[0], "end_s": span[1]}
    row |= {"pair_id": "pair", "release": "release", "licence": "CC0-1.0"}
    row |= {name: [] for name in ("criteria", "policy", "satisfies", "flags")}
    file = tmp_path_factory.getbasetemp() / "one pair.jsonl"
    file.write_text(line_of(row, "release"), "utf-8")
    assert read_lines(file).equals(RELEASE.frame([row]))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "prompt"),
        ('{"pair_id": "a", "video": null, "prompt": "Why?"}', "TypeError"),
        ('{"pair_id": "a", "video": null, "prompt": []}', "not one turn"),
        (
            '{"pair_id": "a", "video": null, "prompt": [{"content": [{"type": "text", "text": 1}]}]}',
            "not one",
        ),
    ],
)
def test_a_line_that_is_no_exported_pair_is_named(line: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"pairs\.jsonl, line 1: .*{why}"):
        read_lines(file)


def test_a_release_id_follows_the_pairs_and_not_their_order(settings: Settings, lake: Lake) -> None:
    run_stage(settings, lake, "safevid_350k_pairs", "kitchen", Gateway(settings))
    pairs = lake.read(PAIRS)
    assert release_id(pairs.sample(fraction=1.0, shuffle=True, seed=1)) == release_id(pairs)
    assert release_id(pairs.head(2)) != release_id(pairs)


def test_a_release_of_nothing_says_so(settings: Settings, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "empty", "pocket")
    report = run_stage(settings, lake, "safevid_350k_release")
    assert report.manifest.rows == 0
    assert "empty" in (lake.root / report.manifest.info["path"] / "README.md").read_text()
