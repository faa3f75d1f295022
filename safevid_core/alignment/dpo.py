"""The stage `dpo_checkpoint`: trains each policy at each data scale, one adapter for each seed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.alignment.card import model_card
from safevid_core.alignment.data_scale import nested_sample
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job, RunResult, with_places
from safevid_core.alignment.perturbations import CLIP_COLUMNS, perturb
from safevid_core.alignment.training_pairs import TrainingPairs, read_training_pairs
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import (
    CORPUS_SPLIT,
    DPO_CHECKPOINT,
    LOSSY_PAIRS,
    OWN_STYLE_ANSWERS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    RELEASE,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    SCENE_ASSIGNMENTS,
    VIDEO_CORPUS,
)
from safevid_core.corpus.trained import write_training_clips
from safevid_core.execution.children import end, without_interrupts
from safevid_core.models.video_chat import GENERATION, checkpoint_identity, model_files
from safevid_core.models.video_model import release_models
from safevid_core.settings import AlignmentSettings, Policy, Settings, VideoModel
from safevid_core.stages.partitions import BY_POLICY_AND_SCALE
from safevid_core.stages.stage import ExpectedRows, Forecast, Makers, Needs, Plan, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash, stage_fingerprint
from safevid_core.video.decoding import DECODING_REVISION

_TRAINED_ON = (
    "pair_id", "release", "clip_id", "twin_group", "scene", "subcategory", "media_sha256", "start_s", "end_s",
    "prompt", "chosen", "rejected",
)  # fmt: skip
# Settings that change the speed of a run and not its result.
_WITHOUT_EFFECT = {
    "policies", "data_scales", "workers", "threads", "save_steps", "save_minutes", "processes",
    "accelerate_config", "gradient_checkpointing", "report_to", "keep_memory",
}  # fmt: skip
# Settings that change a reference log-probability, if only in its last bits.
_REFERENCE_SETTINGS = {
    "packing", "pass_tokens", "micro_batch_size", "max_length", "max_response_tokens", "store_features",
    "finetuning", "train_projector",
}  # fmt: skip
_BASE_WITHOUT_EFFECT = {
    "path", "revision", "batch_size", "threads", "max_new_tokens", "temperature",
    "repetition_penalty", "api_key_env",
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """The program that trains.

    Attributes:
        module: A module with the command line of :mod:`~safevid_core.alignment.train`.
        environment: Environment variables to add to those of this process.
    """

    module: str = "safevid_core.alignment.train"
    environment: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def plain_program() -> Iterator[Program]:
    """Yield the default program, `safevid_core.alignment.train`."""
    yield Program()


# Yields the program while it runs. It is not called if there is nothing to train.
OpenProgram = Callable[[], contextlib.AbstractContextManager[Program]]


def plan_dpo_checkpoint(tools: Tools, partition: str) -> Plan:
    """Plan to align a policy on its share of the pairs, once for each seed.

    A killed run resumes: a finished seed is not trained again, and an unfinished one continues from its last
    checkpoint.

    Args:
        tools: Settings and lake.
        partition: The policy and its data scale, above 0 and at most 1. Example: `pocket@0.1`.

    Raises:
        AlignmentError: If the policy is unknown or not trained, or if no pair is left to train on.
    """
    settings, lake = tools.settings, tools.lake
    policy, scale = BY_POLICY_AND_SCALE.values(partition).values()
    base = _base_identity(settings.alignment.base)
    training = _plan(settings, lake, partial(read_training_pairs, lake), base, policy, float(scale))

    def make(pair_ids: Sequence[str]) -> StageRows:
        with trained_together(tools, {partition: plan}) as makers:
            return makers[partition]()

    def on_fresh() -> None:
        shutil.rmtree(training.folder, ignore_errors=True)

    ids = [*training.source.rows["pair_id"], *training.source.held_out]
    plan = Plan(training.inputs, ids, make, on_fresh=on_fresh, detail=training)
    return plan


@contextlib.contextmanager
def trained_together(tools: Tools, plans: Mapping[str, Plan]) -> Iterator[Makers]:
    """Train several partitions. All their seeds share `alignment.workers` processes.

    Args:
        tools: Settings, lake and `training_program`. None there means :func:`plain_program`.
        plans: Partition -> its plan.

    Yields:
        Partition -> a function that waits for its seeds and returns its rows.

    Raises:
        AlignmentError: From such a function, if its training fails.
    """
    trainings: dict[str, _Plan] = {partition: plan.detail for partition, plan in plans.items()}
    for training in trainings.values():
        training.write_jobs(tools.lake)
    jobs = [job for training in trainings.values() for job in training.jobs]
    with _launched(jobs, tools.settings.alignment, tools.training_program or plain_program) as launch:
        yield {
            partition: partial(_collect, tools.settings, tools.lake, training, launch)
            for partition, training in trainings.items()
        }


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    policy = BY_POLICY_AND_SCALE.values(partition)["policy"]
    return Forecast(len(tools.settings.alignment.policies[policy].seeds))


STAGE = Stage(
    DPO_CHECKPOINT,
    "alignment",
    "LoRA adapters aligned by DPO (beta 0.1, sigmoid, one epoch, vision tower frozen), one for each seed.",
    plan_dpo_checkpoint,
    reads=(
        RELEASE.name,
        OWN_STYLE_ANSWERS.name,
        PAIRS_WITHOUT_DESCRIPTIONS.name,
        LOSSY_PAIRS.name,
        # Clips of a benchmark are held out of the training.
        SAFEVIDBENCH_BASE.name,
        SAFEVIDBENCH_CHALLENGE.name,
        VIDEO_CORPUS.name,
        CORPUS_SPLIT.name,
        SCENE_ASSIGNMENTS.name,
    ),
    partitions=BY_POLICY_AND_SCALE,
    wanted=lambda stage, settings: [partition_name(policy, 1.0) for policy in settings.alignment.trained],
    forecast=_forecast,
    optional=frozenset(
        {SAFEVIDBENCH_BASE.name, SAFEVIDBENCH_CHALLENGE.name, CORPUS_SPLIT.name, SCENE_ASSIGNMENTS.name}
    ),
    watches=lambda settings: model_files(settings.alignment.base),
    needs=Needs(("pytorch",), pool="training"),
    shared_workers=trained_together,
)


def partition_name(policy: str, data_scale: float) -> str:
    """Return the partition of a policy at a data scale, which is also the name of the trained system.

    Example: `pocket@0.1`.
    """
    return f"{policy}@{data_scale:g}"


def read_training_log(lake: Lake, checkpoint: str) -> pl.DataFrame:
    """Return loss, rewards and log-probabilities by step.

    Args:
        checkpoint: Value of the column `checkpoint` of the stage's table.
    """
    return pl.read_ndjson(lake.local_directory(checkpoint) / "training_log.jsonl")


@dataclass(frozen=True)
class _Plan:
    """The training of one partition.

    Attributes:
        share: Share of `source` that is sampled.
        inputs: The stage's inputs, which enter its fingerprint.
        folder: Working folder of the runs.
        source: All pairs before sampling.
        sampled: Ids of the sampled pairs.
        pairs: The sampled pairs that have a chosen response, perturbed for a control run.
        reference_pairs: The pairs whose reference is computed in one pass. Without permuted videos or
            shuffled labels these are the pairs of the largest data scale, whichever scale is trained first.
        jobs: One for each seed.
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

    def write_jobs(self, lake: Lake) -> None:
        """Write what the training process reads; the pairs with the places of their videos as of now."""
        for job in self.jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            job.write()
        with_places(self.pairs, lake.media).write_parquet(self.folder / "pairs.parquet")
        with_places(self.reference_pairs, lake.media).write_parquet(self.folder / "reference_pairs.parquet")


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
        count = len(source.held_out)
        held_out = f" except {count} that a benchmark or the split validation holds out" if count else ""
        raise AlignmentError(f"policy {name}: {source.made_by} holds no pair{held_out}; make it first")
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
    folder = lake.local_path("training", partition, fingerprint)
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
            features=lake.local_path("features", features),
            reference=lake.local_path("references", f"{reference}.parquet"),
            reference_pairs=folder / "reference_pairs.parquet",
            lake=lake.local_path(),
            frame_cache_gb=lake.frame_cache_gb,
            name=f"{partition} seed {seed}",
        )
        for seed in policy.seeds
    ]
    return _Plan(
        name, policy, data_scale, share, partition, base, inputs, folder, source,
        frozenset(sampled["pair_id"]), pairs, reference_pairs, jobs,
    )  # fmt: skip


