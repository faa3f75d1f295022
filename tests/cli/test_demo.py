"""`safevid demo --profile`, and the checkpoints that are built before the first stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.settings import SettingsError, load_settings
from safevid_dagster.demo import build_checkpoints
from tests.command import is_one_line, safevid


def test_an_unknown_profile_is_a_bad_request_in_one_line(tmp_path: Path) -> None:
    done = safevid("demo", "--profile", "smal", root=tmp_path)
    assert is_one_line(done, 2, "profile 'smal' does not exist; choose one of: cluster, paper, pocket, small")


def test_builders_are_called_with_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_builder.py").write_text("def prepare(root, report):\n    report(f'built in {root}')\n")
    monkeypatch.syspath_prepend(tmp_path)
    lines: list[str] = []
    overrides = {"root": str(tmp_path), "models": {"builders": ["my_builder"]}}
    build_checkpoints(load_settings("pocket", overrides=overrides), lines.append)
    assert lines == [f"built in {tmp_path}"]


@pytest.mark.parametrize("module", ["no_such_module_here", "json"])
def test_a_builder_that_is_none_is_one_line(module: str) -> None:
    settings = load_settings("pocket", overrides={"models": {"builders": [module]}})
    with pytest.raises(SettingsError, match=f"models.builders: {module} cannot be used"):
        build_checkpoints(settings, print)
