"""Settings are layered, typed, and say what is wrong in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as of_the_test
from hypothesis import strategies as st

from docs.reference import setting_rows
from safevid_core.settings import PACKAGE, PROFILES, SettingsError, load_settings, merge
from safevid_core.settings.loading import RENAMED_KEYS


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
    with pytest.raises(SettingsError, match=r"environment: .*; write a list or a mapping as JSON") as error:
        load_settings("pocket")
    assert "SAFEVID_ALIGNMENT__DATA_SCALES" in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("corpus: {scene_margn: 1}", "did you mean 'scene_margin'"),
        ("sede: 1", "did you mean 'seed'"),
        ("alignment: {base: {framse: 4}}", "did you mean 'frames'"),
        ("seed: many", "seed"),
        ("- a list", "must hold a mapping"),
        ("a: [1", "correct the YAML"),
        ("5: x", "key 5 is not text"),
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
def test_a_policy_that_contradicts_itself_is_refused(policy: dict[str, str], says: str) -> None:
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
    file.write_text("queries:\n  asker: {model: gemini/other}\n")
    assert load_settings("paper").queries.asker.api_key_env is not None


def test_a_server_named_by_a_variable_gets_the_key_named_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEVID_QUERIES__ASKER__API_BASE", "http://127.0.0.1:1/v1")
    assert load_settings("paper").queries.asker.api_key_env is None
    monkeypatch.setenv("SAFEVID_QUERIES__ASKER__API_KEY_ENV", "MINE")
    assert load_settings("paper").queries.asker.api_key_env == "MINE"


def test_a_family_stays_with_the_model_that_it_was_named_for() -> None:
    deploy = {"model": "azure/my-deploy", "family": "gpt"}
    assert "family" not in merge(deploy, {"model": "azure/other"})
    assert merge(deploy, {"model": "azure/other", "family": "llama"})["family"] == "llama"
    assert merge(deploy, {"model": "azure/my-deploy", "max_tokens": 9})["family"] == "gpt"
    assert merge({"path": "a", "family": "qwen2_5_vl"}, {"path": "b"})["family"] == "qwen2_5_vl"


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


PATHS = """
root: lake
corpus: {sources: [{kind: folder, path: clips}, {kind: manifest, path: /data/clips.jsonl}]}
descriptions: {audit: {folder: sheets}}
alignment: {accelerate_config: fsdp.yaml}
evaluation:
  judge: {model: scripted/judge, prompt: ~/prompt.txt}
  judges: {wildguard: {model: scripted/judge, prompt: wild/guard.txt}}
  labels: "{root}/labels.csv"
  files: {video_safetybench: {path: "{root}/bench"}, mmbench_video: {path: ../mmbench}}
  promotion: {sign_off: signed.yaml}
