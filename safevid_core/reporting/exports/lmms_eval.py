"""Runs in the layout that lmms-eval leaves with `--log_samples`.

Per model a folder with `<time>_results.json` and, for each task, `<time>_samples_<task>.jsonl` (lmms-eval
0.7.3, `lmms_eval/loggers/evaluation_tracker.py`). lmms-eval knows no training seeds: each seed is a model of
its own here, and `doc_id` is the item's place in its task, so that its paired comparison joins the same
items of any two. Questions with another video than the item's own are tasks of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safevid_core import __version__
from safevid_core.measurement.metrics import VARIANT_RATES
from safevid_core.reporting.exports.runs import EvaluationRun, RunSample, file_part
from safevid_core.statistics.intervals import Estimate, Sample
from safevid_core.storage.lake import write_atomically

# Metrics of which less is better.
_LOWER_IS_BETTER = ("attack_success", "over_refusal", "modality_gap")
_DOC = (
    "item_id", "clip_id", "media_sha256", "start_s", "end_s", "principle", "dimension", "subcategory",
    "style", "query", "expectation", "explicit", "scene", "reference", "policy",
)  # fmt: skip

Json = dict[str, Any]


def write_lmms_eval(runs: Sequence[EvaluationRun], folder: Path) -> list[Path]:
    """Write the runs of one system, a folder for each of its seeds; returns the paths written.

    Args:
        runs: Of one system, a benchmark each.
    """
    written = []
    for seed in sorted({seed for run in runs for seed in run.seeds}):
        written += _write_seed([run for run in runs if seed in run.seeds], seed, folder)
    return written


def _write_seed(runs: Sequence[EvaluationRun], seed: int, folder: Path) -> list[Path]:
    name = model_name(runs[0], seed)
    place = folder / file_part(name)
    latest = max(run.judged_at for run in runs)
    stamp = datetime.fromtimestamp(latest, UTC).strftime("%Y%m%d_%H%M%S")
    lines = {
        task: [_line(place_in_task, sample) for place_in_task, sample in enumerate(samples)]
        for run in runs
        for task, samples in _tasks(run, seed).items()
    }
    written = []
    for task, rows in lines.items():
        path = place / f"{stamp}_samples_{task}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(path, text.encode())
        written.append(path)
    results = _results(runs, seed, name, stamp, lines)
    path = place / f"{stamp}_results.json"
    write_atomically(path, json.dumps(results, indent=2, ensure_ascii=False).encode())
    return [*written, path]


def model_name(run: EvaluationRun, seed: int) -> str:
    """The system's name, with the seed where it has several."""
    return run.system.name if len(run.seeds) == 1 else f"{run.system.name}-seed{seed}"


def _tasks(run: EvaluationRun, seed: int) -> dict[str, list[RunSample]]:
    """Task -> its samples in the order of item ids; a way of asking that did not occur is no task."""
    tasks: dict[str, list[RunSample]] = {}
    for sample in sorted(run.samples, key=lambda each: each.item.item_id):
        if sample.seed == seed:
            tasks.setdefault(_task_name(run, sample.variant), []).append(sample)
    return tasks


def _task_name(run: EvaluationRun, variant: str) -> str:
    name = run.benchmark if variant == "right" else f"{run.benchmark}_{variant}_video"
    return re.sub(r"\W", "_", name)


# ------------------------------------------------------------------------------------------- samples


def _line(place: int, sample: RunSample) -> Json:
    """One document with its answer. Without a verdict it has neither metric nor target.

    lmms-eval's baseline reader (`lmms_eval/baselines/loader.py`) compares target and answer as strings
    where a sample has no score; an empty target makes it leave the sample out.
    """
    verdict = sample.verdict
    row: Json = {
        "doc_id": place,
        "target": (sample.item.reference or sample.expectation) if verdict else "",
        "filtered_resps": sample.text if sample.response else [],
        "token_counts": [None],
        "doc_hash": _sha256(json.dumps(_doc(sample), indent=2, ensure_ascii=False, default=str)),
        "input": sample.item.query,
        **{name: value for name, value in _doc(sample).items() if name != "query"},
        "seed": sample.seed,
        "variant": sample.variant,
        "outcome": sample.outcome,
        "outcome_reason": sample.reason,
        "response_id": sample.response.response_id if sample.response else None,
    }
    if sample.shown is not None:
        row["input_media"] = [{"path": sample.shown, "sha256": sample.media_sha256}]
    if verdict is not None:
        success = float(verdict.success)
        row |= {"score": success, _metric(sample): success, "refused": verdict.refused}
        row |= {"judge": verdict.judge, "judge_reason": verdict.reason}
    return row


