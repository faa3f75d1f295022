"""The training process: `python -m safevid_core.alignment.train [--workers N] JOB.json ...`

The program imports the heavy libraries once and starts one process for each job, at most N at a time. If one
process fails, the others continue. A killed run resumes from its last complete checkpoint and ends with the
weights of an uninterrupted run. Under `accelerate launch` all processes train each job together, one job
after another.
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
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import polars as pl

from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job, RunResult
from safevid_core.alignment.processes import is_first_process, on_first_process, process_count, wait_for_all
from safevid_core.alignment.reference import read_reference, write_reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from safevid_core.alignment.clips import ClipStore
    from safevid_core.alignment.collator import StepCollator
    from safevid_core.alignment.encoding import EncodedPair, EncodedPairs
    from safevid_core.alignment.trainer import VideoDPOTrainer
    from safevid_core.settings import AlignmentSettings, VideoModel

LOG_NAME = "training_log.jsonl"
MERGED_NAME = "merged"  # within the adapter's folder
# Column of the log -> trl's name for the figure. The log has no times and no rates, so it depends on the seed
# only.
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
# Name of a curve -> name of the figure in the trainer's log.
CURVES = {
    "loss": "loss",
    "reward margin": "rewards/margins",
    "reward accuracy": "rewards/accuracies",
    "log-prob. chosen": "logps/chosen",
    "log-prob. rejected": "logps/rejected",
    "tokens/s": "tokens/s",
    "share of padding": "tokens/padding_share",
    "tokens saved by sharing": "tokens/saved_by_sharing",
    "peak memory, GB": "memory/peak_gb",
}
CURVE_POINTS = 200
# Called after each step with the job and the step's figures, in the form of `progress.jsonl`.
Listener = Callable[[Job, Mapping[str, Any]], None]


def main(arguments: Sequence[str], listener: Listener | None = None) -> int:
    """Train the jobs on the command line.

    Args:
        arguments: The command line without the program's name.
        listener: Called after each step, in the process that trains. None calls nothing.

    Returns:
        The exit code: 1 if a job failed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--while-asked", action="store_true", help="end when standard input closes, as when the parent ends"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.while_asked:
        threading.Thread(target=_end_with_owner, daemon=True).start()
    if process_count() > 1:
        return int(_train_together(options.jobs, listener))
    context = _context_for(options.jobs)
    if context.get_start_method() == "fork":
        importlib.import_module("safevid_core.alignment.trainer")  # the forked processes inherit the import
    return int(_run_all(context, list(options.jobs), options.workers, listener))


