"""One run as the exports see it: a system on a benchmark, every answer with what became of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from safevid_core.contracts.rows import BenchmarkItem, BenchmarkResponse, BenchmarkScore, Checkpoint, rows_of
from safevid_core.contracts.tables import BENCHMARK_RESPONSES, BENCHMARK_SCORES, DPO_CHECKPOINT
from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.measurement.metrics import SAFE
from safevid_core.reporting.errors import ReportError
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import Estimate, Sample
from safevid_core.storage.lake import Lake, Manifest
from safevid_core.systems.responses import VARIANTS, request_id
from safevid_core.systems.systems import System

_NOT_ASKED = ("failed", "the system was not asked")
_NOT_JUDGED = ("failed", "the answer is not judged yet")


@dataclass(frozen=True)
class RunSample:
    """One item asked once: with which video, by which seed, and what became of it.

    Attributes:
        outcome: `ok` with a verdict; else `filtered`, `failed` or `undecidable`, with the reason.
        response: None where there is no answer.
        verdict: None where there is no verdict.
        shown: Path of what was shown, below the lake's root where it lies there; None for no file.
        media_sha256: Of what was shown; None where nothing was, or nobody knows.
    """

    item: BenchmarkItem
    variant: str
    seed: int
    outcome: str
    reason: str
    response: BenchmarkResponse | None
    verdict: BenchmarkScore | None
    shown: str | None
    media_sha256: str | None

    @property
    def expectation(self) -> str:
        """What a safe answer does: by the verdict, else by whoever wrote the item."""
        return self.verdict.expected if self.verdict else self.item.expectation

    @property
    def wants_safety(self) -> bool:
        return self.expectation in SAFE

    @property
    def text(self) -> str:
        return (self.response.text or "") if self.response else ""

    @property
    def settings(self) -> dict[str, Any]:
        """How the answer was generated; empty for a system without a model."""
        return _object(self.response.settings) if self.response else {}


@dataclass(frozen=True)
class EvaluationRun:
    """A system on one release of a benchmark.

    Attributes:
        seeds: Of training, ascending; 0 alone where nothing was trained.
        samples: Every item with its own video, and every further question that was put, item by item.
        checkpoints: Each seed's; empty for a system that was not trained.
        judges: Judge -> what it is, as the verdicts' stage recorded it.
        answered_at: Seconds since the epoch at which the answers were committed.
    """

    measurement: Measurement
    system: System
    profile: str
    seeds: list[int]
    samples: list[RunSample]
    checkpoints: list[Checkpoint]
    judges: dict[str, Any]
    judge_identity: str
    self_judged: bool
    run_id: str
    answered_at: float
    judged_at: float
    answering_s: float

    @property
    def benchmark(self) -> str:
        return self.measurement.benchmark

    @property
    def release(self) -> str:
        return self.measurement.release

    @property
    def figures(self) -> Mapping[str, Estimate]:
        """Metric -> figure, as on the scorecard."""
        return self.measurement.estimates[self.system.name]

    @property
    def values(self) -> Mapping[str, Sample]:
        """Metric -> the values of units that its figure is the mean of."""
        return self.measurement.samples[self.system.name]

    @cached_property
    def counted(self) -> dict[str, set[tuple[str, int]]]:
        """Metric -> the (unit, seed) that its figure counts."""
        frames = {metric: sample.frame for metric, sample in self.values.items()}
        return {metric: set(frame.select("unit", "seed").iter_rows()) for metric, frame in frames.items()}

    @property
    def model(self) -> str:
        """The model that answered; the control's own name where none did."""
        named = (str(sample.response.model) for sample in self.samples if sample.response)
        return next(named, self.system.name)

    @property
    def generation(self) -> dict[str, Any]:
        """Frames, type, length and temperature of the answers; what a seed alone has is left out."""
        found = next((sample.settings for sample in self.samples if sample.settings), {})
        return {name: value for name, value in found.items() if name != "adapter"}


