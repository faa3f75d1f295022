"""Memory is returned to the system, and no model stays loaded beside a training."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from safevid_core.alignment import dpo
from safevid_core.alignment.job import Job
from safevid_core.models import video_model
from safevid_core.models.llm import Gateway
from safevid_core.models.video_chat import LocalVideoChat
from safevid_core.settings import Policy, Settings, load_settings

_FREED = """
import resource
from safevid_core.execution.memory import return_memory

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

pieces = [b"x" * (60_000 + n) for n in range(5_000)]
last = bytes(60_000)  # keeps the end of the heap in use, so that glibc cannot shrink it by itself
held = resident_mb()
del pieces
kept = resident_mb()
return_memory()
print(held, kept, resident_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has malloc_trim")
def test_freed_memory_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _FREED], capture_output=True, text=True, check=True)
    held, kept, returned = map(float, done.stdout.split())
    assert kept > held - 50, "without the function glibc keeps it"
    assert returned < held - 250, "300 MB were freed"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("pocket", overrides={"root": str(tmp_path)})


def loaded_model(settings: Settings) -> weakref.ref[object]:
    chat = video_model.shared_video_chat(settings.alignment.base, Gateway(settings))
    assert isinstance(chat, LocalVideoChat)
    return weakref.ref(chat.loaded()[0])


def test_the_shared_model_stays_loaded_until_it_is_released(settings: Settings) -> None:
    model = loaded_model(settings)
    gc.collect()
    assert model() is not None
    video_model.release_models()
    assert model() is None


def test_no_model_is_loaded_when_the_training_process_starts(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded_model(settings)
    seen: list[bool] = []

    class Process(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **kwargs: object) -> None:
            seen.append(model() is None)
            super().__init__(
                [sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    monkeypatch.setattr(subprocess, "Popen", Process)
    job = Job(tmp_path, tmp_path / "pairs.parquet", 0, settings.alignment, Policy.model_validate({}))
    with dpo._launched([job], settings.alignment, dpo.plain_program):
        pass
    assert seen == [True]


@pytest.mark.parametrize(("keep", "threshold"), [(True, str(2**30)), (False, None)])
def test_a_training_keeps_its_memory_unless_the_settings_say_otherwise(
    keep: bool, threshold: str | None, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    class Process(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, env: dict[str, str], **kwargs: object) -> None:
            seen.append(env.get("MALLOC_MMAP_THRESHOLD_"))
            pipe = subprocess.PIPE
            super().__init__([sys.executable, "-c", ""], stdin=pipe, stdout=pipe, text=True)

    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setattr(subprocess, "Popen", Process)
    alignment = settings.alignment.model_copy(update={"keep_memory": keep})
    job = Job(tmp_path, tmp_path / "pairs.parquet", 0, alignment, Policy.model_validate({}))
    with dpo._launched([job], alignment, dpo.plain_program):
        pass
    assert seen == [threshold]
