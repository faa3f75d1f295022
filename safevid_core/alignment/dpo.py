"""The stage `dpo_checkpoint`: each trained policy at each data scale, one adapter a seed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.alignment.card import model_card
from safevid_core.alignment.data_scale import nested_sample
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job, RunResult
from safevid_core.alignment.perturbations import CLIP_COLUMNS, perturb
from safevid_core.alignment.training_pairs import TrainingPairs, read_training_pairs
from safevid_core.corpus.trained import write_training_clips
from safevid_core.lake import (
    Lake,
    StageReport,
    frame_hash,
    run_stage,
    settings_hash,
    stage_fingerprint,
)
from safevid_core.models.video_chat import GENERATION, checkpoint_identity
from safevid_core.records import (
    DPO_CHECKPOINT,
    Outcome,
    StageRows,
    content_id,
)
from safevid_core.settings import AlignmentSettings, Policy, Settings, VideoModel
from safevid_core.video.decoding import DECODING_REVISION

# What of a pair reaches the training: its path may move, its bytes may not.
_TRAINED_ON = (
    "pair_id", "release", "clip_id", "twin_group", "scene", "subcategory", "media_sha256", "start_s", "end_s",
    "prompt", "chosen", "rejected",
)  # fmt: skip
# Settings that change how fast a run goes or what runs beside it, not what it ends with.
_WITHOUT_EFFECT = {
    "policies", "data_scales", "workers", "threads", "save_steps", "save_minutes", "processes",
    "accelerate_config", "gradient_checkpointing", "report_to",
}  # fmt: skip
# Settings that a reference log-probability depends on, if only in its last bits.
_REFERENCE_SETTINGS = {
    "packing", "pass_tokens", "micro_batch_size", "max_length", "max_answer_tokens", "store_features",
    "finetuning", "train_projector",
}  # fmt: skip
_BASE_WITHOUT_EFFECT = {
    "path", "revision", "batch_size", "threads", "max_new_tokens", "temperature", "api_key_env",
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """What trains: a module that takes the arguments of :mod:`~safevid_core.alignment.train`, and variables
    that it needs beside this process's own."""

    module: str = "safevid_core.alignment.train"
    environment: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def plain_program() -> Iterator[Program]:
    """The core's own."""
    yield Program()


# Gives the program as long as it runs; not called where nothing is to be trained.
OpenProgram = Callable[[], contextlib.AbstractContextManager[Program]]


def make_dpo_checkpoints(
    settings: Settings,
    lake: Lake,
    partitions: Sequence[tuple[str, float]],
    open_program: OpenProgram = plain_program,
) -> list[StageReport]:
    """Align several policies and scales; all their seeds share `alignment.workers` processes.

    Each partition is committed as soon as its seeds are done. What was trained before a death of this
    process is found again: a finished seed is not trained twice, an unfinished one goes on from its last
    checkpoint.

    Args:
        partitions: Names of policies with their data scales, each above 0 and at most 1.
        open_program: What trains. Defaults to the core's own.

    Raises:
        AlignmentError: If a policy is unknown or not trained, no pair is left to train on, or a run fails.
    """
    base = _base_identity(settings.alignment.base)
    read = cache(partial(read_training_pairs, lake))
    plans = [_plan(settings, lake, read, base, name, scale) for name, scale in partitions]
    stale = [plan for plan in plans if not plan.is_current(lake)]
    for plan in stale:
        plan.write_jobs()
    reports, failures = [], []
    jobs = [job for plan in stale for job in plan.jobs]
    with _launched(jobs, settings.alignment, open_program) as launch:
        for plan in plans:
            compute = partial(_collect, settings, lake, plan, launch)
            ids = [*plan.source.rows["pair_id"], *plan.source.held_out]
            try:
                report = run_stage(lake, DPO_CHECKPOINT, plan.partition, plan.inputs, ids, compute)
            except AlignmentError as error:
                failures.append(str(error))  # the other partitions are worth committing
                continue
            shutil.rmtree(plan.folder, ignore_errors=True)
            reports.append(report)
    if failures:
        raise AlignmentError("; ".join(failures))
    return reports


