"""What a training tells while it runs, and when it saves.

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

WHOLE_MARK = "whole"  # a checkpoint folder without this file was cut off while it was written
PROGRESS_NAME = "progress.jsonl"
# The chosen answers' log-probability is judged over so many steps: a single step's is noise.
_WINDOW = 20


class Progress(TrainerCallback):
    """Appends each step's figures to `progress.jsonl`, marks whole checkpoints, and has one written in time.

    Args:
        folder: The run's.
        save_minutes: Most minutes between two checkpoints; None leaves them to the trainer's arguments.

    Attributes:
        listener: Called with each step's figures.
        warnings: What a person should look at.
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
                    f"the chosen answers have grown less likely than before training (by step "
                    f"{state.global_step}); lower alignment.learning_rate or raise alignment.beta"
                )
                figures["warning"] = self.warnings[-1]
        with (self._folder / PROGRESS_NAME).open("a") as file:
            file.write(json.dumps(figures) + "\n")
        if self.listener is not None:
            self.listener(figures)


def chosen_falls(rewards: Sequence[float]) -> bool:
    """Whether the chosen answers' reward, their gain in log-probability, has been negative for a while."""
    return len(rewards) >= _WINDOW and sum(rewards[-_WINDOW:]) < 0


def _drop_cut_off_line(file: Path) -> None:
    """A process killed while it wrote leaves part of a line, onto which the next would be joined."""
    content = file.read_bytes() if file.exists() else b""
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(file, end)