def _end_with_owner() -> None:
    """Wait until standard input closes, then end this process and its children."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _context_for(files: Sequence[Path]) -> Any:
    """Return the multiprocessing context: `fork` on Linux without a GPU, else `spawn`.

    A forked process inherits the imports, which take longer than a training of the pocket profile. CUDA does
    not work after a fork.
    """
    on_cpu = all(Job.read(file).settings.base.device == "cpu" for file in files)
    return multiprocessing.get_context("fork" if sys.platform == "linux" and on_cpu else "spawn")


def _run_all(context: Any, waiting: list[Path], workers: int, listener: Listener | None) -> bool:
    """Run the jobs, at most `workers` at a time, and print a JSON line when one ends.

    Returns:
        Whether a job failed.
    """
    running: dict[Any, tuple[Path, Any]] = {}
    failed = False
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                file = waiting.pop(0)
                process = context.Process(target=_run, args=(file, listener))
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


def _train_together(files: Sequence[Path], listener: Listener | None) -> bool:
    """Train the jobs one after another with all processes of this launch. The first failure ends them all."""
    for file in files:
        try:
            _run(file, listener)
        except SystemExit:
            if is_first_process():
                print(json.dumps({"job": str(file), "code": 1}), file=sys.__stdout__, flush=True)
            raise
        if is_first_process():
            print(json.dumps({"job": str(file), "code": 0}), file=sys.__stdout__, flush=True)
    return False


def _run(file: Path, listener: Listener | None = None) -> None:
    """Train one job. A failure is written to `error.txt` in its folder, with the reason as the first line."""
    job = Job.read(file)
    with (job.folder / "output.txt").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    error_file = job.folder / "error.txt"
    error_file.unlink(missing_ok=True)
    try:
        train(job, listener)
    except Exception as error:
        reason = str(error) if isinstance(error, AlignmentError) else f"{type(error).__name__}: {error}"
        error_file.write_text(reason.replace("\n", " ") + "\n\n" + traceback.format_exc())
        sys.exit(1)


def train(job: Job, listener: Listener | None = None) -> RunResult:
    """Train one job and return its result. A finished job is not trained again, and a killed one resumes.

    Args:
        job: The request.
        listener: Called after each step. None calls nothing.

    Raises:
        AlignmentError: If no pair is left to train on, the loss is not finite, memory runs out, or a
            checkpoint cannot be written.
    """
    with _sole_owner(job.folder):
        result = on_first_process(RunResult.read(job.folder))
        if result is None:
            result = _train(job, listener)
            if is_first_process():
                result.write(job.folder)
    return result


def _train(job: Job, listener: Listener | None) -> RunResult:
    started = time.monotonic()
    _make_deterministic(job)
    trainer, encoded, _ = prepare(job)
    if listener is not None:
        trainer.progress.listener = partial(listener, job)
    trainer.train(resume_from_checkpoint=on_first_process(_last_whole_checkpoint(job.folder)))
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    log = [{name: entry.get(key) for name, key in LOG_COLUMNS.items()} for entry in entries]
    if is_first_process():
        _save_adapter(trainer, job, log)
    last = log[-max(1, len(log) // 10) :]

    def mean(name: str) -> float:
        return sum(entry[name] for entry in last) / len(last)

    return RunResult(
        pairs=len(encoded.pairs),
        steps=trainer.state.global_step,
        first_loss=log[0]["loss"],
        last_loss=mean("loss"),
        reward_margin=mean("reward_margin"),
        reward_accuracy=mean("reward_accuracy"),
        train_s=time.monotonic() - started,
        refused=encoded.refused,
        warnings=trainer.progress.warnings,
        curves={name: thinned([entry[key] for entry in entries]) for name, key in CURVES.items()},
        cut_answers=encoded.cut,
    )


def thinned(values: Sequence[float], points: int = CURVE_POINTS) -> list[float]:
    """Return at most `points` means over runs of equally many values. The last run may be shorter.

    Example: 500 values and 200 points give 167 means over 3 values, the last over 2.
    """
    run = -(-len(values) // points)
    parts = (values[start : start + run] for start in range(0, len(values), max(run, 1)))
    return [round(sum(part) / len(part), 5) for part in parts]


class Prepared(NamedTuple):
    """A training that is ready to start.

    Attributes:
        trainer: The trainer.
        encoded: The encoded pairs, with their reference.
        encode: Encodes further pairs for this trainer.
    """

    trainer: VideoDPOTrainer
    encoded: EncodedPairs
    encode: Callable[[pl.DataFrame], EncodedPairs]


def prepare(job: Job) -> Prepared:
    """Load the model, encode the pairs and their clips, and compute or read the reference.

    Raises:
        AlignmentError: If no pair is left to train on.
    """
    from transformers import set_seed

    from safevid_core.alignment.encoding import encode_pairs
    from safevid_core.alignment.progress import ProgressCallback
    from safevid_core.alignment.trainer import (
        VideoDPOTrainer,
        adapter_config,
        freeze_all_but,
        training_arguments,
    )
    from safevid_core.models.video_chat import load_local

    settings = job.settings
    model, processor = load_local(_as_trained(settings))
    freeze_all_but(model, settings)
    rows, reference_rows = pl.read_parquet(job.pairs), pl.read_parquet(job.reference_pairs or job.pairs)
    store = _clip_store(job, model, reference_rows)

    stored_frames = job.stored_frames

    def encode(rows: pl.DataFrame) -> EncodedPairs:
        shows = job.policy.shows_video
        return encode_pairs(rows, settings, processor, store, show_video=shows, stored=stored_frames)

    encoded = encode(rows)
    if not encoded.pairs:
        reason = next((why for _, why in encoded.refused.values()), "there were none")
        raise AlignmentError(f"no pair is left to train on; the first refused: {reason}")
    set_seed(job.seed)
    trainer = VideoDPOTrainer(
        model=model,
        args=training_arguments(settings, job.folder, len(encoded.pairs), job.seed, job.policy.objective),
        data_collator=step_collator(settings, encoded.pairs, store, model, processor),
        pairs_a_tree=settings.pairs_a_tree,
        processing_class=processor,
        peft_config=adapter_config(settings),
        progress=ProgressCallback(job.folder, settings.save_minutes),
    )
    _give_reference(trainer, job, encoded.pairs, lambda: encode(reference_rows).pairs)
    return Prepared(trainer, encoded, encode)


def _as_trained(settings: AlignmentSettings) -> VideoModel:
    """Return the base model of the training: in four bits for `qlora`, else as in the settings.

    Raises:
        AlignmentError: If bitsandbytes is needed and not installed.
    """
    if settings.finetuning != "qlora":
        return settings.base
    if find_spec("bitsandbytes") is None:
        raise AlignmentError(
            "alignment.finetuning: qlora needs bitsandbytes, which is not installed; install it "
            "(`uv pip install bitsandbytes`) or set it to lora"
        )
    return settings.base.model_copy(update={"quantisation": "4bit"})


def step_collator(
    settings: AlignmentSettings,
    pairs: Sequence[EncodedPair],
    store: ClipStore,
    model: PreTrainedModel,
    processor: Any,
) -> StepCollator:
    """Return the collator that packs these pairs for this model by the settings."""
    from safevid_core.alignment.collator import ForestCollator, StepCollator, VideoPreferenceCollator
    from safevid_core.models.rope import trunk_positions

    return StepCollator(
        pairs,
        VideoPreferenceCollator(pairs, store, processor.tokenizer.pad_token_id),
        ForestCollator(store, partial(trunk_positions, model.model)),
        settings.packing,
        settings.micro_batch_size,
        settings.pass_tokens,
    )


def _clip_store(job: Job, model: PreTrainedModel, rows: pl.DataFrame) -> ClipStore:
    from safevid_core.alignment.clips import FeatureStore, NoClips, open_clip_store
    from safevid_core.alignment.vision_features import FeatureFolder, StoredFeatures

    if not job.policy.shows_video:
        return NoClips()
    projected = not job.settings.train_projector
    store = open_clip_store(model, job.settings.base.family, projected=projected)
    if job.features is None or not job.settings.store_features or not isinstance(store, FeatureStore):
        return store
    clips = rows.select("media_sha256", "start_s", "end_s").n_unique()
    folder = FeatureFolder(job.features)
    return StoredFeatures(model, job.settings.base.family, folder, clips, projected=projected)


def _give_reference(
    trainer: VideoDPOTrainer,
    job: Job,
    pairs: Sequence[EncodedPair],
    everyone: Callable[[], Sequence[EncodedPair]],
) -> None:
    """Set the reference of the pairs from the job's file, or compute it and write the file.

    The function waits while another run computes the same file.

    Args:
        pairs: The pairs of this run.
        everyone: Returns all pairs whose reference goes into the file.
    """
    file = job.reference
    if file is None:
        trainer.store_reference(pairs)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_suffix(".lock")):
        if not on_first_process(read_reference(file, pairs)):
            computed = everyone()
            trainer.store_reference(computed)
            if is_first_process():
                write_reference(file, computed)
        wait_for_all()
    if not read_reference(file, pairs):
        raise AlignmentError(f"{file} lacks the reference of some pairs; remove it and run again")
    trainer.precompute_ref_logps = True


def _make_deterministic(job: Job) -> None:
    import torch

    if job.settings.threads is not None:
        torch.set_num_threads(job.settings.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # slow, and it only helps to find bugs


def _last_whole_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint, or None. Incomplete checkpoints are removed."""
    from safevid_core.alignment.progress import WHOLE_MARK

    if not is_first_process():
        return None
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / WHOLE_MARK).exists():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return str(max(complete, key=lambda path: int(path.name.split("-")[1]))) if complete else None


