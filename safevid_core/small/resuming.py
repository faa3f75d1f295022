"""A training loop that stores its state and goes on from there after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

Report = Callable[[str], None]


def plan_hash(*parts: Any) -> str:
    """A short hash of all that decides a training."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Schedule:
    """Length and rate of a training.

    Attributes:
        steps: Length of the training.
        batch: Examples of a step.
        rate: Highest learning rate.
        every: Steps between two stored states.
    """

    steps: int
    batch: int
    rate: float
    every: int


class Training:
    """Steps of AdamW under a cosine schedule, with the state stored every few steps.

    The batch of a step depends on the number of the step alone, so that a resumed training takes the same
    batches as one that was never stopped.

    Args:
        name: Of the training, for its lines in the log.
        modules: What is trained.
        schedule: Its length and rate.
        file: Where the state is stored.
        identity: Hash of the plan. A state of another plan is not used.
        report: Called with one line for each stored state.
    """

    def __init__(
        self,
        name: str,
        modules: nn.ModuleDict,
        schedule: Schedule,
        file: Path,
        identity: str,
        report: Report,
    ) -> None:
        import torch

        self._name, self._modules, self._schedule = name, modules, schedule
        self._file, self._identity, self._report = file, identity, report
        self._weights = list(modules.parameters())
        self._adamw = torch.optim.AdamW(self._weights, lr=schedule.rate, weight_decay=0.02, betas=(0.9, 0.98))
        self.done = self._resume()

    def run(
        self, loss_of: Callable[[int], tuple[torch.Tensor, Mapping[str, float]]], stop: int | None = None
    ) -> None:
        """Train to the last step.

        Args:
            loss_of: Step number -> the loss of its batch, and figures for the log.
            stop: Step before which to stop, as if killed. None trains to the end.
        """
        import torch

        began, first, steps = time.monotonic(), self.done, self._schedule.steps
        mean: dict[str, float] = {}
        for step in range(self.done, steps if stop is None else min(stop, steps)):
            loss, figures = loss_of(step)
            self._adamw.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
            for group in self._adamw.param_groups:
                group["lr"] = self._schedule.rate * cosine(step, steps)
            self._adamw.step()
            for figure, value in {"loss": loss.item(), **figures}.items():
                mean[figure] = mean.get(figure, value) + (value - mean.get(figure, value)) * 0.05
            self.done = step + 1
            if self.done % self._schedule.every == 0 or self.done == steps:
                self._store()
                figures_text = " ".join(f"{figure} {value:.3f}" for figure, value in mean.items())
                seconds = (time.monotonic() - began) / (self.done - first)
                self._report(f"{self._name} {self.done}/{steps} {figures_text} {seconds:.2f} s a step")

    def _store(self) -> None:
        import torch

        state = {
            "identity": self._identity,
            "done": self.done,
            "modules": self._modules.state_dict(),
            "adamw": self._adamw.state_dict(),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        torch.save(state, beside)
        os.replace(beside, self._file)

    def _resume(self) -> int:
        import torch

        if not self._file.is_file():
            return 0
        try:
            state = torch.load(self._file, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            self._report(f"{self._name}: {self._file} cannot be read ({type(error).__name__}); begun anew")
            return 0
        if state.get("identity") != self._identity:
            self._report(f"{self._name}: {self._file} is of another plan; begun anew")
            return 0
        self._modules.load_state_dict(state["modules"])
        self._adamw.load_state_dict(state["adamw"])
        self._report(f"{self._name}: resumed after step {state['done']}")
        return int(state["done"])


def cosine(step: int, steps: int, warm: float = 0.06) -> float:
    """Factor of the learning rate: a linear rise over the share `warm`, then half a cosine down to 2%."""
    if step < warm * steps:
        return (step + 1) / (warm * steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm * steps) / (steps * (1 - warm))))


def drawn_rows(seed: int, step: int, count: int, size: int) -> torch.Tensor:
    """Row numbers of a step's batch, without repetition within an epoch: int64 `[size]`."""
    import torch

    first = step * size
    rows: list[torch.Tensor] = []
    while sum(map(len, rows)) < size:
        epoch, place = divmod(first + sum(map(len, rows)), count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        rows.append(order[place : place + size - sum(map(len, rows))])
    return torch.cat(rows)