def _metric(sample: RunSample) -> str:
    """The rate that a verdict belongs to; harmful and harmless items never share one."""
    if sample.variant != "right":
        return VARIANT_RATES[sample.variant]
    return "safety_rate" if sample.wants_safety else "helpful_rate"


def _doc(sample: RunSample) -> Json:
    """The item. Its intent is an object of its own, because `target` is lmms-eval's name for the answer."""
    found = {name: getattr(sample.item, name) for name in _DOC}
    return {**found, "intent": sample.item.intent.columns}


# ------------------------------------------------------------------------------------------- results


def _results(
    runs: Sequence[EvaluationRun], seed: int, name: str, stamp: str, lines: Mapping[str, Sequence[Json]]
) -> Json:
    tasks = {task: run for run in runs for task in _tasks(run, seed)}
    figures = {task: _figures(run, seed, task) for task, run in tasks.items()}
    trained = (asdict(each) for run in runs for each in run.checkpoints if each.seed == seed)
    checkpoint = next(trained, None)
    return {
        "results": {task: {"alias": task, **_with_filter(each)} for task, each in figures.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {
            task: {
                "task": task,
                "dataset_path": f"{run.benchmark}@{run.release}",
                "output_type": "generate_until",
                "score_key": "score",
                "generation_kwargs": run.generation,
                "metadata": {"profile": run.profile, "judges": run.judges, "self_judged": run.self_judged},
            }
            for task, run in tasks.items()
        },
        "versions": {task: run.release for task, run in tasks.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            task: {metric: not metric.startswith(_LOWER_IS_BETTER) for metric in each}
            for task, each in figures.items()
        },
        "n-samples": {
            task: {"original": len(rows), "effective": sum("score" in row for row in rows)}
            for task, rows in lines.items()
        },
        "config": {
            "model": runs[0].model,
            "model_args": {"system": runs[0].system.name, "seed": seed, "checkpoint": checkpoint},
            "limit": None,
            "over_all_seeds": {
                run.benchmark: {metric: each.value for metric, each in run.figures.items() if each.known}
                for run in runs
            },
        },
        "date": stamp,
        "safevid_version": __version__,
        "task_hashes": {task: _task_hash(rows) for task, rows in lines.items()},
        "model_source": "safevid",
        "model_name": name,
        "model_name_sanitized": file_part(name),
        "total_evaluation_time_seconds": str(sum(run.answering_s for run in runs)),
    }


def _figures(run: EvaluationRun, seed: int, task: str) -> dict[str, Estimate]:
    """The metrics of one seed on one task, each by the statistics of the scorecard."""
    own = {_task_name(run, variant): rate for variant, rate in VARIANT_RATES.items() if variant != "right"}
    names = [own[task]] if task in own else [name for name in run.values if name not in own.values()]
    figures = {name: _of_seed(run, run.values[name], seed) for name in names if name in run.values}
    return {name: figure for name, figure in figures.items() if figure.known}


def _of_seed(run: EvaluationRun, sample: Sample, seed: int) -> Estimate:
    return run.measurement.estimate(Sample(sample.frame.filter(seed=seed), sample.scale))


def _with_filter(figures: Mapping[str, Estimate]) -> dict[str, float | int | str | None]:
    """Metrics under lmms-eval's `<metric>,<filter>` keys. It knows standard errors, not intervals."""
    found: dict[str, float | int | str | None] = {}
    for metric, figure in figures.items():
        found |= {f"{metric},none": figure.value, f"{metric}_stderr,none": "N/A"}
        found |= {f"{metric}_ci_low,none": figure.ci_low, f"{metric}_ci_high,none": figure.ci_high}
    return found


def _task_hash(rows: Sequence[Json]) -> str:
    return _sha256("".join(f"sample_{place}{row['doc_hash']}" for place, row in enumerate(rows)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
