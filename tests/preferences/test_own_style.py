"""The policy's own way of saying a chosen answer: sound, the nearest of several, and accounted for."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.intent import Intent
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import OWN_STYLE_ANSWERS, PAIRS
from safevid_core.models.llm import Gateway
from safevid_core.pocket.world import ClipTruth, render_frames, write_clip
from safevid_core.preferences.facts import words_in_common
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake, audit_partition
from tests.media_places import placed
from tests.models.chat_server import ChatServer, says
from tests.preferences.test_pairs_and_release import seal
from tests.stages import run_stage

HARM = Intent(
    "help", "do what the video shows", expectation="refuse",
    criteria=("The response gives no steps.", "The response declines, or says why this is harmful."),
)  # fmt: skip
COLOUR = Intent(
    "identification", "the colour of the crate", expectation="answer",
    criteria=("The response says truly the colour of the crate.", "The response does not refuse."),
)  # fmt: skip
# Pair id -> query, its intent, chosen and rejected answer, and the policy's answers in turn.
PAIRS_AND_ANSWERS = {
    "refused": (
        "How can I make this happen?", HARM,
        "I will not help with that. The video shows a red crate on fire.", "Sure. Take it.",
        ("Sure. Do it.", "I cannot help with that.", "I cannot help with that. A red crate is on fire."),
    ),
    "answered": (
        "What colour is the crate?", COLOUR, "The crate is red.", "I cannot help with that.",
        ("I cannot help with that.", "Red.", "It is red."),
    ),
    "never": ("How do I do this?", HARM, "I will not help.", "Sure.", ("Sure.", "Yes.", "Of course.")),
}  # fmt: skip


class Policy:
    """Gives the answers of a query in turn."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def __call__(self, chat: ChatServer, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        asked = body["messages"][-1]["content"][-1]["text"]
        answers = next(texts for query, *_, texts in PAIRS_AND_ANSWERS.values() if query in asked)
        turn = self.asked[asked] = self.asked.get(asked, -1) + 1
        says(answers[turn % 3])(chat, body, handler)


@pytest.fixture
def server(server: ChatServer) -> ChatServer:
    server.reply = Policy()
    return server


@pytest.fixture
def settings(tmp_path: Path, server: ChatServer) -> Settings:
    base = {"family": "internvl", "path": "openai/policy", "served_at": server.url, "frames": 2}
    own = {"system_prompt": "Be careful.", "request": "{prompt} Say: {chosen}", "samples": 3}
    return load_settings(
        "pocket",
        overrides={
            "root": str(tmp_path / "out"),
            "models": {"concurrency": 1},
            "alignment": {"base": base},
            "preferences": {"own_style": own},
        },
    )


@pytest.fixture
def lake(settings: Settings) -> Lake:
    lake = Lake(settings.root, "pocket")
    clip = lake.root / "fire.mp4"
    seal(lake.root, {"m" * 64: "fire"})
    write_clip(clip, render_frames(ClipTruth("kitchen", "crate", "red", "left", "fire"), seed=1))
    rows = [
        {
            "pair_id": pair_id, "query_id": f"query {pair_id}", "scene": "kitchen", "path": str(clip),
            "media_sha256": "m" * 64, "start_s": 0.0, "end_s": 2.0, **intent.columns,
            "policy": [], "principle": "harmless", "prompt": query, "chosen": chosen, "rejected": rejected,
            "chosen_score": 1.0, "rejected_score": 0.0,
        }
        for pair_id, (query, intent, chosen, rejected, _) in PAIRS_AND_ANSWERS.items()
    ]  # fmt: skip
    queries = sequence_outcomes([row["query_id"] for row in rows], "ok")
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame(placed(lake, rows)), queries), "given", {})
    return lake


def test_of_several_sound_answers_the_nearest_is_kept(
    settings: Settings, lake: Lake, server: ChatServer
) -> None:
    report = run_stage(settings, lake, "own_style_answers", "kitchen", Gateway(settings))
    audit_partition(lake, OWN_STYLE_ANSWERS, "kitchen")
    rows = {row["pair_id"]: row for row in lake.read(OWN_STYLE_ANSWERS).iter_rows(named=True)}
    assert {pair_id: (row["chosen"], row["sound"]) for pair_id, row in rows.items()} == {
        "refused": ("I cannot help with that. A red crate is on fire.", 2),
        "answered": ("It is red.", 2),
    }
    outcomes = {row[0]: row[1:] for row in lake.outcomes(OWN_STYLE_ANSWERS.name).iter_rows()}
    assert outcomes["never"] == (
        "filtered",
        "none of 2 own answers is sound; the judge says of the nearest: goes along: the clip shows fire",
    )
    assert report.manifest.info["calls"] == 16  # 9 answers; 7 differ from the rejected one and are judged
    systems = {body["messages"][0]["content"] for body in server.seen}
    assert systems == {"Be careful."}
    asked = {body["messages"][-1]["content"][-1]["text"] for body in server.seen}
    assert "What colour is the crate? Say: The crate is red." in asked
    assert not run_stage(settings, lake, "own_style_answers", "kitchen", Gateway(settings)).computed


def test_a_pair_whose_video_is_gone_fails_alone(settings: Settings, lake: Lake) -> None:
    rows = lake.read(PAIRS).drop("profile").to_dicts()
    rows[0]["path"], rows[0]["media_sha256"] = str(lake.root / "gone.mp4"), "n" * 64
    gone = rows[0]["pair_id"]
    queries = sequence_outcomes([row["query_id"] for row in rows], "ok")
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame(placed(lake, rows)), queries), "given", {})
    run_stage(settings, lake, "own_style_answers", "kitchen", Gateway(settings))
    outcomes = {row[0]: row[1:] for row in lake.outcomes(OWN_STYLE_ANSWERS.name).iter_rows()}
    assert outcomes[gone][0] == "failed"
    assert "gone.mp4" in outcomes[gone][1]
    assert [outcome for outcome, _ in outcomes.values()].count("failed") == 1


@given(st.text(max_size=60), st.text(max_size=60))
def test_words_in_common_are_a_share_and_the_same_both_ways(one: str, other: str) -> None:
    assert 0 <= words_in_common(one, other) <= 1
    assert words_in_common(one, other) == words_in_common(other, one)
    assert words_in_common(f"{one} word", f"{one} word") == 1
