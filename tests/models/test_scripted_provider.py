"""The scripted teacher reaches the gateway as a hosted model would, through its model string."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safevid_core.models.llm import ChatRequest, Gateway
from safevid_core.pocket.scripted import provider
from safevid_core.settings import Settings, TextModel


class Script:
    """Stands in for one scripted module."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.root: Path | None = None

    def answer(self, messages: list[dict[str, Any]]) -> str:
        self.asked.append(messages)
        if "fault" in messages[-1]["content"]:
            raise KeyError("fault")
        return f"heard {messages[-1]['content']}"

    def configure(self, root: Path) -> None:
        self.root = root


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Script]:
    made = {name: Script() for name in provider.NAMES}
    monkeypatch.setattr(provider, "_module", made.__getitem__)
    return made


@pytest.fixture
def gateway(settings: Callable[..., Settings], scripts: dict[str, Script]) -> Gateway:
    return Gateway(settings())


def ask(name: str, *texts: str) -> list[ChatRequest]:
    model = TextModel(model=f"scripted/{name}")
    return [ChatRequest(model, [{"role": "user", "content": text}]) for text in texts]


def test_each_name_reaches_its_own_script(
    gateway: Gateway, scripts: dict[str, Script], tmp_path: Path
) -> None:
    for name in provider.NAMES:
        answer = gateway.ask_many(ask(name, f"hello {name}"), asset="x")[0]
        assert (answer.text, answer.cost_usd) == (f"heard hello {name}", 0.0)
        assert answer.tokens_in == 2
    assert [len(script.asked) for script in scripts.values()] == [1] * len(provider.NAMES)
    assert scripts["judge"].root == tmp_path


def test_a_fault_in_a_script_fails_its_row_and_is_not_tried_again(
    gateway: Gateway, scripts: dict[str, Script]
) -> None:
    answers = gateway.ask_many(ask("asker", "fault", "fine"), asset="x")
    assert [answer.outcome for answer in answers] == ["failed", "ok"]
    assert "KeyError" in answers[0].reason
    assert len(scripts["asker"].asked) == 2


def test_a_name_without_a_script_lists_the_names(gateway: Gateway) -> None:
    answer = gateway.ask_many(ask("teacher", "a"), asset="x")[0]
    assert answer.outcome == "failed"
    assert "asker" in answer.reason
