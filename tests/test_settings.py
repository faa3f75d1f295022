"""Settings are layered, typed, and say what is wrong in one line."""

from pathlib import Path

import pytest

from safevid_core.settings import PROFILES, SettingsError, load_settings, merge


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_loads(profile: str) -> None:
    assert load_settings(profile).profile == profile


def test_a_named_profile_is_not_the_default_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_PROFILE", "cluster")
    assert load_settings().profile == "cluster"
    assert load_settings("paper").profile == "paper"


def test_a_profile_that_extends_another_changes_only_what_it_names() -> None:
    paper, workstation = load_settings("paper"), load_settings("workstation")
    assert workstation.corpus.target_clips < paper.corpus.target_clips
    assert workstation.alignment.base == paper.alignment.base
    assert workstation.alignment.beta == paper.alignment.beta
    assert load_settings("cluster").corpus == paper.corpus


def test_layers_are_laid_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 5\nalignment: {beta: 0.2}\n")
    monkeypatch.setenv("SAFEVID_SEED", "7")
    monkeypatch.setenv("SAFEVID_MODELS__BUDGET_USD", "3")
    settings = load_settings("pocket", file, {"alignment": {"epochs": 2}, "models": {"budget_usd": 1}})
    assert (settings.seed, settings.alignment.beta, settings.alignment.epochs) == (7, 0.2, 2)
    assert settings.models.budget_usd == 1


def test_a_wrong_variable_is_named_and_not_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_ALIGNMENT__BATCH_SIZE", "0")
    with pytest.raises(SettingsError, match=r"^environment variable SAFEVID_ALIGNMENT__BATCH_SIZE: align"):
        load_settings("pocket")
    monkeypatch.delenv("SAFEVID_ALIGNMENT__BATCH_SIZE")
    monkeypatch.setenv("SAFEVID_ALIGNMENT__BATCHSIZE", "8")
    with pytest.raises(SettingsError, match=r"BATCHSIZE: unknown key .*; did you mean 'batch_size'\?"):
        load_settings("pocket")


def test_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_ALIGNMENT__DATA_SCALES", "all")
    with pytest.raises(SettingsError, match=r"environment: .*; write a list or a mapping as JSON"):
        load_settings("pocket")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("corpus: {scene_margn: 1}", "did you mean 'scene_margin'"),
        ("sede: 1", "did you mean 'seed'"),
        ("alignment: {base: {framse: 4}}", "did you mean 'frames'"),
        ("seed: many", "seed"),
        ("- a list", "must hold a mapping"),
        ("a: [1", "mend the YAML"),
    ],
)
def test_a_wrong_file_is_named_with_the_mend(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings("pocket", file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_SEEDS", "1")
    with pytest.raises(SettingsError, match="SAFEVID_SEEDS matches no setting; did you mean 'seed'"):
        load_settings("pocket")


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="pocket"):
        load_settings("pokket")


def test_own_clips_are_added_to_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_CLIPS", str(tmp_path))
    sources = load_settings("pocket").corpus.sources
    assert [source.kind for source in sources] == ["pocket", "folder"]
    assert sources[1].path == tmp_path


def test_merging_replaces_lists_and_descends_into_mappings() -> None:
    assert merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}}


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"objective": "none"}, "objective none and system_prompt go together"),
        ({"system_prompt": "Be careful."}, "objective none and system_prompt go together"),
        ({"objective": "none", "system_prompt": "x", "trained_on": "own_style"}, "trains on nothing"),
    ],
)
def test_an_arm_that_contradicts_itself_is_refused(policy: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings("pocket", overrides={"alignment": {"policies": {"mine": policy}}})


def test_a_server_of_ones_own_never_gets_the_profiles_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("queries:\n  asker: {model: openai/mine, api_base: 'http://127.0.0.1:1/v1'}\n")
    monkeypatch.setenv("SAFEVID_SETTINGS", str(file))
    asker = load_settings("paper").queries.asker
    assert asker.api_base is not None
    assert asker.api_key_env is None
    assert load_settings("paper").preferences.responder.api_key_env is not None
    file.write_text(
        "queries:\n  asker: {model: openai/mine, api_base: 'http://127.0.0.1:1/v1', api_key_env: MINE}\n"
    )
    assert load_settings("paper").queries.asker.api_key_env == "MINE"
    file.write_text("queries:\n  asker: {model: openai/other}\n")
    assert load_settings("paper").queries.asker.api_key_env is not None


def test_a_server_named_by_a_variable_gets_the_key_named_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_QUERIES__ASKER__API_BASE", "http://127.0.0.1:1/v1")
    assert load_settings("paper").queries.asker.api_key_env is None
    monkeypatch.setenv("SAFEVID_QUERIES__ASKER__API_KEY_ENV", "MINE")
    assert load_settings("paper").queries.asker.api_key_env == "MINE"


def test_a_key_stays_with_the_provider_and_the_server_that_it_was_named_for() -> None:
    hosted = {"model": "openai/big", "api_key_env": "THEIRS"}
    mine = {"model": "openai/m", "api_base": "http://a", "api_key_env": "MINE"}
    assert "api_key_env" not in merge(hosted, {"model": "anthropic/other"})
    assert merge(hosted, {"model": "openai/small"})["api_key_env"] == "THEIRS"
    assert merge(hosted, {"model": "xai/m", "api_key_env": "X"})["api_key_env"] == "X"
    assert "api_key_env" not in merge(mine, {"api_base": None})
    assert merge(mine, {"model": "hosted_vllm/m"})["api_key_env"] == "MINE"


def test_a_served_video_model_gets_no_inherited_key(monkeypatch: pytest.MonkeyPatch) -> None:
    below = {"alignment": {"base": {"path": "openai/x", "api_key_env": "THEIRS", "served_at": "http://a"}}}
    above = {"alignment": {"base": {"served_at": "http://b"}}}
    assert merge(below, above)["alignment"]["base"] == {"path": "openai/x", "served_at": "http://b"}
