"""The second judge on a sample of pairs, behind a real HTTP server: swaps, kills, refusals, estimate."""

from __future__ import annotations

import json
import multiprocessing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import IMPORTED_PAIRS, PAIR_NOISE, PAIRS, RELEASE, VIDEO_CORPUS
from safevid_core.estimates import estimate
from safevid_core.execution.local import StageReport
from safevid_core.judging.errors import JudgeError
from safevid_core.models.llm import Gateway
from safevid_core.preferences.noise import read_noise
from safevid_core.preferences.pair_judge import open_second_judge
from safevid_core.settings import PairImport, Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake
from tests.models.chat_server import ChatServer, last_text, says
from tests.stages import planner_of, run_stage

SAFE, UNSAFE = "I will not help with this.", "Take the first one and go on."
CRITERIA = ["The response gives no steps.", "The response declines."]
# Every tenth pair is the wrong way round, and every tenth has two safe responses.
SWAPPED = [f"pair-{number:03}" for number in range(0, 120, 10)]
EVEN = [f"pair-{number:03}" for number in range(5, 120, 10)]


def judged(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
    """The verdict of a judge that knows the safe response."""
    answer = json.loads(last_text(body))["answer"]
    safe = answer.startswith(SAFE)
    verdict = {
        "criteria": [{"number": number, "met": safe, "quote": ""} for number in (1, 2)],
        "expected": "refuse", "success": safe, "refused": safe, "reason": "as it is",
    }  # fmt: skip
    return says(json.dumps(verdict))(chat, body, handler)


def settings_of(root: Path, server: ChatServer, **preferences: Any) -> Settings:
    second = {"rubric": {"model": "openai/second", "family": "mine", "api_base": server.url}}
    return load_settings(
        "pocket",
        overrides={
            "root": str(root),
            "preferences": {"second_judge": second, "noise_sample": 60, **preferences},
            "models": {"providers": [], "concurrency": 4, "lease_s": 1.0},
        },
    )


def commit_pairs(lake: Lake) -> None:
    rows = []
    for number in range(120):
        pair_id = f"pair-{number:03}"
        safe, unsafe = f"{SAFE} {pair_id}", f"{UNSAFE} {pair_id}"
        chosen, rejected = (unsafe, safe) if pair_id in SWAPPED else (safe, unsafe)
        if pair_id in EVEN:
            rejected = f"{SAFE} Never. {pair_id}"
        rows.append(
            {
                "pair_id": pair_id, "query_id": f"query-{number:03}", "scene": "kitchen",
                "clip_id": f"clip-{number // 2}", "principle": "harmless", "dimension": "d",
                "subcategory": f"kind {number % 3}", "style": "direct", "asks": "help",
                "expectation": "refuse", "prompt": f"How do I do this? {pair_id}", "criteria": CRITERIA,
                "policy": [], "chosen": chosen, "rejected": rejected, "satisfies": [1, 2], "flags": [],
                "chosen_model": "r@1", "rejected_model": "u@1", "pair_judge": "rubric (m@1)",
            }
        )  # fmt: skip
    queries = sequence_outcomes([row["query_id"] for row in rows], "ok")
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame(rows), queries), "given", {})
    clips = [
        {"clip_id": f"clip-{number}", "source_id": f"video-{number // 2}", "scene": "kitchen"}
        for number in range(60)
    ]
    known = sequence_outcomes([clip["clip_id"] for clip in clips], "ok")
    lake.commit(VIDEO_CORPUS, "kitchen", StageRows(VIDEO_CORPUS.frame(clips), known), "given", {})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "out", "pocket")
    commit_pairs(lake)
    return lake


@pytest.fixture
def server(server: ChatServer) -> ChatServer:
    server.reply = judged
    return server


def measure(settings: Settings, lake: Lake) -> StageReport:
    return run_stage(settings, lake, "pair_noise", gateway=Gateway(settings))


def test_planted_swaps_are_found(lake: Lake, server: ChatServer) -> None:
    report = measure(settings_of(lake.root, server), lake)
    assert report.manifest.outcomes == {"ok": 60, "filtered": 0, "failed": 0, "undecidable": 0}
    rows = lake.read(PAIR_NOISE)
    prefers = dict(rows.select("pair_id", "prefers").iter_rows())
    drawn = set(prefers)
    assert {pair for pair, given in prefers.items() if given == "rejected"} == drawn & set(SWAPPED)
    assert {pair for pair, given in prefers.items() if given == "neither"} == drawn & set(EVEN)
    assert rows.group_by("subcategory").len()["len"].to_list() == [20, 20, 20]
    assert rows["cluster"].str.starts_with("source video-").all()
    found = read_noise(lake)
    assert (found.sampled, found.swapped) == (60, len(drawn & set(SWAPPED)))
    assert found.would_swap.value == pytest.approx(found.swapped / (60 - found.neither))
    assert found.alpha_responses.n == 120
    assert not found.calibrated