def partition_name(policy: str, data_scale: float) -> str:
    """The partition of a policy at a data scale; also the name of the system that it makes."""
    return f"{policy}@{data_scale:g}"


def read_training_log(lake: Lake, checkpoint: str) -> pl.DataFrame:
    """Loss, rewards and log-probabilities by step, of the run that made a `checkpoint` of the table."""
    return pl.read_ndjson(lake.root / checkpoint / "training_log.jsonl")


@dataclass(frozen=True)
class _Plan:
    """One partition: what it depends on, its pairs, and its jobs, one a seed.

    Attributes:
        source: All pairs, of which the share `share` is sampled; `pairs` are those with a chosen answer.
        reference_pairs: Those whose reference is computed in one pass: of an arm that is not spoiled, the
            pairs of its largest data scale, whichever scale is trained first.
    """

    name: str
    policy: Policy
    data_scale: float
    share: float
    partition: str
    base: tuple[str, str]
    inputs: dict[str, str]
    folder: Path
    source: TrainingPairs
    sampled: frozenset[str]
    pairs: pl.DataFrame
    reference_pairs: pl.DataFrame
    jobs: list[Job] = field(default_factory=list)

    def is_current(self, lake: Lake) -> bool:
        manifest = lake.manifest(DPO_CHECKPOINT.name, self.partition)
        return manifest is not None and manifest.fingerprint == stage_fingerprint(
            lake, DPO_CHECKPOINT, self.inputs
        )

    def write_jobs(self) -> None:
        for job in self.jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            job.write()
        self.pairs.write_parquet(self.folder / "pairs.parquet")
        self.reference_pairs.write_parquet(self.folder / "reference_pairs.parquet")


def _plan(
    settings: Settings,
    lake: Lake,
    read: Callable[[str], TrainingPairs],
    base: tuple[str, str],
    name: str,
    data_scale: float,
) -> _Plan:
    policy = settings.alignment.policies.get(name)
    if policy is None:
        known = ", ".join(sorted(settings.alignment.policies))
        raise AlignmentError(f"policy {name!r} is not in alignment.policies; known: {known}")
    if not policy.is_trained:
        raise AlignmentError(f"policy {name} is not trained (objective none); it has no checkpoint to make")
    source = read(policy.trained_on)
    if source.are_empty:
        kept = f" beside {len(source.held_out)} that a benchmark holds out" if source.held_out else ""
        raise AlignmentError(f"policy {name}: {source.made_by} holds no pair{kept}; make it first")
    share = data_scale * source.share
    base_settings = settings.alignment.base.model_dump(mode="json", exclude=_BASE_WITHOUT_EFFECT)
    inputs = {
        "pairs": frame_hash(source.rows.select(_TRAINED_ON)),
        "base": " ".join(base),
        "base_settings": settings_hash(base_settings),
        "inputs_of_model": f"{GENERATION} frames/{DECODING_REVISION}",
        "alignment": settings_hash(
            settings.alignment.model_dump(mode="json", exclude={*_WITHOUT_EFFECT, "base"})
        ),
        "policy": settings_hash(name, policy, share),
        "perturbation_seed": str(settings.seed if policy.perturbation != "none" else None),
    }
    partition = partition_name(name, data_scale)
    fingerprint = stage_fingerprint(lake, DPO_CHECKPOINT, inputs)
    folder = lake.root / "training" / partition / fingerprint
    sampled = nested_sample(source.rows, share)
    pairs = perturb(sampled.drop_nulls("chosen"), policy.perturbation, settings.seed)
    reference_pairs = pairs
    if policy.perturbation in ("none", "text_only"):
        largest = max(data_scale, *settings.alignment.data_scales) * source.share
        reference_pairs = nested_sample(source.rows, largest).drop_nulls("chosen")
    run = {name: inputs[name] for name in ("base", "base_settings", "inputs_of_model")}
    passes = settings.alignment.model_dump(mode="json", include=_REFERENCE_SETTINGS)
    features = settings_hash(run, *(["before the projector"] if settings.alignment.train_projector else []))
    reference = settings_hash(
        run, passes, policy.shows_video, frame_hash(reference_pairs.select(_TRAINED_ON))
    )
    jobs = [
        Job(
            folder / f"seed-{seed}",
            folder / "pairs.parquet",
            seed,
            settings.alignment,
            policy,
            features=lake.root / "features" / features,
            reference=lake.root / "references" / f"{reference}.parquet",
            reference_pairs=folder / "reference_pairs.parquet",
            name=f"{partition} seed {seed}",
        )
        for seed in policy.seeds
    ]
    return _Plan(
        name, policy, data_scale, share, partition, base, inputs, folder, source,
        frozenset(sampled["pair_id"]), pairs, reference_pairs, jobs,
    )  # fmt: skip


