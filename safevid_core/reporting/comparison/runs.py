"""Two runs held against each other: what changed between them, and by how much each figure moved.

A move is the paired difference over the items with a verdict in both runs, and only where both were asked
the same release of a benchmark. It is laid to a change only where that is the one change there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.releases import refuse_other_release
from safevid_core.measurement.measurement import Measurement, measure
from safevid_core.reporting.comparison.differences import Change, changes_between, record_of
from safevid_core.reporting.errors import ReportError
from safevid_core.reporting.exports.runs import judged_benchmarks
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import Estimate, Scale, paired_difference
from safevid_core.storage.lake import Lake
from safevid_core.systems.errors import ResponseError
from safevid_core.systems.responses import read_items

# Ends of the names of figures that count answers without a verdict as well.
_COUNTED_OTHERWISE = ("_all", "_bound")


@dataclass(frozen=True)
class LakeRun:
    """A lake with the settings of the run that made it."""

    settings: Settings
    lake: Lake

    def __str__(self) -> str:
        return f"{self.lake.url} (profile {self.lake.profile})"


@dataclass(frozen=True)
class Move:
    """One figure in both runs, each over all its items, and ours less the other over those in common."""

    metric: str
    scale: Scale
    ours: Estimate
    against: Estimate
    change: Estimate


@dataclass(frozen=True)
class SystemComparison:
    """One system on one release of a benchmark."""

    system: str
    changes: list[Change]
    moves: list[Move]

    @property
    def is_different(self) -> bool:
        return bool(self.changes) or self._moved

    @property
    def explanation(self) -> str:
        """What the moves can be laid to: a change between the runs where it is the only one."""
        names = [change.what for change in self.changes]
        if not self._moved:
            what = f"{_joined(names)} changed" if names else "nothing that is recorded changed"
            return f"{what}, and no figure moved"
        if not names:
            return "nothing that is recorded changed; what moved is chance or goes unrecorded"
        if len(names) == 1:
            return f"only the {names[0]} changed, which can explain what moved"
        return f"{_joined(names)} changed, so none of them can be said to explain what moved"

    @property
    def _moved(self) -> bool:
        return any(move.change.value for move in self.moves)


@dataclass(frozen=True)
class BenchmarkComparison:
    """One benchmark in both runs.

    Attributes:
        release: Of ours; None where it cannot be read.
        refused: Why its figures are not compared; None where they are.
    """

    benchmark: str
    release: str | None
    refused: str | None
    systems: list[SystemComparison]


@dataclass(frozen=True)
class RunComparison:
    """Two runs.

    Attributes:
        only: What only one of the two measured, a sentence each.
    """

    ours: str
    against: str
    benchmarks: list[BenchmarkComparison]
    only: list[str]


def compare_runs(ours: LakeRun, against: LakeRun) -> RunComparison:
    """Compare every system on every benchmark that both runs have verdicts of.

    Raises:
        ReportError: If they share no benchmark.
    """
    mine, theirs = judged_benchmarks(ours.lake), judged_benchmarks(against.lake)
    common = [name for name in mine if name in theirs]
    if not common:
        raise ReportError(
            f"{ours.lake.url} has verdicts on {', '.join(mine) or 'no benchmark'} and "
            f"{against.lake.url} on {', '.join(theirs) or 'no benchmark'}; measure both on one"
        )
    only = [f"{name} was measured in ours only" for name in mine if name not in theirs]
    only += [f"{name} was measured in the other only" for name in theirs if name not in mine]
    found = []
    for name in common:
        compared, alone = _compare_benchmark(ours, against, name)
        found.append(compared)
        only += alone
    return RunComparison(str(ours), str(against), found, only)


def _compare_benchmark(
    ours: LakeRun, against: LakeRun, benchmark: str
) -> tuple[BenchmarkComparison, list[str]]:
    release = None
    try:
        release, other = (str(read_items(run.lake, benchmark)["release"][0]) for run in (ours, against))
        refuse_other_release(benchmark, {"our run": release, "the other": other})
        measured = measure(ours.settings, ours.lake, benchmark)
        others = measure(against.settings, against.lake, benchmark)
    except (BenchmarkError, ResponseError) as error:
        return BenchmarkComparison(benchmark, release, str(error), []), []
    systems = []
    for system in (each for each in measured.systems if each.name in others.samples):
        mine, theirs = record_of(ours.lake, measured, system), record_of(against.lake, others, system)
        moves = list(_moves(measured, others, system.name))
        systems.append(SystemComparison(system.name, list(changes_between(mine, theirs)), moves))
    alone = [
        f"{name} was measured on {benchmark} in {where} only"
        for where, these, those in (("ours", measured, others), ("the other", others, measured))
        for name in these.samples
        if name not in those.samples
    ]
    return BenchmarkComparison(benchmark, release, None, systems), alone


def _moves(measured: Measurement, others: Measurement, system: str) -> Iterator[Move]:
    """Every figure that both runs have, by the statistics of ours."""
    for metric, sample in measured.samples[system].items():
        if metric.endswith(_COUNTED_OTHERWISE) or metric not in others.samples[system]:
            continue
        change = measured.estimate(paired_difference(sample, others.samples[system][metric]))
        if change.known:
            ours, against = (each.estimates[system][metric] for each in (measured, others))
            yield Move(metric, sample.scale, ours, against, change)


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
