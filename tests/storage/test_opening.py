"""Opening a run that is there: its own profile, and no lake made where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevid_core.contracts.tables import CORPUS_SPLIT
from safevid_core.storage.lake import Lake, LakeError
from safevid_core.storage.opening import open_lake, profile_of
from tests.evaluation.small_lake import put


def test_a_lake_is_opened_with_the_profile_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEVID_PROFILE", "cluster")
    monkeypatch.setenv("SAFEVID_ROOT", str(tmp_path / "elsewhere"))
    put(Lake(tmp_path, "paper"), CORPUS_SPLIT, "all", [{"clip_id": "a", "split": "train"}])
    assert profile_of(tmp_path) == "paper"
    settings, lake = open_lake(tmp_path)
    assert (settings.profile, settings.root, lake.profile) == ("paper", tmp_path, "paper")
    assert lake.read(CORPUS_SPLIT).height == 1
    assert not (tmp_path / "elsewhere").exists()


def test_the_settings_of_a_run_are_laid_over_its_profile(tmp_path: Path) -> None:
    put(Lake(tmp_path / "lake", "pocket"), CORPUS_SPLIT, "all", [{"clip_id": "a", "split": "train"}])
    file = tmp_path / "mine.yaml"
    file.write_text("evaluation: {bootstrap_draws: 123}\nroot: elsewhere\n")
    settings, _ = open_lake(tmp_path / "lake", file)
    assert settings.evaluation.bootstrap_draws == 123
    assert settings.root == tmp_path / "lake"


@pytest.mark.parametrize("made", [False, True])
def test_no_lake_is_made_where_there_is_none(tmp_path: Path, made: bool) -> None:
    root = tmp_path / "nothing"
    if made:
        root.mkdir()
    with pytest.raises(LakeError, match="holds no lake"):
        open_lake(root)
    assert list(tmp_path.rglob("*")) == ([root] if made else [])


@pytest.mark.parametrize("text", ["{", "[1]", "{}", "null"])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tables" / "corpus_split" / "all" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(LakeError, match=r"corpus_split/all/manifest.json is not a manifest of a lake"):
        open_lake(tmp_path)