def test_nothing_tells_the_judge_which_response_is_chosen(lake: Lake, server: ChatServer) -> None:
    settings = settings_of(lake.root, server)
    measure(settings, lake)
    firsts = lake.read(PAIR_NOISE)["first"].to_list()
    assert 15 < firsts.count("chosen") < 45
    asked = [json.loads(last_text(body)) for body in server.seen]
    assert len(asked) == 120
    # Of a swapped pair the judge gets what it would get of a right one.
    shown = {tuple(sorted(each)) for each in asked}
    assert len(shown) == 1
    assert not {"chosen", "rejected"} & set(shown.pop())


def test_the_release_says_what_was_measured(lake: Lake, server: ChatServer) -> None:
    settings = settings_of(lake.root, server)
    measure(settings, lake)
    report = run_stage(settings, lake, RELEASE.name)
    card = (lake.root / report.manifest.info["path"] / "README.md").read_text()
    assert "## Label noise\n\nSecond judge: rubric (openai/second@1). It judged each response of 60" in card
    assert "| second judge | rubric (openai/second@1) | 0 | 512 | rubric (`" in card
    assert report.manifest.info["noise"]["sampled"] == 60


def test_without_a_second_judge_the_card_says_that_nothing_is_measured(lake: Lake) -> None:
    overrides = {"root": str(lake.root), "preferences": {"second_judge": None}}
    settings = load_settings("pocket", overrides=overrides)
    assert run_stage(settings, lake, "pair_noise").manifest.rows == 0
    report = run_stage(settings, lake, RELEASE.name)
    card = (lake.root / report.manifest.info["path"] / "README.md").read_text()
    assert "## Label noise\n\nNot measured: the setting `preferences.second_judge` names no judge." in card
    assert "second judge |" not in card


def test_labels_of_people_calibrate_the_share(lake: Lake, server: ChatServer, tmp_path: Path) -> None:
    sheet = tmp_path / "labels.csv"
    lines = ["pair_id,sound,swapped"]
    for number in range(120):
        pair_id = f"pair-{number:03}"
        unsound = pair_id in SWAPPED or pair_id in EVEN
        lines.append(f"{pair_id},{'no' if unsound else 'yes'},{'yes' if pair_id in SWAPPED else 'no'}")
    sheet.write_text("\n".join([*lines, "gone,yes,no"]))
    report = measure(settings_of(lake.root, server, labels=str(sheet), min_labelled_pairs=100), lake)
    assert report.manifest.outcomes["ok"] == 120  # pairs with a label are judged too
    rows = lake.read(PAIR_NOISE)
    assert rows["sampled"].sum() == 60
    found = read_noise(lake)
    assert (found.sampled, found.labelled, found.labelled_swapped) == (60, 120, 12)
    assert found.calibrated
    # The judge is right about every pair here, so the share is that of the sample.
    assert found.true_share.value == pytest.approx(found.swapped / 60)
    assert (found.true_share.ci_low or 1) <= 0.1 <= (found.true_share.ci_high or 0)
    assert "by double sampling: people labelled 120 of the pairs" in found.sentence


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (says("", finish_reason="content_filter"), "undecidable"),
        (says('{"success": tru'), "undecidable"),
        (says('{"undecidable": "I see no clip"}'), "undecidable"),
    ],
    ids=["refuses", "breaks its JSON", "cannot judge"],
)
def test_a_judge_without_a_verdict_is_counted_and_never_guessed(
    lake: Lake, server: ChatServer, reply: Any, told: str
) -> None:
    def sometimes(chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        # No verdict on the unsafe response of the pairs 000 to 059.
        answer = json.loads(last_text(body))["answer"]
        silent = answer.startswith(UNSAFE) and "pair-0" in answer and answer[-2:] < "60"
        return (reply if silent else judged)(chat, body, handler)

    server.reply = sometimes
    report = measure(settings_of(lake.root, server), lake)
    outcomes = lake.outcomes(PAIR_NOISE.name)
    missing = outcomes.filter(pl.col("outcome") != "ok")
    assert missing.height > 10
    assert set(missing["outcome"]) == {told}
    assert missing["reason"].str.starts_with("second judge on the ").all()
    rows = lake.read(PAIR_NOISE)
    assert not set(rows["pair_id"]) & set(missing["input_id"])
    found = read_noise(lake)
    assert found.no_verdict == {told: missing.height}
    assert found.sampled == 60 == rows.height + missing.height
    assert report.manifest.outcomes[told] == missing.height


def test_a_judge_that_refuses_all_measures_nothing(lake: Lake, server: ChatServer) -> None:
    server.reply = says("", finish_reason="content_filter")
    measure(settings_of(lake.root, server), lake)
    found = read_noise(lake)
    assert found.sentence == "not measured: the second judge decided on none of 60 sampled pairs"


def test_a_judge_of_harm_alone_is_asked_about_harm_alone(lake: Lake, server: ChatServer) -> None:
    harmless = lake.read(PAIRS).drop("profile").with_columns(expectation=pl.lit("answer"))
    queries = sequence_outcomes(harmless["query_id"].to_list(), "ok")
    lake.commit(PAIRS, "kitchen", StageRows(harmless, queries), "other", {})
    settings = settings_of(lake.root, server)
    assert settings.preferences.second_judge is not None
    guard = {"wildguard": settings.preferences.second_judge["rubric"]}
    preferences = settings.preferences.model_copy(update={"second_judge": guard})
    measure(settings.model_copy(update={"preferences": preferences}), lake)
    assert not server.seen
    assert "wildguard decides harm only" in lake.outcomes(PAIR_NOISE.name)["reason"][0]


def _run(settings: Settings) -> None:
    measure(settings, Lake(settings.root, "pocket"))


def test_a_killed_run_asks_nothing_twice_but_what_was_in_flight(lake: Lake, server: ChatServer) -> None:
    settings = settings_of(lake.root, server)
    server.delay_s = 0.02
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(settings,))
    process.start()
    server.wait_until_paid(40)
    process.kill()
    process.join()
    assert lake.manifest(PAIR_NOISE.name) is None
    report = measure(settings, lake)
    assert report.manifest.outcomes["ok"] == 60
    assert len(server.paid) == 120
    assert sum(count - 1 for count in server.paid.values()) <= 4  # the calls in flight at the kill
    before = len(server.seen)
    again = measure(settings_of(lake.root, server, min_labelled_pairs=7), lake)
    assert again.manifest.info["calls"] == 0
    assert len(server.seen) == before


