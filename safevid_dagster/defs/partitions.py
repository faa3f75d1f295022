"""Makes Dagster's partition sets from the axes of the stages, and converts names of partitions.

Example: `pocket@1|xstest` in the lake is the multi-partition key with system `pocket@1` and benchmark
`xstest`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby

import dagster as dg

from safevid_core.settings import Settings, load_settings
from safevid_core.stages.partitions import AXES
from safevid_core.stages.stage import Stage

settings = load_settings()


@cache
def definition_of(axes: tuple[str, ...]) -> dg.PartitionsDefinition | None:
    """The partition set over some axes. Equal axes give the same object. None if there is no axis."""
    if not axes:
        return None
    if len(axes) == 1:
        return dg.StaticPartitionsDefinition(list(AXES[axes[0]](settings)))
    return dg.MultiPartitionsDefinition({axis: definition_of((axis,)) for axis in axes})


SCENES = definition_of(("scene",))


def key_of(stage: Stage, partition: str) -> str | None:
    """Dagster's key of a stage's partition. None if the table is not partitioned."""
    values = stage.partitions.values(partition)
    if not values:
        return None
    return dg.MultiPartitionKey(values) if len(values) > 1 else partition


def partition_of(stage: Stage, key: str) -> str:
    """The name in the lake of a stage's partition, given Dagster's key."""
    axes = stage.partitions.axes
    if len(axes) < 2:
        return key
    assert isinstance(key, dg.MultiPartitionKey)
    return stage.partitions.separator.join(key.keys_by_dimension[axis] for axis in axes)


def ranges_of(stage: Stage, partitions: Sequence[str], settings: Settings) -> Iterator[list[str]]:
    """Split partitions into groups that Dagster can name by the first and the last key.

    A range over one axis is a sequence of neighbours. A range over two axes is a rectangle: it combines every
    value between its corners on one axis with every value between them on the other.
    """
    axes = stage.partitions.axes
    if not axes:
        yield list(partitions)
        return
    place = {axis: {value: n for n, value in enumerate(AXES[axis](settings))} for axis in axes}
    *outer, inner = axes
    cells: dict[tuple[int, int], str] = {}
    columns_of: dict[int, list[int]] = {}
    for partition in partitions:
        values = stage.partitions.values(partition)
        row = place[outer[0]][values[outer[0]]] if outer else 0
        column = place[inner][values[inner]]
        cells[row, column] = partition
        columns_of.setdefault(row, []).append(column)
    rows_of: dict[tuple[int, ...], list[int]] = {}  # neighbouring columns -> the rows that have them
    for row in sorted(columns_of):
        for columns in _neighbours(sorted(columns_of[row])):
            rows_of.setdefault(columns, []).append(row)
    for columns, rows in rows_of.items():
        for block in _neighbours(rows):
            yield [cells[row, column] for row in block for column in columns]


def _neighbours(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Groups of consecutive numbers. Example: 1, 2, 5 gives (1, 2) and (5,)."""
    for _, run in groupby(enumerate(numbers), key=lambda each: each[1] - each[0]):
        yield tuple(number for _, number in run)
