"""The flow of rows through the stages, read from the lake's manifests alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from safevid_core.lake import Lake, Manifest
from safevid_core.records import (
    BENCHMARK_RELEASES,
    DECIDED_SIDES,
    OUTCOMES,
    PROMOTION_DECISION,
    SCORECARD,
    VIDEO_REPORT,
    content_id,
)

# Phase of the method -> its assets in order. The describers' assets, whose names the settings give, come
# before these within their phase; what belongs to no phase comes last.
PHASES = {
    "Corpus": ("clip_manifest", "scene_assignments", "corpus_split", "video_corpus"),
    "Descriptions": ("signal_descriptions", "descriptions", "lossy_descriptions"),
    "Queries and pairs": (
        "taxonomy_queries",
        "safevid_350k_pairs",
        "safevid_350k_release",
        "own_style_answers",
        "queries_without_descriptions",
        "pairs_without_descriptions",
        "lossy_queries",
        "lossy_pairs",
    ),
    "Alignment": ("dpo_checkpoint",),
    "Evaluation": (
        "safevidbench_base",
        "safevidbench_challenge",
        "benchmark_responses",
        "benchmark_scores",
        "judge_validation",
    ),
    "Audits": (),
    "Other": (),
}


# Reports, decisions and the records of releases and sides are no part of what the scorecard tells of.
_LEFT_OUT = {
    SCORECARD.name,
    VIDEO_REPORT.name,
    PROMOTION_DECISION.name,
    BENCHMARK_RELEASES.name,
    DECIDED_SIDES.name,
}


@dataclass
class Stage:
    """One asset over its committed partitions."""

    asset: str
    phase: str
    partitions: int = 0
    rows: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    calls: int = 0
    cached_calls: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())

    def add(self, manifest: Manifest) -> None:
        self.partitions += 1
        self.rows += manifest.rows
        for outcome, number in manifest.outcomes.items():
            self.outcomes[outcome] += number
        self.calls += int(manifest.info.get("calls") or 0)
        self.cached_calls += int(manifest.info.get("cached_calls") or 0)
        self.cost_usd += float(manifest.info.get("cost_usd") or 0.0)
        self.seconds += manifest.seconds


@dataclass(frozen=True)
class Flow:
    """Every committed asset, in the order of the method, and a hash of what they hold."""

    stages: list[Stage]
    content_hash: str

    @property
    def outcomes(self) -> dict[str, dict[str, int]]:
        """Asset -> inputs by outcome."""
        return {stage.asset: dict(stage.outcomes) for stage in self.stages}

    @property
    def spend(self) -> dict[str, float]:
        """Model calls made and answered from the ledger when the rows were made, and their cost."""
        return {
            "calls": sum(stage.calls for stage in self.stages),
            "cached_calls": sum(stage.cached_calls for stage in self.stages),
            "cost_usd": round(sum(stage.cost_usd for stage in self.stages), 6),
        }

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)


def read_flow(lake: Lake) -> Flow:
    """What the lake holds, but for the scorecard, the decisions by it and the kept releases."""
    folder = lake.root / "tables"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    stages, hashes = [], []
    for phase, asset in sorted(map(_placed, names), key=_order):
        if asset in _LEFT_OUT:
            continue
        stage = Stage(asset, phase)
        for partition, manifest in _manifests(lake, asset):
            stage.add(manifest)
            hashes.append(
                content_id(asset, partition, manifest.content_hash, sorted(manifest.outcomes.items()))
            )
        if stage.partitions:
            stages.append(stage)
    return Flow(stages, content_id(*hashes))


def _manifests(lake: Lake, asset: str) -> Iterator[tuple[str, Manifest]]:
    for partition in lake.partitions(asset):
        manifest = lake.manifest(asset, partition)
        if manifest is not None:
            yield partition, manifest


def _placed(asset: str) -> tuple[str, str]:
    for phase, assets in PHASES.items():
        if asset in assets:
            return phase, asset
    if asset.endswith("_audit"):
        return "Audits", asset
    return ("Descriptions" if asset.endswith("_descriptions") else "Other"), asset


def _order(placed: tuple[str, str]) -> tuple[int, int, str]:
    phase, asset = placed
    listed = PHASES[phase]
    return list(PHASES).index(phase), listed.index(asset) if asset in listed else -1, asset
