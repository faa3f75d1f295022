"""Throughput figures of a training: tokens per second, padding, tokens saved by packing, memory and MFU.

Imports torch: import it inside functions.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from safevid_core.alignment.encoding import EncodedPair
from safevid_core.alignment.tree import row_tokens

# Dense bfloat16 operations per second, from the makers' data sheets.
_PEAK_OPERATIONS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


class Throughput:
    """Counts tokens between two log entries.

    Args:
        model: The model without an adapter. Each parameter of its language model counts as two operations per
            token forward, two backward, and two more for the gradient of a weight that trains.
        is_frozen: Whether the weights of the language model are frozen. Defaults to true.
    """

    def __init__(self, model: Any, *, is_frozen: bool = True) -> None:
        self._operations = 4 if is_frozen else 6
        self._parameters = sum(parameter.numel() for parameter in model.model.language_model.parameters())
        self._start()

    def _start(self) -> None:
        self._began = time.perf_counter()
        self._computed = self._padding = self._unshared = 0

    def count(self, pairs: Sequence[EncodedPair], batch: Mapping[str, Any]) -> None:
        """Count one pass.

        Args:
            pairs: The pairs of the pass.
            batch: The batch of these pairs.
        """
        mask = batch["attention_mask"]
        self._computed += mask.numel()
        self._padding += int(mask.numel() - mask.sum())
        self._unshared += sum(map(row_tokens, pairs))

    def figures(self) -> dict[str, float]:
        """Return the figures since the last call, by their names in the log."""
        rate = self._computed / max(time.perf_counter() - self._began, 1e-9)
        shown = {
            "tokens/s": round(rate, 1),
            "tokens/padding_share": round(self._padding / max(self._computed, 1), 4),
            "tokens/saved_by_sharing": self._unshared + self._padding - self._computed,
            "memory/peak_gb": round(_peak_memory() / 1e9, 3),
        }
        peak = peak_operations(_device_name())
        if peak is not None:
            shown["mfu"] = round(self._operations * self._parameters * rate / peak, 4)
        self._start()
        return shown


def peak_operations(device_name: str) -> float | None:
    """Return the dense bfloat16 operations per second of a GPU. None if its name is unknown."""
    return next((value for name, value in _PEAK_OPERATIONS.items() if name in device_name), None)


def _peak_memory() -> float:
    """Return the peak memory in bytes: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