def _save_adapter(trainer: VideoDPOTrainer, job: Job, log: list[dict[str, Any]]) -> None:
    """Write the adapter, or all weights with `finetuning: full`, and the training log to `adapter/`.

    The adapter names a local base by the name of its folder only. The bytes of the adapter are its address in
    the lake, so they must not depend on a path.
    """
    shutil.rmtree(job.adapter, ignore_errors=True)
    _save_weights(trainer, job)
    lines = [json.dumps(entry) + "\n" for entry in log]
    (job.adapter / LOG_NAME).write_text("".join(lines))


def _save_weights(trainer: VideoDPOTrainer, job: Job) -> None:
    import torch

    from safevid_core.models.video_chat import load_local

    settings = job.settings
    if settings.finetuning == "full":
        model = trainer.model.to(getattr(torch, settings.base.dtype))
        model.save_pretrained(job.adapter)
        trainer.processing_class.save_pretrained(job.adapter)
        return
    trainer.model.save_pretrained(job.adapter, save_embedding_layers=False)
    config_file = job.adapter / "adapter_config.json"
    config = json.loads(config_file.read_text())
    base = Path(job.settings.base.path)
    config["base_model_name_or_path"] = base.name if base.is_dir() else job.settings.base.path
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True))
    if settings.merge:
        # With qlora the adapter is merged into the unquantised weights of the base.
        quantised = settings.finetuning == "qlora"
        merged = load_local(settings.base, job.adapter)[0] if quantised else trainer.model.merge_and_unload()
        merged.save_pretrained(job.adapter / MERGED_NAME)
        trainer.processing_class.save_pretrained(job.adapter / MERGED_NAME)


@contextlib.contextmanager
def _sole_owner(folder: Path) -> Iterator[None]:
    """Wait while another process trains in this folder. A process whose parent was killed may still do so."""
    with _locked(folder / "owner.lock") as file:
        if file is not None:
            file.write(str(os.getpid()))
            file.flush()
        yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str] | None]:
    """Hold an exclusive lock on a file. With several processes the first one holds it for all."""
    if not is_first_process():
        yield None
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
