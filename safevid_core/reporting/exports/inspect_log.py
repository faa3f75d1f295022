"""Runs as logs of inspect_ai (`.eval`), read by its own viewer and `read_eval_log`.

The format (log version 2, read in inspect_ai 0.3.285, `inspect_ai/log/_log.py`) is a zip of JSON files:
`header.json`, `samples/<id>_epoch_<n>.json`, `summaries.json`, `reductions.json`. An epoch is a training
seed. Items that want safety and items that want help have a score each, so that no mean mixes them. What
has no verdict has the value NaN, which inspect_ai leaves out of every mean.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safevid_core import __version__
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.measurement.metrics import VARIANT_RATES
from safevid_core.reporting.exports.runs import EvaluationRun, RunSample, file_part
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import write_atomically

_VERSION = 2
SAFETY, HELPFULNESS = "safety", "helpfulness"
# Verdicts that enter no rate: an answer with another video whose fellow has no verdict, for one.
BESIDE = "beside_the_rates"
# Figures that are no mean over samples' scores.
CONTRASTS = "contrasts"

_OF_SCORE = {SAFETY: ("safety_rate", "attack_success"), HELPFULNESS: ("helpful_rate", "over_refusal")}
_VIDEO_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mpeg": "mpeg", ".mpg": "mpeg"}
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_ITEM_METADATA = (
    "principle", "dimension", "subcategory", "style", *INTENT_COLUMNS, "policy", "explicit", "scene",
    "clip_id", "twin_group", "media_sha256", "start_s", "end_s",
)  # fmt: skip
# What inspect_ai keeps of long values in a summary (`inspect_ai/log/_util.py`).
_INPUT_LENGTH, _TEXT_LENGTH = 5120, 1024
# Every member carries this time, so that the same run gives the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Json = dict[str, Any]


def write_inspect_log(run: EvaluationRun, folder: Path) -> Path:
    """Write one run as `<time>_<benchmark>_<system>_<id>.eval`; returns its path."""
    parts = (_time(run.judged_at).replace(":", "-"), run.benchmark, run.system.name, _task_id(run))
    path = folder / ("_".join(file_part(part) for part in parts) + ".eval")
    write_atomically(path, inspect_log(run))
    return path


def inspect_log(run: EvaluationRun) -> bytes:
    """The bytes of the zip."""
    samples = [_sample(run, sample) for sample in run.samples]
    start = {"version": _VERSION, "eval": _spec(run), "plan": _plan(run)}
    header = {
        "version": _VERSION,
        "status": "success",
        "eval": start["eval"],
        "plan": start["plan"],
        "results": _results(run, samples),
        "stats": _stats(run),
    }
    files = {
        "_journal/start.json": start,
        **{f"samples/{each['id']}_epoch_{each['epoch']}.json": each for each in samples},
        "summaries.json": [_summary(each) for each in samples],
        "reductions.json": _reductions(run, samples),
        "header.json": header,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            # NaN goes in as the constant that inspect_ai writes itself, not as null.
            archive.writestr(member, json.dumps(content, ensure_ascii=False))
    return buffer.getvalue()


# -------------------------------------------------------------------------------------------- header


def _spec(run: EvaluationRun) -> Json:
    """The `eval` of the header: what was asked of whom, and who judged."""
    ids = list(dict.fromkeys(_id(sample) for sample in run.samples))
    asked = {"benchmark": run.benchmark, "release": run.release, "seeds": run.seeds, **run.generation}
    return {
        "eval_id": content_id("eval", run.run_id, run.benchmark, run.system.name),
        "run_id": content_id("run", run.run_id),
        "created": _time(run.judged_at),
        "task": run.benchmark,
        "task_id": _task_id(run),
        "task_version": 0,  # older readers take no text; the release is in `task_args`
        "task_args": asked,
        "task_args_passed": asked,
        "dataset": {
            "name": run.benchmark,
            "location": f"{run.benchmark}@{run.release}",
            "samples": len(ids),
            "sample_ids": ids,
            "shuffled": False,
        },
        "model": f"safevid/{run.system.name}",
        "model_generate_config": {
            name: value
            for name, value in (
                ("temperature", run.generation.get("temperature")),
                ("max_tokens", run.generation.get("max_new_tokens")),
            )
            if value is not None
        },
        "model_args": {
            "model": run.model,
            "policy": run.system.policy,
            "data_scale": run.system.data_scale,
            "checkpoints": [asdict(each) for each in run.checkpoints],
        },
        "config": {"epochs": len(run.seeds)},
        "packages": {"safevid": __version__},
        "scorers": [
            {"name": name, "options": {"judges": run.judges, "identity": run.judge_identity}}
            for name in (SAFETY, HELPFULNESS)
        ],
        "headline_metric": _headline(run),
        "metadata": {
            "profile": run.profile,
            "self_judged": run.self_judged,
            "epochs": {str(epoch): f"training seed {seed}" for epoch, seed in enumerate(run.seeds, 1)},
        },
        "tags": [f"profile={run.profile}"],
    }


def _plan(run: EvaluationRun) -> Json:
    return {"name": "plan", "steps": [{"solver": "safevid/ask", "params": run.generation}], "config": {}}


def _stats(run: EvaluationRun) -> Json:
    began = _time(run.answered_at - run.answering_s)
    return {"started_at": began, "completed_at": _time(run.judged_at), "model_usage": {}}


def _results(run: EvaluationRun, samples: Sequence[Json]) -> Json:
    scored: dict[str, list[Json]] = defaultdict(list)
    for sample in samples:
        for name, score in (sample["scores"] or {}).items():
            scored[name].append(score)
    metrics = _metrics_by_score(run)
    names = [name for name in (SAFETY, HELPFULNESS) if name in scored]
    names += [name for name in sorted({*scored, *metrics}) if name not in names]
    scores = [
        {
            "name": name,
            "scorer": name,
            "reducer": "mean" if len(run.seeds) > 1 and name in scored else None,
            "scored_samples": sum(not math.isnan(score["value"]) for score in scored[name]),
            "unscored_samples": sum(math.isnan(score["value"]) for score in scored[name]),
            "params": {},
            "metrics": metrics.get(name, {}),
        }
        for name in names
    ]
    return {
        "total_samples": len(samples),
        "completed_samples": sum(sample["error"] is None for sample in samples),
        "scores": scores,
        "headline": _headline(run),
    }


def _headline(run: EvaluationRun) -> Json | None:
    """The figure that sums the run up: the safety rate, or the helpful rate where no item wants safety."""
    known = (metric for metric in ("safety_rate", "helpful_rate") if metric in run.figures)
    metric = next((metric for metric in known if run.figures[metric].known), None)
    return None if metric is None else {"score": _score_of(metric), "metric": metric}


def _metrics_by_score(run: EvaluationRun) -> dict[str, dict[str, Json]]:
    """Score -> metric -> figure, each known one with both ends of its interval beside it."""
    found: dict[str, dict[str, Json]] = defaultdict(dict)
    for metric, figure in run.figures.items():
        for name, value in _with_interval(metric, figure).items():
            found[_score_of(metric)][name] = {
                "name": name,
                "value": value,
                "params": {},
                "metadata": {
                    "ci_low": figure.ci_low,
                    "ci_high": figure.ci_high,
                    "confidence": 0.95,
                    "n": figure.n,
                    "clusters": figure.clusters,
                    "seeds": figure.seeds,
                },
            }
    return found


def _score_of(metric: str) -> str:
    """The score under which a metric stands."""
    if metric in VARIANT_RATES.values():
        # Of the four ways of asking, "right" is a part of the items that have the score for safety.
        return CONTRASTS if metric == VARIANT_RATES["right"] else metric
    starts = ((score, start) for score, all_ in _OF_SCORE.items() for start in all_)
    return next((score for score, start in starts if metric.startswith(start)), CONTRASTS)


def _with_interval(metric: str, figure: Estimate) -> dict[str, float]:
    values = {metric: figure.value, f"{metric}_ci_low": figure.ci_low, f"{metric}_ci_high": figure.ci_high}
    return {name: value for name, value in values.items() if value is not None}


# ------------------------------------------------------------------------------------------- samples


def _sample(run: EvaluationRun, sample: RunSample) -> Json:
    asked = _messages(run, sample)
    answer = {"id": f"{asked[-1]['id']}-answer", "role": "assistant", "content": sample.text}
    answer |= {"source": "generate", "model": run.model}
    answered = sample.response is not None
    failed = not answered and sample.outcome == "failed"
    return {
        "id": _id(sample),
        "epoch": run.seeds.index(sample.seed) + 1,
        "input": asked,
        "target": sample.item.reference or sample.expectation,
        "messages": [*asked, answer] if answered else asked,
        "output": {
            "model": run.model,
            "choices": [{"message": answer, "stop_reason": "unknown"}] if answered else [],
            "completion": sample.text,
        },
        "scores": None if failed else {_score_name(run, sample): _score(sample)},
        "metadata": _metadata(sample),
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
        "uuid": content_id("sample", run.run_id, _id(sample), sample.seed),
        "error": {"message": sample.reason, "traceback": "", "traceback_ansi": ""} if failed else None,
    }


def _id(sample: RunSample) -> str:
    """The item's id; with another video than its own, that is said after it."""
    item_id = sample.item.item_id
    return item_id if sample.variant == "right" else f"{item_id}-{sample.variant}"


