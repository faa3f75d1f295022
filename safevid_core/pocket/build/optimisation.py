"""The optimiser, its schedule, and the order of the training clips, for all trainings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


class Optimiser:
    """AdamW with a cosine schedule of the learning rate."""

    def __init__(self, modules: list[nn.Module], rate: float, steps: int):
        import torch

        self._weights = [weight for module in modules for weight in module.parameters()]
        self._adamw = torch.optim.AdamW(self._weights, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._adamw, cosine(steps))

    def step(self, loss: torch.Tensor) -> None:
        """One optimisation step: backward, clip the gradient's norm to 1, update the weights and the rate."""
        import torch

        self._adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._adamw.step()
        self._schedule.step()


def cosine(steps: int, warm: float = 0.06) -> Callable[[int], float]:
    """Step -> factor of the learning rate: a linear rise over the share `warm`, then half a cosine to 2%."""

    def factor(step: int) -> float:
        if step < warm * steps:
            return (step + 1) / (warm * steps)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm * steps) / (steps * (1 - warm))))

    return factor


class Shuffle:
    """Row numbers in seeded random order without end. Every row comes once before any row comes again."""

    def __init__(self, count: int, seed: int):
        import torch

        self._count, self._generator = count, torch.Generator().manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.long)

    def take(self, size: int) -> torch.Tensor:
        """The next `size` row numbers."""
        import torch

        while len(self._left) < size:
            self._left = torch.cat([self._left, torch.randperm(self._count, generator=self._generator)])
        taken, self._left = self._left[:size], self._left[size:]
        return taken