def _base_identity(base: VideoModel) -> tuple[str, str]:
    """Return name and revision of the checkpoint to align. A local folder's revision is its content hash."""
    folder = Path(base.path)
    return (folder.name, checkpoint_identity(base)) if folder.is_dir() else (base.path, base.revision)


# Without these glibc returns the memory of each large tensor to the kernel and requests it again, page by
# page. That took 15% of a step of the pocket profile. Other C libraries ignore the variables.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


class _Launch:
    """A running training process and the exit codes of its finished jobs."""

    def __init__(self, process: subprocess.Popen[str] | None) -> None:
        self._process = process
        self._codes: dict[str, int] = {}

    def wait_for(self, job: Job) -> RunResult:
        """Wait until the job has ended and return its result.

        Raises:
            AlignmentError: If its process failed. The message holds the reason that the process wrote.
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
    return f"its process ended with code {code}; see output.txt there, and run again to resume"


def _launcher(settings: AlignmentSettings) -> list[str]:
    """Return the command that runs a module: `python -m` for one process, else `accelerate launch`."""
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
    """Start a process that trains the jobs in their order, `alignment.workers` at a time.

    The process ends with the block. Models that this process has loaded are released first.
    """
    if not jobs:
        yield _Launch(None)
        return
    release_models()
    with open_program() as program:
        command = [*_launcher(settings), program.module]
        command += ["--while-asked", "--workers", str(settings.workers), *(str(job.file) for job in jobs)]
        kept = KEEP_MEMORY if settings.keep_memory else {}
        environment = {**kept, **os.environ, **program.environment}
        pipe = subprocess.PIPE  # when this process ends, standard input closes and the training ends too
        with without_interrupts():
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        with process:
            try:
                yield _Launch(process)
                process.wait()
            except BaseException:
                end(process)
                raise


def _collect(settings: Settings, lake: Lake, plan: _Plan, launch: _Launch) -> StageRows:
    """Wait for a partition's seeds, store their adapters, and return rows and an outcome for each pair."""
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
    """Return the mean rate, the mean share of padding and the peak memory of a run."""
    curves = result.curves
    return {
        "tokens_per_s": round(sum(curves["tokens/s"]) / len(curves["tokens/s"]), 1),
        "padding_share": round(sum(curves["share of padding"]) / len(curves["share of padding"]), 4),
        "peak_memory_gb": max(curves["peak memory, GB"]),
    }


def _keep(settings: Settings, lake: Lake, plan: _Plan, job: Job, result: RunResult) -> dict[str, Any]:
    """Store the finished adapter and its model card in the lake. Return the row of the checkpoint."""
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
    """Return the clips of the pairs that were trained on.

    With permuted videos these are the clips that were shown and the clips that the pairs are about.
    """
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