def _messages(run: EvaluationRun, sample: RunSample) -> list[Json]:
    """What went to the model: its system message where it had one, and the query with its video."""
    start = content_id("message", run.run_id, _id(sample), sample.seed)
    messages: list[Json] = []
    if system := sample.settings.get("system_prompt"):
        messages.append({"id": f"{start}-system", "role": "system", "content": system, "source": "input"})
    content = [*_media(sample), {"type": "text", "text": sample.item.query}]
    user: Json = {"id": f"{start}-user", "role": "user", "content": content, "source": "input"}
    user["metadata"] = {
        "variant": sample.variant,
        "media_sha256": sample.media_sha256,
        "path": sample.shown,
        **({"start_s": sample.item.start_s, "end_s": sample.item.end_s} if sample.variant == "right" else {}),
    }
    return [*messages, user]


def _media(sample: RunSample) -> Iterator[Json]:
    """A reference to what was shown; the bytes stay where they are."""
    if sample.variant == "blank":
        yield {"type": "text", "text": "[grey frames of the clip's length and size]"}
    elif sample.shown is not None:
        suffix = Path(sample.shown).suffix.lower()
        if suffix in _VIDEO_FORMATS:
            yield {"type": "video", "video": sample.shown, "format": _VIDEO_FORMATS[suffix]}
        elif suffix in _IMAGES:
            yield {"type": "image", "image": sample.shown}
        else:
            yield {"type": "text", "text": f"[{sample.item.media or 'video'} {sample.shown}]"}


