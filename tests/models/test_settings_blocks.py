"""Each settings block of docs/models.md is one that loads and opens the models that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safevid_core.models.prices import Prices
from safevid_core.settings import Settings, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?<!-- profile: (\w+) -->\n```yaml\n(.*?)```",
    PAGE.read_text(),
    re.MULTILINE | re.DOTALL,
)


def load(title: str, tmp_path: Path) -> Settings:
    _, profile, block = next(each for each in BLOCKS if each[0] == title)
    file = tmp_path / "settings.yaml"
    file.write_text(block)
    return load_settings(profile, file, {"root": str(tmp_path)})


def test_every_way_to_run_has_a_block() -> None:
    assert [title for title, _, _ in BLOCKS] == [
        "A hosted teacher",
        "A vLLM server",
        "Local checkpoints",
        "One ledger for several machines",
    ]
    assert PAGE.read_text().count("```yaml") == len(BLOCKS)


@pytest.mark.parametrize("title", [title for title, _, _ in BLOCKS])
def test_a_block_loads(title: str, tmp_path: Path) -> None:
    assert load(title, tmp_path).profile == "paper"


def test_a_hosted_teacher_has_prices_limits_and_budgets(tmp_path: Path) -> None:
    settings = load("A hosted teacher", tmp_path)
    teacher = settings.descriptions.reconciler
    assert teacher.second is not None
    for model in (teacher, teacher.second, settings.queries.asker):
        price = Prices(settings.models).a_token(model)
        assert price is not None
        assert 0 < price[0] < price[1]
    assert Prices(settings.models).terms(teacher).batch


def test_served_and_local_models_are_where_the_block_says(tmp_path: Path) -> None:
    served = load("A vLLM server", tmp_path)
    assert served.descriptions.describers["qwen2_5_vl"].served_at == "http://127.0.0.1:8001/v1"
    assert served.preferences.responder.api_base == "http://127.0.0.1:8002/v1"
    local = load("Local checkpoints", tmp_path)
    assert all(
        local.descriptions.describers[name].served_at is None for name in ("llava_next_video", "qwen2_5_vl")
    )