def _base_identity(base: VideoModel) -> tuple[str, str]:
    """Name and revision of the checkpoint to align; a local folder is known by its content hash."""
    folder = Path(base.path)
    return (folder.name, checkpoint_identity(base)) if folder.is_dir() else (base.path, base.revision)


# glibc hands each large tensor back to the kernel and asks for it again, page by page: measured at 15%
# of a pocket step. Other C libraries ignore these.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


class _Launch:
    """A running `train` process and the exit codes of the jobs that it has finished."""

    def __init__(self, process: subprocess.Popen[str] | None) -> None:
        self._process = process
        self._codes: dict[str, int] = {}

    def wait_for(self, job: Job) -> RunResult:
        """The job's result, when it is there.

        Raises:
            AlignmentError: If its process failed, with the reason that it left.
        """
        while str(job.file) not in self._codes:
            line = self._process.stdout.readline() if self._process and self._process.stdout else ""
            if not line:
                raise AlignmentError(f"training of {job.folder} ended early; see output.txt there")
            if line.startswith('{"job"'):
                report = json.loads(line)
                self._codes[report["job"]] = report["code"]
        result = RunResult.read(job.folder)
        if result is None:
            raise AlignmentError(
                f"training of {job.folder} failed: {_reason(job, self._codes[str(job.file)])}"
            )
        return result


def _reason(job: Job, code: int) -> str:
    with contextlib.suppress(FileNotFoundError, IndexError):
        return (job.folder / "error.txt").read_text().splitlines()[0]
    return f"its process ended with {code}; see output.txt there, and run again to go on"


def _launcher(settings: AlignmentSettings) -> list[str]:
    """The command that runs a module: Python's own, or `accelerate launch`."""
    if settings.processes == 1:
        return [sys.executable, "-m"]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--num_processes", str(settings.processes)]
    if settings.accelerate_config is not None:
        command += ["--config_file", str(settings.accelerate_config)]
    if settings.base.device == "cpu":
        command += ["--cpu"]
    return [*command, "--module"]


@contextlib.contextmanager
def _launched(
    jobs: Sequence[Job], settings: AlignmentSettings, open_program: OpenProgram
) -> Iterator[_Launch]:
    """A process that trains the jobs in their order, so many at a time; ended with the block."""
    if not jobs:
        yield _Launch(None)
        return
    with open_program() as program:
        command = [*_launcher(settings), program.module]
        command += ["--while-asked", "--workers", str(settings.workers), *(str(job.file) for job in jobs)]
        environment = {**KEEP_MEMORY, **os.environ, **program.environment}
        pipe = subprocess.PIPE  # standard input closes with this process, and the training ends
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
            try:
                yield _Launch(process)
                process.wait()
            except BaseException:
                process.terminate()
                raise


def _collect(settings: Settings, lake: Lake, plan: _Plan, launch: _Launch) -> StageRows:
    """Wait for a partition's seeds, keep their adapters, and account for every pair."""
    results = [launch.wait_for(job) for job in plan.jobs]
    rows = [_keep(settings, lake, plan, job, result) for job, result in zip(plan.jobs, results, strict=True)]
    info = {
        "calls": 0,
        "cached_calls": 0,
        "cost_usd": 0.0,
        "train_s": {str(job.seed): round(r.train_s, 1) for job, r in zip(plan.jobs, results, strict=True)},
        "refused": len(results[0].refused),
        "held_out": len(plan.source.held_out),
        "cut_answers": results[0].cut_answers,
        "warnings": _warnings(plan, results),
        **_rates(results[0]),
        "curves": results[0].curves,
    }
    return StageRows(DPO_CHECKPOINT.frame(rows), _outcomes(plan, results[0]), info)