def read_runs(
    settings: Settings,
    lake: Lake,
    systems: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> Iterator[EvaluationRun]:
    """Every run of the lake, or of the named systems and benchmarks, benchmark by benchmark.

    Raises:
        ReportError: If a named system or benchmark has no verdicts, or nothing has.
    """
    judged = judged_benchmarks(lake)
    wanted = judged if benchmarks is None else _among(benchmarks, judged, "benchmark")
    if not wanted:
        raise ReportError("the lake holds no verdicts; materialise benchmark_scores first")
    measured = [measure(settings, lake, benchmark) for benchmark in wanted]
    known = list(dict.fromkeys(system.name for each in measured for system in each.systems))
    names = known if systems is None else _among(systems, known, "system")
    for measurement in measured:
        for system in measurement.systems:
            if system.name in names:
                yield read_run(lake, measurement, system)


def judged_benchmarks(lake: Lake) -> list[str]:
    """Benchmarks on which the lake holds verdicts of at least one system, by name."""
    partitions = lake.partitions(BENCHMARK_SCORES.name)
    return sorted({partition.rpartition("|")[2] for partition in partitions})


def read_run(lake: Lake, measurement: Measurement, system: System) -> EvaluationRun:
    """One run with all its samples; every answer and every failure to answer occurs once.

    Raises:
        ReportError: If answers or verdicts are not committed.
    """
    partition = f"{system.name}|{measurement.benchmark}"
    answers = _manifest(lake, BENCHMARK_RESPONSES.name, partition)
    verdicts = _manifest(lake, BENCHMARK_SCORES.name, partition)
    checkpoints = _checkpoints(lake, system)
    answered = rows_of(lake.read(BENCHMARK_RESPONSES, partition), BenchmarkResponse)
    responses = {response.request_id: response for response in answered}
    seeds = sorted({each.seed for each in answered} | {each.seed for each in checkpoints}) or [0]
    return EvaluationRun(
        measurement=measurement,
        system=system,
        profile=answers.profile,
        seeds=seeds,
        samples=list(_samples(lake, partition, measurement.items, seeds, responses)),
        checkpoints=checkpoints,
        judges=verdicts.info.get("judges") or {},
        judge_identity=verdicts.inputs.get("judges", ""),
        self_judged=bool(verdicts.info.get("self_judged")),
        run_id=verdicts.content_hash,
        answered_at=answers.committed_at,
        judged_at=verdicts.committed_at,
        answering_s=answers.seconds,
    )


def file_part(name: str) -> str:
    """A name as one part of a file's name: no separator, nothing that leads elsewhere."""
    return re.sub(r"[^A-Za-z0-9.@-]+", "-", name).strip(".") or "unnamed"


def _samples(
    lake: Lake,
    partition: str,
    items: pl.DataFrame,
    seeds: Sequence[int],
    responses: Mapping[str, BenchmarkResponse],
) -> Iterator[RunSample]:
    asked = _outcomes(lake, BENCHMARK_RESPONSES.name, partition)
    judged = _outcomes(lake, BENCHMARK_SCORES.name, partition)
    scores = {
        score.response_id: score for score in rows_of(lake.read(BENCHMARK_SCORES, partition), BenchmarkScore)
    }
    places = lake.media.for_export(items["media_sha256"].drop_nulls().unique())
    for item in rows_of(items.sort("item_id"), BenchmarkItem):
        for variant in VARIANTS:
            for seed in seeds:
                request = request_id(item.item_id, variant, seed)
                if request not in asked and variant != "right":
                    continue
                outcome, reason = asked.get(request, _NOT_ASKED)
                response = responses.get(request)
                if response is not None:
                    outcome, reason = judged.get(response.response_id, _NOT_JUDGED)
                media = _shown_hash(item, variant, response)
                yield RunSample(
                    item=item,
                    variant=variant,
                    seed=seed,
                    outcome=outcome,
                    reason=reason,
                    response=response,
                    verdict=scores.get(response.response_id) if response else None,
                    shown=places.get(media or ""),
                    media_sha256=media,
                )


def _shown_hash(item: BenchmarkItem, variant: str, response: BenchmarkResponse | None) -> str | None:
    """Hash of the file that went with the text; a question that was not answered tells of its own alone."""
    if response is not None:
        return response.media_sha256
    return item.media_sha256 if variant == "right" else None


def _outcomes(lake: Lake, asset: str, partition: str) -> dict[str, tuple[str, str]]:
    rows = lake.outcomes(asset, partition).select("input_id", "outcome", "reason").iter_rows()
    return {input_id: (outcome, reason) for input_id, outcome, reason in rows}


def _checkpoints(lake: Lake, system: System) -> list[Checkpoint]:
    if system.is_function or lake.manifest(DPO_CHECKPOINT.name, system.name) is None:
        return []
    return rows_of(lake.read(DPO_CHECKPOINT, system.name).sort("seed"), Checkpoint)


def _manifest(lake: Lake, asset: str, partition: str) -> Manifest:
    found = lake.manifest(asset, partition)
    if found is None:
        raise ReportError(f"{asset}[{partition}] is not committed; materialise it first")
    return found


def _among(named: Sequence[str], known: Sequence[str], kind: str) -> list[str]:
    for name in named:
        if name not in known:
            raise ReportError(
                f"{kind} {name!r} has no verdicts in this lake; those that have: {', '.join(known)}"
            )
    return list(named)


def _object(text: str | None) -> dict[str, Any]:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
