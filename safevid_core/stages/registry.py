"""The registry: all stages in the order of the method."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from safevid_core.contracts.errors import SafeVidError
from safevid_core.settings import Settings
from safevid_core.stages.stage import Stage
from safevid_core.storage.lake import WHOLE


class RegistryError(SafeVidError, ValueError):
    """Stages that contradict each other, or a request for a stage or partition that does not exist."""


class Registry:
    """All stages. Each stands after the stages that it reads, otherwise in the given order.

    Raises:
        RegistryError: If two stages have the same name, if a stage reads one that is missing, or if stages
            read each other in a cycle.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        given = list(stages)
        self._stages: dict[str, Stage] = {}
        for stage in given:
            if stage.name in self._stages:
                raise RegistryError(f"two stages are named {stage.name}; rename one of them")
            self._stages[stage.name] = stage
        for stage in given:
            for read in stage.reads:
                if read not in self._stages:
                    raise RegistryError(f"stage {stage.name} reads {read}; {self._near(read)}")
        self._stages = {name: self._stages[name] for name in self._ordered(given)}

    def _ordered(self, given: Sequence[Stage]) -> Iterator[str]:
        sorter = TopologicalSorter({stage.name: stage.reads for stage in given})
        place = {stage.name: number for number, stage in enumerate(given)}
        try:
            sorter.prepare()
        except CycleError as error:
            raise RegistryError(f"stages read each other in a cycle: {', '.join(error.args[1])}") from None
        ready: list[str] = []
        while sorter.is_active():
            ready += sorter.get_ready()
            first = min(ready, key=place.__getitem__)
            ready.remove(first)
            sorter.done(first)
            yield first

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages.values())

    def __len__(self) -> int:
        return len(self._stages)

    def __contains__(self, name: str) -> bool:
        return name in self._stages

    def __getitem__(self, name: str) -> Stage:
        if name not in self._stages:
            raise RegistryError(f"no stage {name!r}; {self._near(name)}")
        return self._stages[name]

    def order(self, name: str) -> int:
        """The position of a stage, from 0. A name that is no stage's gets the number of stages."""
        return list(self._stages).index(name) if name in self._stages else len(self._stages)

    def upstream(self, names: Iterable[str]) -> list[Stage]:
        """All stages that these stages read, directly or through others, in order. These are left out."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            for read in self[todo.pop()].reads:
                if read not in found:
                    found.add(read)
                    todo.append(read)
        return [stage for stage in self if stage.name in found - set(names)]

    def downstream(self, names: Iterable[str]) -> list[Stage]:
        """All stages that read these stages, directly or through others, in order. These are left out."""
        found = set(names)
        for stage in self:
            if found & set(stage.reads):
                found.add(stage.name)
        return [stage for stage in self if stage.name in found - set(names)]

    def nearest(self, stage: Stage) -> list[str]:
        """The reads of a stage without those from which another of its reads is made.

        Example: pairs are made from queries, so a stage that reads both is shown below pairs alone.
        """
        behind = {each.name for read in stage.reads for each in self.upstream([read])}
        return [read for read in stage.reads if read not in behind]

    def flow(self, settings: Settings) -> list[tuple[Stage, list[str]]]:
        """The stages that the settings want, in order, each with the partitions to make."""
        steps = ((stage, list(stage.wanted(stage, settings))) for stage in self)
        return [(stage, partitions) for stage, partitions in steps if partitions]

    def inputs(self, stage: Stage, partition: str, settings: Settings) -> Iterator[tuple[Stage, str]]:
        """The upstream partitions from which a partition is made, each with its stage."""
        if stage.made_from is not None:
            for read, part in stage.made_from(settings, partition):
                upstream = self[read]
                for name in upstream.partitions.names(settings) if part is None else (part,):
                    yield upstream, name
            return
        for read in stage.reads:
            upstream = self[read]
            for name in stage.partitions.upstream(partition, upstream.partitions, settings):
                yield upstream, name

    def needed(self, stage: Stage, partition: str, settings: Settings) -> Iterator[tuple[Stage, str]]:
        """Those of :meth:`inputs` without which a partition cannot be made.

        A stage that reads all partitions of another takes those that there are.
        """
        axes = set(stage.partitions.axes)
        for upstream, name in self.inputs(stage, partition, settings):
            follows = stage.made_from is not None or set(upstream.partitions.axes) <= axes
            if follows and upstream.name not in stage.optional:
                yield upstream, name

    def select(
        self, names: Sequence[str], settings: Settings, partitions: Sequence[str] | None = None
    ) -> list[tuple[Stage, list[str]]]:
        """Some stages in order, each with its share of the named partitions.

        Args:
            names: Names of stages. Empty selects the flow of the settings.
            partitions: Names of partitions, or values of an axis: `kitchen` selects `descriptions[kitchen]`
                and every `<loss>|kitchen`. None selects the partitions of the flow, and all partitions of a
                stage outside the flow.

        Raises:
            RegistryError: If a stage does not exist, or if no selected stage has one of the partitions.
        """
        flow = {stage.name: wanted for stage, wanted in self.flow(settings)}
        chosen = [self[name] for name in (names or flow)]
        chosen.sort(key=lambda stage: self.order(stage.name))
        known: set[str] = set()
        found = []
        for stage in chosen:
            every = stage.partitions.names(settings)
            known.update(every)
            wanted = flow.get(stage.name, every)
            if partitions is not None:
                wanted = [name for name in every if _is_named(name, stage, partitions)]
                known.update(value for name in every for value in stage.partitions.values(name).values())
            if wanted:
                found.append((stage, wanted))
        for name in partitions or ():
            if name not in known:
                raise RegistryError(
                    f"no partition {name!r} of {', '.join(stage.name for stage in chosen)}; "
                    f"{_near(name, known)}"
                )
        return found

    def _near(self, name: str) -> str:
        return _near(name, set(self._stages))


def _is_named(partition: str, stage: Stage, named: Sequence[str]) -> bool:
    if partition == WHOLE:
        return True
    return partition in named or any(value in named for value in stage.partitions.values(partition).values())


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(sorted(known))}"