def _warnings(plan: _Plan, results: Sequence[RunResult]) -> list[str]:
    held_out = plan.source.held_out
    found = (
        [f"{len(held_out)} pairs are held out, first: {next(iter(held_out.values()))}"] if held_out else []
    )
    return found + [
        f"{job.name}: {text}"
        for job, result in zip(plan.jobs, results, strict=True)
        for text in result.warnings
    ]


def _rates(result: RunResult) -> dict[str, float]:
    """The run's means and peaks."""
    curves = result.curves
    return {
        "tokens_per_s": round(sum(curves["tokens/s"]) / len(curves["tokens/s"]), 1),
        "padding_share": round(sum(curves["share of padding"]) / len(curves["share of padding"]), 4),
        "peak_memory_gb": max(curves["peak memory, GB"]),
    }


def _keep(settings: Settings, lake: Lake, plan: _Plan, job: Job, result: RunResult) -> dict[str, Any]:
    """The finished adapter with its card into the lake; the row that names it."""
    card = model_card(
        plan.name, lake.profile, plan.source.release, plan.base, plan.policy, plan.data_scale, job.seed,
        settings.alignment, result,
    )  # fmt: skip
    with lake.new_directory("checkpoints") as scratch:
        shutil.copytree(job.adapter, scratch, dirs_exist_ok=True)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        write_training_clips(lake, scratch, _trained_pairs(plan, result))
        checkpoint = lake.keep("checkpoints", scratch)
    return {
        "checkpoint_id": content_id(plan.partition, job.seed, checkpoint),
        "policy": plan.name,
        "data_scale": plan.data_scale,
        "seed": job.seed,
        "perturbation": plan.policy.perturbation,
        "objective": plan.policy.objective,
        "trained_on": plan.policy.trained_on,
        "checkpoint": checkpoint,
        "base": plan.base[0],
        "base_revision": plan.base[1],
        "release": plan.source.release,
        "pairs": result.pairs,
        "steps": result.steps,
        "first_loss": result.first_loss,
        "last_loss": result.last_loss,
        "reward_margin": result.reward_margin,
        "reward_accuracy": result.reward_accuracy,
        "train_s": result.train_s,
    }


def _trained_pairs(plan: _Plan, result: RunResult) -> pl.DataFrame:
    """The pairs that were trained on, under the clips that they are about and those that were shown."""
    used = plan.pairs.filter(~pl.col("pair_id").is_in(list(result.refused)))
    own = plan.source.rows.filter(pl.col("pair_id").is_in(used["pair_id"].implode()))
    return pl.concat([frame.select(CLIP_COLUMNS) for frame in (used, own)])


def _outcomes(plan: _Plan, result: RunResult) -> list[tuple[str, Outcome, str]]:
    trained = set(plan.pairs["pair_id"])
    outside: tuple[Outcome, str] = ("filtered", f"outside the {plan.share:.0%} sample of the release")
    if plan.source.share < 1:
        outside = ("filtered", f"outside the sample that is {plan.data_scale:.0%} of the release in number")
    lacking: tuple[Outcome, str] = ("filtered", f"no chosen answer in {plan.source.made_by}")
    used: tuple[Outcome, str] = ("ok", "")
    found: list[tuple[str, Outcome, str]] = []
    for pair_id in plan.source.rows["pair_id"]:
        if pair_id in trained:
            outcome, reason = result.refused.get(pair_id, used)
        else:
            outcome, reason = lacking if pair_id in plan.sampled else outside
        found.append((pair_id, outcome, reason))
    return found + [(pair_id, "filtered", reason) for pair_id, reason in plan.source.held_out.items()]
