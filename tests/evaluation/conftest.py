"""One small lake with benchmark, answers, verdicts and scorecard, made once and only read afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.tables import SAFEVIDBENCH_BASE
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from safevid_core.systems import responses
from tests.evaluation.small_lake import LookingChat, build_lake, put_checkpoints, settings_for
from tests.stages import run_stage

SCENES = ["kitchen", "street", "forest", "stage", "harbour", "office"]
BENCHMARK = SAFEVIDBENCH_BASE.name


@dataclass(frozen=True)
class Evaluated:
    """A lake on which every system has been measured."""

    settings: Settings
    lake: Lake
    gateway: Gateway


def open_looking_chat(root: Path) -> Callable[..., LookingChat]:
    """In place of `open_video_chat`: how careful a policy is depends on the adapter it is opened with."""

    def open_chat(
        model: Any, gateway: Any, *, adapter: Path | None = None, threads: Any = None
    ) -> LookingChat:
        adapter_of = (
            json.loads((adapter / "adapter.json").read_text()) if adapter else {"policy": "base", "seed": 0}
        )
        careful = {"pocket": 0.9, "base": 0.35}.get(adapter_of["policy"], 0.5)
        return LookingChat(root, careful, f"{adapter_of['policy']}-{adapter_of['seed']}")

    return open_chat


def evaluate(settings: Settings, lake: Lake) -> Evaluated:
    gateway = Gateway(settings)
    put_checkpoints(lake, {name: len(policy.seeds) for name, policy in settings.alignment.policies.items()})
    run_stage(settings, lake, "safevidbench_plan", gateway=gateway)
    run_stage(settings, lake, "safevidbench_base", gateway=gateway)
    for system in settings.systems:
        run_stage(settings, lake, "benchmark_responses", f"{system}|{BENCHMARK}", gateway)
        run_stage(settings, lake, "benchmark_scores", f"{system}|{BENCHMARK}", gateway)
    return Evaluated(settings, lake, gateway)


@contextmanager
def looking_chats(root: Path) -> Iterator[None]:
    """While it lasts, the looking chat of this lake answers in place of every local checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        patch.setattr(responses, "open_video_chat", open_looking_chat(root))
        patch.setattr(responses, "checkpoint_identity", lambda model, adapter=None: str(adapter))
        yield


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = tmp_path_factory.mktemp("evaluated") / "safevid"
    with looking_chats(root):
        lake = build_lake(root, SCENES)
        return evaluate(settings_for(root, max_items=120, modality_items=12), lake)
