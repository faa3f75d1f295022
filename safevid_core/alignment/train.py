"""The training process: `python -m safevid_core.alignment.train [--workers N] JOB.json ...`

Imports the heavy libraries once and forks one process a job, so many at a time; each trains alone and
dies alone. A run that was killed goes on from its last whole checkpoint and ends with the weights of an
unbroken run.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job, RunResult

if TYPE_CHECKING:
    from safevid_core.alignment.trainer import VideoDPOTrainer

WHOLE_MARK = "whole"  # a checkpoint folder without this file was cut off while it was written
LOG_NAME = "training_log.jsonl"
# Column of the log -> trl's name for the figure. All follow from the seed: no times, no rates.
LOG_COLUMNS = {
    "step": "step",
    "epoch": "epoch",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "reward_margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "logps_chosen": "logps/chosen",
    "logps_rejected": "logps/rejected",
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    importlib.import_module("safevid_core.alignment.trainer")
    # A fork inherits the imports, which cost more than a pocket run; elsewhere than on Linux it is not
    # safe with these libraries loaded.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    return int(_run_all(context, list(options.jobs), options.workers))


def _run_all(context: Any, waiting: list[Path], workers: int) -> bool:
    """Run the jobs, so many at a time, with a line of JSON for each that ends; whether any failed."""
    running: dict[Any, tuple[Path, Any]] = {}
    failed = False
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                file = waiting.pop(0)
                process = context.Process(target=_run, args=(file,))
                process.start()
                running[process.sentinel] = (file, process)
            for sentinel in multiprocessing.connection.wait(list(running)):
                file, process = running.pop(sentinel)
                process.join()
                failed |= process.exitcode != 0
                print(json.dumps({"job": str(file), "code": process.exitcode}), flush=True)
    finally:
        for _, process in running.values():
            process.terminate()
    return failed


def _run(file: Path) -> None:
    """Train one job; a failure is left in the folder's `error.txt`, first line for people."""
    job = Job.read(file)
    with (job.folder / "output.txt").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    error_file = job.folder / "error.txt"
    error_file.unlink(missing_ok=True)
    try:
        train(job)
    except Exception as error:
        reason = str(error) if isinstance(error, AlignmentError) else f"{type(error).__name__}: {error}"
        error_file.write_text(reason.replace("\n", " ") + "\n\n" + traceback.format_exc())
        sys.exit(1)


def train(job: Job) -> RunResult:
    """Train one job, or read the result that is there; safe to call again after any death.

    Raises:
        AlignmentError: If no pair is left to train on, or the loss is not finite.
    """
    with _sole_owner(job.folder):
        result = RunResult.read(job.folder)
        if result is None:
            result = _train(job)
            result.write(job.folder)
    return result


def _train(job: Job) -> RunResult:
    started = time.monotonic()
    _make_deterministic(job)
    trainer, refused = build_trainer(job)
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(job.folder))
    log = [{name: entry.get(key) for name, key in LOG_COLUMNS.items()}
           for entry in trainer.state.log_history if "loss" in entry]  # fmt: skip
    _save_adapter(trainer, job, log)
    last = log[-max(1, len(log) // 10) :]

    def mean(name: str) -> float:
        return sum(entry[name] for entry in last) / len(last)

    return RunResult(
        pairs=len(trainer.data_collator.pairs),
        steps=trainer.state.global_step,
        first_loss=log[0]["loss"],
        last_loss=mean("loss"),
        reward_margin=mean("reward_margin"),
        reward_accuracy=mean("reward_accuracy"),
        train_s=time.monotonic() - started,
        refused=refused,
    )


def build_trainer(job: Job) -> tuple[VideoDPOTrainer, dict[str, tuple[Any, str]]]:
    """The trainer of a job with clips encoded and reference stored, and the refused pairs."""
    from transformers import set_seed

    from safevid_core.alignment.clips import NoClips, open_clip_store
    from safevid_core.alignment.collator import VideoPreferenceCollator
    from safevid_core.alignment.encoding import encode_pairs
    from safevid_core.alignment.trainer import VideoDPOTrainer, lora_config, training_arguments
    from safevid_core.models.video_chat import load_local

    settings = job.settings
    model, processor = load_local(settings.base)
    show_video = job.policy.perturbation != "text_only"
    store = open_clip_store(model, settings.base.family) if show_video else NoClips()
    rows = pl.read_parquet(job.pairs)
    encoded = encode_pairs(rows, settings, processor, store, show_video=show_video)
    if not encoded.pairs:
        reason = next((why for _, why in encoded.refused.values()), "there were none")
        raise AlignmentError(f"no pair is left to train on; the first refused: {reason}")
    set_seed(job.seed)
    trainer = VideoDPOTrainer(
        model=model,
        args=training_arguments(settings, job.folder, len(encoded.pairs), job.seed, job.policy.objective),
        data_collator=VideoPreferenceCollator(encoded.pairs, store, processor.tokenizer.pad_token_id),
        processing_class=processor,
        peft_config=lora_config(settings),
        callbacks=[_progress_callback(job.folder)],
    )
    trainer.store_reference()
    return trainer, encoded.refused


def _make_deterministic(job: Job) -> None:
    import torch

    if job.settings.threads is not None:
        torch.set_num_threads(job.settings.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, guards only against bugs


def _progress_callback(folder: Path) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        """Marks checkpoints that are whole, and appends each step's figures with the time of day."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE_MARK).touch()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            with (folder / "progress.jsonl").open("a") as file:
                figures = {"time": time.time(), "step": state.global_step, "steps": state.max_steps}
                file.write(json.dumps({**figures, **(logs or {})}) + "\n")

    return Progress()


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint whose writing ended; those that were cut off are removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / WHOLE_MARK).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _save_adapter(trainer: VideoDPOTrainer, job: Job, log: list[dict[str, Any]]) -> None:
    """The adapter as peft writes it, and the training log, in `adapter/`.

    A local base is named by its folder alone: the adapter's bytes, which are its address in the lake,
    must not depend on where a checkout lies.
    """
    shutil.rmtree(job.adapter, ignore_errors=True)
    trainer.model.save_pretrained(job.adapter, save_embedding_layers=False)
    config_file = job.adapter / "adapter_config.json"
    config = json.loads(config_file.read_text())
    base = Path(job.settings.base.path)
    config["base_model_name_or_path"] = base.name if base.is_dir() else job.settings.base.path
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True))
    lines = [json.dumps(entry) + "\n" for entry in log]
    (job.adapter / LOG_NAME).write_text("".join(lines))


@contextlib.contextmanager
def _sole_owner(folder: Path) -> Iterator[None]:
    """Waits while another process trains in this folder, as one may whose parent was killed."""
    with (folder / "owner.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(os.getpid()))
        file.flush()
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
