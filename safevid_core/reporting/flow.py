"""The flow of rows through the stages, read from the lake's manifests alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import OUTCOMES
from safevid_core.contracts.tables import (
    BENCHMARK_RELEASES,
    DECIDED_SIDES,
    PROMOTION_DECISION,
    RELEASE_VERSIONS,
    SCORECARD,
    VIDEO_REPORT,
)
from safevid_core.stages.registry import Registry
from safevid_core.storage.lake import Lake, Manifest

# Group of stages -> the phase of the method under which the scorecard shows them.
PHASES = {
    "corpus": "Corpus",
    "descriptions": "Descriptions",
    "queries": "Queries and pairs",
    "preferences": "Queries and pairs",
    "alignment": "Alignment",
    "benchmarks": "Evaluation",
    "evaluation": "Evaluation",
    "audits": "Audits",
}
OTHER = "Other"  # of a table in the lake that no stage makes

# Reports, decisions and the records of releases and sides are no part of what the scorecard tells of.
LEFT_OUT = {
    SCORECARD.name,
    VIDEO_REPORT.name,
    PROMOTION_DECISION.name,
    BENCHMARK_RELEASES.name,
    DECIDED_SIDES.name,
    RELEASE_VERSIONS.name,
}


@dataclass
class StageFlow:
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

    stages: list[StageFlow]
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


def read_flow(lake: Lake, registry: Registry) -> Flow:
    """What the lake holds, but for the scorecard, the decisions by it and the kept releases."""
    phases = list(dict.fromkeys([*PHASES.values(), OTHER]))
    placed = [(_phase(name, registry), name) for name in lake.assets() if name not in LEFT_OUT]
    placed.sort(key=lambda each: (phases.index(each[0]), registry.order(each[1]), each[1]))
    flows, hashes = [], []
    for phase, asset in placed:
        flow = StageFlow(asset, phase)
        for partition, manifest in _manifests(lake, asset):
            flow.add(manifest)
            hashes.append(
                content_id(asset, partition, manifest.content_hash, sorted(manifest.outcomes.items()))
            )
        if flow.partitions:
            flows.append(flow)
    return Flow(flows, content_id(*hashes))


def _phase(asset: str, registry: Registry) -> str:
    return PHASES[registry[asset].group] if asset in registry else OTHER


def _manifests(lake: Lake, asset: str) -> Iterator[tuple[str, Manifest]]:
    for partition in lake.partitions(asset):
        manifest = lake.manifest(asset, partition)
        if manifest is not None:
            yield partition, manifest
