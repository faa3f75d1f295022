"""What rests on withdrawn clips: partitions with a seal, and what is made with a checkpoint that has one.

A withdrawal seals the checkpoints that were trained on a clip and the partitions that were made with them.
The seal of a partition ends when the partition is made again. So a partition that is made from a marked one
is marked too. Example: new verdicts on the responses of a marked checkpoint rest on the clip as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import Table
from safevid_core.corpus.withdrawn import read_withdrawn
from safevid_core.settings import Settings
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Stage
from safevid_core.storage.lake import Lake
from safevid_core.storage.seals import Seal, seals_of_directory, seals_of_partition

PartitionOf = tuple[str, str]  # name of the stage, partition


@dataclass(frozen=True)
class Marks:
    """The marked partitions of a lake.

    Attributes:
        seals: Stage and partition -> the withdrawals that it rests on, oldest first.
    """

    seals: dict[PartitionOf, list[Seal]] = field(default_factory=dict)

    def of(self, stage: str, partition: str) -> str:
        """The mark of a partition in one line. Empty if it has none.

        Example: `rests on 1 withdrawn clip (038b420266f2): withdrawn on 2026-11-28: the person asked for it`.
        """
        seals = self.seals.get((stage, partition), [])
        if not seals:
            return ""
        clips = sorted({clip for seal in seals for clip in seal.clips})
        named = ", ".join(clips[:3]) + (" ..." if len(clips) > 3 else "")
        told = "; ".join(dict.fromkeys(seal.sentence() for seal in seals))
        return f"rests on {len(clips):,} withdrawn clip{'s' * (len(clips) != 1)} ({named}): {told}"

    def __bool__(self) -> bool:
        return bool(self.seals)


UNMARKED = Marks()


def read_marks(registry: Registry, lake: Lake, settings: Settings) -> Marks:
    """The marks of every committed partition. A lake without withdrawals is not searched."""
    if not read_withdrawn(lake).rows.height:
        return UNMARKED
    found: dict[PartitionOf, list[Seal]] = {}
    resting: set[PartitionOf] = set()  # marked checkpoints, and what is made with them
    for stage in registry:
        for partition in lake.partitions(stage.name):
            seals = seals_of_partition(lake, stage.name, partition)
            if holds_checkpoints(stage.table):
                trained = _of_checkpoints(lake, stage.table, partition)
                seals += trained
                above = [(stage.name, partition)] if trained else []
            else:
                above = marked_inputs(registry, settings, stage, partition, resting)
                seals += [seal for each in above for seal in found[each]]
            if above:
                resting.add((stage.name, partition))
            if seals:
                found[stage.name, partition] = _each_once(seals)
    return Marks(found)


def holds_checkpoints(table: Table) -> bool:
    """Whether the rows of a table are trained checkpoints."""
    return "checkpoint" in table.schema and "policy" in table.schema


def marked_inputs(
    registry: Registry, settings: Settings, stage: Stage, partition: str, marked: Collection[PartitionOf]
) -> list[PartitionOf]:
    """Those of some marked partitions from which a partition is made."""
    if not marked:
        return []
    try:
        inputs = [(upstream.name, part) for upstream, part in registry.inputs(stage, partition, settings)]
    except (ValueError, KeyError, SafeVidError):  # a partition whose axis values the settings do not have
        return [each for each in marked if each[0] in stage.reads]
    return [each for each in inputs if each in marked]


def _of_checkpoints(lake: Lake, table: Table, partition: str) -> list[Seal]:
    addresses = lake.scan(table, [partition]).select("checkpoint").collect()["checkpoint"].drop_nulls()
    return [seal for address in addresses for seal in seals_of_directory(lake, address)]


def _each_once(seals: Iterable[Seal]) -> list[Seal]:
    """The newest withdrawal last; one seal for each withdrawal."""
    by_id = {seal.withdrawal: seal for seal in seals}
    return sorted(by_id.values(), key=lambda seal: (seal.date, seal.withdrawal))