"""


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    (place / "settings.yaml").write_text(PATHS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    settings = load_settings("pocket", Path("mine/settings.yaml"))
    evaluation = settings.evaluation
    assert settings.root == place / "lake"
    assert [each.path for each in settings.corpus.sources] == [place / "clips", Path("/data/clips.jsonl")]
    assert settings.descriptions.audit.folder == place / "sheets"
    assert settings.alignment.accelerate_config == place / "fsdp.yaml"
    assert evaluation.judge.prompt == Path("/home/ada/prompt.txt")
    assert evaluation.judges["wildguard"].prompt == place / "wild" / "guard.txt"
    assert evaluation.labels == place / "lake" / "labels.csv"
    assert evaluation.files["video_safetybench"].path == place / "lake" / "bench"
    assert evaluation.files["mmbench_video"].path == place / ".." / "mmbench"
    assert evaluation.promotion.sign_off == place / "signed.yaml"
    # Text that is no path stays as it is: a checkpoint may be a folder or a hub id.
    assert settings.alignment.base == load_settings("pocket").alignment.base


def test_the_package_is_filled_in_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('evaluation: {labels: "{package}/labels.csv", judge: {model: "{package}"}}')
    evaluation = load_settings("pocket", file).evaluation
    assert evaluation.labels == PACKAGE / "labels.csv"
    assert evaluation.judge.model == str(PACKAGE)


def test_paths_of_variables_and_arguments_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("root: of_the_file\nevaluation: {labels: of_the_file.csv}\n")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SAFEVID_ROOT", "lake")
    monkeypatch.setenv("SAFEVID_CLIPS", "~/clips")
    monkeypatch.setenv("SAFEVID_EVALUATION__FILES__MMBENCH_VIDEO__PATH", "{root}/mmbench")
    monkeypatch.setenv("SAFEVID_EVALUATION__PROMOTION__SIGN_OFF", "~/signed.yaml")
    settings = load_settings("pocket", file, {"evaluation": {"labels": Path("labels.csv")}})
    assert settings.root == Path("lake")
    assert settings.evaluation.labels == Path("labels.csv")
    assert settings.evaluation.files["mmbench_video"].path == Path("lake/mmbench")
    assert settings.evaluation.promotion.sign_off == Path("/home/ada/signed.yaml")
    assert settings.corpus.sources[-1].path == Path("/home/ada/clips")
    monkeypatch.setenv("SAFEVID_CLIPS", "clips")
    assert load_settings("pocket", file).corpus.sources[-1].path == Path.cwd() / "clips"


def test_a_home_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("root: ~nobody-of-this-name/lake")
    with pytest.raises(SettingsError, match=r"mine\.yaml: path '~nobody-of-this-name/lake' names no home"):
        load_settings("pocket", file)


@pytest.mark.parametrize(
    ("key", "text", "new"),
    [
        ("corpus.margin", "corpus: {margin: 1}", "corpus.scene_margin"),
        ("models.terms.gpt.rpm", "models: {terms: {gpt: {rpm: 1}}}", "models.terms.gpt.requests_per_minute"),
        ("sources", "sources: []", "corpus.sources"),
    ],
)
def test_a_renamed_key_names_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, text: str, new: str
) -> None:
    renamed = {
        "corpus.margin": "corpus.scene_margin",
        "models.terms.*.rpm": "models.terms.*.requests_per_minute",
        "sources": "corpus.sources",
    }
    for name, value in renamed.items():
        monkeypatch.setitem(RENAMED_KEYS, name, value)
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings("pocket", file)
    assert str(caught.value) == f"{file}: {key!r} is now {new!r}; rename it"
    variable = "SAFEVID_" + key.upper().replace(".", "__")
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=f"^environment variable {variable} is now SAFEVID_") as caught:
        load_settings("pocket")
    assert str(caught.value).endswith(f" {'SAFEVID_' + new.upper().replace('.', '__')}; rename it")


def test_renamed_keys_are_gone_and_their_new_ones_exist() -> None:
    keys = {row.key for row in setting_rows()}
    assert not keys & set(RENAMED_KEYS)
    assert set(RENAMED_KEYS.values()) <= keys


def test_an_error_names_the_layer_that_gave_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("corpus: {sources: [{kind: folder, path: clips, pth: x}]}")
    with pytest.raises(SettingsError, match=rf"^{file}: unknown key 'corpus\.sources\.0\.pth'; did you mean"):
        load_settings("pocket", file, {"seed": 1})
    with pytest.raises(SettingsError, match=r"^arguments: alignment\.beta: "):
        load_settings("pocket", overrides={"alignment": {"beta": 0}})
    with pytest.raises(SettingsError, match=r"^arguments: descriptions\.describers\.mine\.path: Field req"):
        load_settings("pocket", overrides={"descriptions": {"describers": {"mine": {"family": "x"}}}})


def test_reading_the_settings_does_not_read_what_models_need() -> None:
    code = "import sys, safevid_core.settings as s; s.load_settings('paper'); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "litellm", "polars", "numpy", "dagster", "open_clip"}
    assert not heavy & set(ran.stdout.split())


def test_where_stages_run_and_what_caches_hold_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings("pocket")
    assert (settings.storage.frame_cache_gb, settings.execution.processes, settings.stages) == (2.0, None, ())
    monkeypatch.setenv("SAFEVID_STORAGE__FRAME_CACHE_GB", "0")
    monkeypatch.setenv("SAFEVID_EXECUTION__PROCESSES", "3")
    monkeypatch.setenv("SAFEVID_STAGES", '["mine.stages"]')
    settings = load_settings("pocket")
    assert (settings.storage.frame_cache_gb, settings.execution.processes) == (0.0, 3)
    assert settings.stages == ("mine.stages",)
    with pytest.raises(SettingsError, match=r"execution\.processes"):
        load_settings("pocket", overrides={"execution": {"processes": 0}})


SERVED = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["openai/big", "openai/small", "anthropic/one"]),
        "api_base": st.sampled_from([None, "http://a", "http://b"]),
        "api_key_env": st.just(True),
    },
)


@given(st.lists(SERVED, min_size=1, max_size=5))
def test_no_key_ever_goes_to_another_server(layers: list[dict[str, Any]]) -> None:
    merged: dict[str, Any] = {"model": "openai/first"}
    plain, servers = dict(merged), {}
    for number, layer in enumerate(layers):
        key = f"KEY_{number}"
        merged = merge(merged, {**layer, "api_key_env": key} if "api_key_env" in layer else layer)
        plain.update({name: value for name, value in layer.items() if name != "api_key_env"})
        servers[key] = plain.get("api_base") or plain["model"].partition("/")[0]
        assert {name: merged[name] for name in plain} == plain
    assert merged.get("api_key_env") is None or servers[merged["api_key_env"]] == servers[key]


@of_the_test(max_examples=40)
@given(st.lists(st.none() | st.integers(1, 9), min_size=3, max_size=3))
def test_the_last_layer_that_sets_a_key_wins(tmp_path_factory: Any, values: list[int | None]) -> None:
    file = tmp_path_factory.mktemp("settings") / "mine.yaml"
    of_file, of_variable, of_argument = values
    file.write_text("{}" if of_file is None else f"alignment: {{epochs: {of_file}}}")
    with pytest.MonkeyPatch.context() as patch:
        if of_variable is not None:
            patch.setenv("SAFEVID_ALIGNMENT__EPOCHS", str(of_variable))
        argument = {} if of_argument is None else {"alignment": {"epochs": of_argument}}
        found = load_settings("pocket", file, argument).alignment.epochs
    assert found == next((each for each in reversed(values) if each is not None), 1)


def test_a_repetition_penalty_is_for_local_models_and_changes_no_hash_at_one() -> None:
    model = load_settings("pocket").alignment.base
    assert model.decoding == (0.0,)
    assert model.model_copy(update={"repetition_penalty": 1.2}).decoding == (0.0, 1.2)
    served = {"path": "openai/x", "served_at": "http://127.0.0.1:1/v1", "repetition_penalty": 1.2}
    with pytest.raises(SettingsError, match="repetition_penalty holds for local models only"):
        load_settings("pocket", overrides={"alignment": {"base": served}})
