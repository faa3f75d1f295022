from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("pocket", overrides={"root": str(tmp_path)})
