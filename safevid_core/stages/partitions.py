"""How the table of a stage is partitioned: by axes such as the scene, whose values the settings give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from safevid_core.settings import LOSSES, Settings
from safevid_core.storage.lake import WHOLE
from safevid_core.taxonomy.taxonomy import load_scenes


def _scales(settings: Settings) -> Sequence[str]:
    return [f"{scale:g}" for scale in settings.alignment.data_scales]


# Axis -> its values, in order. The systems that the flow does not measure stand last, so that a range of
# partitions can cover the measured systems without them.
AXES: Mapping[str, Callable[[Settings], Sequence[str]]] = {
    "scene": lambda settings: load_scenes(settings).ids,
    "loss": lambda settings: LOSSES,
    "policy": lambda settings: settings.alignment.trained,
    "data_scale": _scales,
    "system": lambda settings: [*settings.systems, *settings.systems_at_other_scales],
    "benchmark": lambda settings: settings.evaluation.benchmarks,
}


@dataclass(frozen=True)
class Partitions:
    """The partitions of a stage.

    Attributes:
        axes: Names of :data:`AXES`. Empty for a table that is one partition, named `all`.
        separator: The text between the values in a partition's name: "@" in `own_style@0.1`, "|" in
            `without_times|kitchen`.
    """

    axes: tuple[str, ...] = ()
    separator: str = "|"

    def names(self, settings: Settings) -> list[str]:
        """The names of all partitions. The first axis varies slowest."""
        return list(self._names({axis: AXES[axis](settings) for axis in self.axes}))

    def values(self, partition: str) -> dict[str, str]:
        """Axis -> its value in a partition. Example: `pocket@0.1` has policy `pocket` and data_scale `0.1`.

        Raises:
            ValueError: If the name does not have one part for each axis.
        """
        if not self.axes:
            return {}
        parts = partition.rsplit(self.separator, len(self.axes) - 1)
        return dict(zip(self.axes, parts, strict=True))

    def upstream(self, partition: str, of: Partitions, settings: Settings) -> Iterator[str]:
        """The partitions of an upstream stage from which `partition` is made.

        On an axis that both stages have, the value is the same. On other axes of the upstream stage, every
        value counts. Example: `without_times|kitchen` is made from `descriptions[kitchen]`.
        """
        shared = {axis: [value] for axis, value in self.values(partition).items()}
        return of._names({axis: shared.get(axis) or AXES[axis](settings) for axis in of.axes})

    def _names(self, values: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """The partitions with some of each axis's values."""
        if not self.axes:
            return iter((WHOLE,))
        return map(self.separator.join, product(*(values[axis] for axis in self.axes)))


ONE_TABLE = Partitions()
BY_SCENE = Partitions(("scene",))
BY_LOSS_AND_SCENE = Partitions(("loss", "scene"))
BY_POLICY_AND_SCALE = Partitions(("policy", "data_scale"), "@")
BY_SYSTEM_AND_BENCHMARK = Partitions(("system", "benchmark"))
