"""A stage whose provider was down, or refused, is made again where that helps, and pays for nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from safevid_core.execution.local import StageReport
from safevid_core.models.llm import PROVIDER_REFUSAL, Gateway
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake
from tests.descriptions.candidates import BALL, CRATE, DESCRIBERS, SCENE, commit_candidates, commit_corpus
from tests.models.chat_server import ChatServer, fails, says
from tests.stages import run_stage

GOOD = says('{"description": "A crate moves.", "claims": [{"text": "A crate moves."}]}')


@pytest.fixture
def made(server: ChatServer, tmp_path: Path) -> Callable[..., StageReport]:
    """Makes the descriptions of two clips by a hosted reconciler; keywords are gateway settings."""
    lake = Lake(tmp_path, "pocket")
    commit_corpus(lake, ("a", "b"))
    for describer in DESCRIBERS:
        commit_candidates(lake, describer, {"a": CRATE, "b": BALL})

    def make(**models: object) -> StageReport:
        settings = settings_of(server, tmp_path, **models)
        return run_stage(settings, lake, "descriptions", SCENE, Gateway(settings))

    return make


def settings_of(server: ChatServer, root: Path, **models: object) -> Settings:
    return load_settings(
        "pocket",
        overrides={
            "root": str(root),
            "models": {"providers": [], "max_attempts": 1, "concurrency": 1, **models},
            "descriptions": {"reconciler": {"model": "openai/loopback", "api_base": server.url}},
        },
    )


def test_a_stage_whose_provider_was_down_is_made_again(
    server: ChatServer, made: Callable[..., StageReport]
) -> None:
    server.queue(GOOD, fails(503), GOOD)
    first = made()
    assert (first.manifest.outcomes["ok"], first.manifest.outcomes["failed"]) == (1, 1)
    assert first.manifest.info["unanswered"] == 1
    second = made()
    assert second.computed
    assert second.manifest.outcomes["ok"] == 2
    assert (second.manifest.info["calls"], second.manifest.info["cached_calls"]) == (1, 1)
    assert not made().computed
    assert len(server.seen) == 3


def test_a_refused_row_is_asked_again_only_on_demand(
    server: ChatServer, made: Callable[..., StageReport], tmp_path: Path
) -> None:
    server.queue(GOOD, says("", finish_reason="content_filter"))
    first = made()
    assert (first.manifest.outcomes["ok"], first.manifest.outcomes["undecidable"]) == (1, 1)
    assert (first.manifest.info["unusable"], first.manifest.info["provider_refusals"]) == (1, 1)
    reasons = Lake(tmp_path, "pocket").outcomes("descriptions", SCENE)["reason"].to_list()
    assert sorted(reasons) == ["", PROVIDER_REFUSAL]
    assert not made().computed
    server.queue(GOOD)
    again = made(retry_failed=True)
    assert again.computed
    assert again.manifest.outcomes["ok"] == 2
    assert len(server.seen) == 3
    assert not made(retry_failed=True).computed
