from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.settings import Settings, load_settings
from tests.models.chat_server import ChatServer


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("pocket", overrides={"root": str(tmp_path)})


@pytest.fixture
def hosted(tmp_path: Path, server: ChatServer) -> Settings:
    """Settings whose reconciler is the server, which is asked one question at a time."""
    return load_settings(
        "pocket",
        overrides={
            "root": str(tmp_path),
            "models": {"providers": [], "max_attempts": 1, "concurrency": 1},
            "descriptions": {"reconciler": {"model": "openai/loopback", "api_base": server.url}},
        },
    )