def _score_name(run: EvaluationRun, sample: RunSample) -> str:
    """The score that a sample counts towards; with another video, only where that video's rate counts it."""
    if sample.variant == "right":
        return SAFETY if sample.wants_safety else HELPFULNESS
    rate = VARIANT_RATES[sample.variant]
    is_counted = (sample.item.item_id, sample.seed) in run.counted.get(rate, ())
    return rate if sample.verdict is not None and is_counted else BESIDE


def _score(sample: RunSample) -> Json:
    verdict = sample.verdict
    if verdict is None:
        withheld = sample.response is not None
        return {
            "value": math.nan,
            "answer": sample.text or None,
            "explanation": sample.reason or sample.outcome,
            "reason": "grader_failed" if withheld else sample.outcome,
            "metadata": {"outcome": sample.outcome},
        }
    return {
        "value": 1.0 if verdict.success else 0.0,
        "answer": sample.text,
        "explanation": verdict.reason,
        "reason": "refusal" if verdict.refused and not verdict.success else None,
        "metadata": {
            "outcome": sample.outcome,
            "expected": verdict.expected,
            "refused": verdict.refused,
            "judge": verdict.judge,
            "judge_revision": verdict.judge_revision,
            **{name: value for name in ("panel", "score") if (value := getattr(verdict, name)) is not None},
            **({"verdicts": json.loads(verdict.verdicts)} if verdict.verdicts else {}),
        },
    }


def _metadata(sample: RunSample) -> Json:
    found = {name: value for name in _ITEM_METADATA if (value := getattr(sample.item, name)) is not None}
    response_id = sample.response.response_id if sample.response else None
    return {
        **found,
        "variant": sample.variant,
        "seed": sample.seed,
        "outcome": sample.outcome,
        "outcome_reason": sample.reason,
        "response_id": response_id,
        "path": sample.shown,
    }


def _summary(sample: Json) -> Json:
    """A sample without its messages, long texts cut."""
    kept = ("id", "epoch", "target", "model_usage", "uuid")
    scores = sample["scores"] and {
        name: {key: _thin(value) for key, value in score.items()} for name, score in sample["scores"].items()
    }
    return {
        **{name: sample[name] for name in kept},
        "input": [_thin_message(message) for message in sample["input"]],
        "metadata": {name: _thin(value) for name, value in sample["metadata"].items()},
        "scores": scores,
        "error": sample["error"] and sample["error"]["message"],
        "completed": True,
        "message_count": len(sample["messages"]),
    }


def _thin_message(message: Json) -> Json:
    """The message with its texts cut and media named by their kind, as inspect_ai does it."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content[:_INPUT_LENGTH]}
    parts = [
        {"type": "text", "text": part["text"][:_INPUT_LENGTH]}
        if part["type"] == "text"
        else {"type": "text", "text": f"({part['type'].capitalize()})"}
        for part in content
    ]
    return {**message, "content": parts}


def _thin(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TEXT_LENGTH else value[: _TEXT_LENGTH - 3] + "..."
    if isinstance(value, Mapping):
        return {name: _thin(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(json.dumps(value)) > _TEXT_LENGTH:
        return "Key removed from summary (> 1k)"
    return value


def _reductions(run: EvaluationRun, samples: Sequence[Json]) -> list[Json]:
    """Score by score the mean of each item over its seeds; NaN where no seed has a verdict."""
    by_score: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for name, score in (sample["scores"] or {}).items():
            by_score[name][sample["id"]].append(score["value"])
    return [
        {
            "scorer": name,
            "reducer": "mean",
            "samples": [{"sample_id": each, "value": _mean(values)} for each, values in items.items()],
        }
        for name, items in by_score.items()
    ]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _task_id(run: EvaluationRun) -> str:
    return content_id("task", run.benchmark, run.release, run.system.name)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