def test_an_estimate_prices_the_questions_that_a_run_asks(lake: Lake, server: ChatServer) -> None:
    settings = settings_of(lake.root, server)

    def foreseen() -> list[tuple[str, int]]:
        rows = estimate(planner_of(settings, lake), ["pair_noise"])
        return [(row.model, row.calls) for row in rows]

    assert foreseen() == [("openai/second", 120)]
    measure(settings, lake)
    assert foreseen() == [("openai/second", 0)]
    bigger = settings_of(lake.root, server, noise_sample=70)
    rows = estimate(planner_of(bigger, lake), ["pair_noise"])
    assert 20 <= rows[0].calls <= 26  # ten more pairs, and at most one place a stratum moves


@pytest.mark.parametrize(
    ("second", "allowed", "why"),
    [
        ({"model": "openai/gpt-4o"}, False, "is of the family 'gpt', as preferences.judges.rubric"),
        ({"model": "azure/my-deploy"}, False, "set preferences.second_judge.rubric.family"),
        ({"model": "openai/gpt-4o"}, True, None),
        ({"model": "anthropic/claude-sonnet-4-5"}, False, None),
    ],
)
def test_a_second_judge_is_of_another_family(second: dict[str, Any], allowed: bool, why: str | None) -> None:
    settings = load_settings(
        "pocket",
        overrides={
            "preferences": {
                "judges": {"rubric": {"model": "openai/gpt-4.1"}},
                "second_judge": {"rubric": second},
                "same_family_second_judge": allowed,
            }
        },
    )
    if why is None:
        assert open_second_judge(settings.preferences) is not None
    else:
        with pytest.raises(JudgeError, match=why):
            open_second_judge(settings.preferences)


def test_pairs_that_others_made_are_judged_against_their_own_labels(lake: Lake, server: ChatServer) -> None:
    rows = (
        lake.read(PAIRS)
        .drop("profile")
        .with_columns(
            pair_judge=pl.lit("none"),
            policy=pl.lit(None, pl.List(pl.String)),
            subcategory=pl.lit(None, pl.String),
        )
    )
    units = sequence_outcomes(rows["query_id"].to_list(), "ok")
    lake.commit(IMPORTED_PAIRS, WHOLE, StageRows(rows, units), "given", {})
    theirs = {"path": "pairs.jsonl", "columns": {"query": "q", "chosen": "c", "rejected": "r", "video": "v"}}
    settings = settings_of(lake.root, server)
    datasets = settings.datasets.model_copy(
        update={"imports": {"theirs": PairImport.model_validate(theirs)}, "only_imports": True}
    )
    measure(settings.model_copy(update={"datasets": datasets}), lake)
    prefers = dict(lake.read(PAIR_NOISE).select("pair_id", "prefers").iter_rows())
    assert {pair for pair, given in prefers.items() if given == "rejected"} == set(prefers) & set(SWAPPED)
