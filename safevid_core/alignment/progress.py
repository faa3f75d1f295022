"""The callback of a training: it writes the figures of each step and triggers checkpoints.

Imports transformers: import it inside functions.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from safevid_core.alignment.processes import is_first_process, on_first_process, wait_for_all

WHOLE_MARK = "whole"  # a checkpoint folder without this file is incomplete
PROGRESS_NAME = "progress.jsonl"
# Steps over which the reward of the chosen responses is averaged: the reward of one step is noise.
_WINDOW = 20


class ProgressCallback(TrainerCallback):
    """Appends the figures of each step to `progress.jsonl`, marks complete checkpoints and triggers new ones.

    Args:
        folder: Folder of the run.
        save_minutes: Maximum number of minutes between two checkpoints. None means that only the trainer's
            arguments decide.

    Attributes:
        listener: Called with the figures of each step. None calls nothing.
        warnings: Messages for the user, at most one.
    """

    def __init__(self, folder: Path, save_minutes: float | None = None) -> None:
        self._folder = folder
        self._save_s = None if save_minutes is None else 60 * save_minutes
        self._saved = self._began = time.monotonic()
        self._first_step = 0
        self._rewards: list[float] = []
        self.warnings: list[str] = []
        self.listener: Callable[[Mapping[str, Any]], None] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = self._began = time.monotonic()
        self._first_step = state.global_step
        if is_first_process():
            _drop_cut_off_line(self._folder / PROGRESS_NAME)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._save_s is not None and on_first_process(time.monotonic() - self._saved > self._save_s):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        wait_for_all()
        if is_first_process():
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE_MARK).touch()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not is_first_process():
            return
        figures = {"time": time.time(), "step": state.global_step, "steps": state.max_steps, **(logs or {})}
        done = state.global_step - self._first_step
        if done and state.max_steps > state.global_step:
            each = (time.monotonic() - self._began) / done
            figures["seconds_left"] = round(each * (state.max_steps - state.global_step), 1)
        if "rewards/chosen" in figures:
            self._rewards.append(figures["rewards/chosen"])
            if not self.warnings and chosen_falls(self._rewards):
                self.warnings.append(
                    f"the chosen responses have become less likely than before training (at step "
                    f"{state.global_step}); lower alignment.learning_rate or raise alignment.beta"
                )
                figures["warning"] = self.warnings[-1]
        with (self._folder / PROGRESS_NAME).open("a") as file:
            file.write(json.dumps(figures) + "\n")
        if self.listener is not None:
            self.listener(figures)


def chosen_falls(rewards: Sequence[float]) -> bool:
    """Return whether the mean reward of the chosen responses was negative over the last 20 steps.

    Args:
        rewards: Reward of the chosen responses by step. Fewer than 20 steps return false.
    """
    return len(rewards) >= _WINDOW and sum(rewards[-_WINDOW:]) < 0


def _drop_cut_off_line(file: Path) -> None:
    """Remove the incomplete last line that a killed process may leave."""
    content = file.read_bytes() if file.exists() else b""
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(file, end)
