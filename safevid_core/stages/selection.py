"""Which partitions of which stages a request means: the named ones, and those before and after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safevid_core.stages.planner import Planner, name_of
from safevid_core.stages.registry import RegistryError
from safevid_core.stages.stage import Stage


@dataclass
class Selection:
    """Stages with their partitions, in the order in which they are made.

    Attributes:
        steps: Each stage with those of its partitions that may be made.
        asked: Names of the stages that were asked for themselves. Their partitions are always looked at; of
            the others only those that are not fresh.
    """

    planner: Planner
    steps: list[tuple[Stage, list[str]]]
    asked: frozenset[str]

    def missing(self) -> list[str]:
        """The inputs that are not made and that this request does not make, such as `descriptions[park]`."""
        lake = self.planner.tools.lake
        made = {(stage.name, name) for stage, partitions in self.steps for name in partitions}
        needed = (
            (upstream, name)
            for stage, partitions in self.steps
            for partition in partitions
            for upstream, name in self.planner.required(stage, partition)
        )
        return list(
            dict.fromkeys(
                name_of(upstream, name)
                for upstream, name in needed
                if (upstream.name, name) not in made and lake.manifest(upstream.name, name) is None
            )
        )

    def to_make(self, stage: Stage) -> list[str]:
        """The partitions of one of the steps that a run has to look at now."""
        partitions = {each.name: names for each, names in self.steps}[stage.name]
        if stage.name in self.asked:
            return partitions
        planner = Planner(self.planner.tools)  # what was planned before upstream changed is void
        return [name for name in partitions if planner.state(stage, name).condition != "fresh"]


def select(
    planner: Planner,
    names: Sequence[str],
    partitions: Sequence[str] | None = None,
    *,
    upstream: bool = False,
    to: str | None = None,
) -> Selection:
    """The steps of a request.

    Args:
        names: Stages.
        partitions: As :meth:`Registry.select` takes them.
        upstream: Also what the partitions are made from, as far as the settings' flow makes it.
        to: A stage: also every stage between the named ones and this one, and this one.

    Raises:
        RegistryError: If a stage or partition does not exist, or `to` is not made from the named stages.
    """
    registry, settings = planner.registry, planner.tools.settings
    asked = set(names)
    if to is not None:
        before = {stage.name for stage in registry.upstream([to])} | {to}
        between = {stage.name for stage in registry.downstream(names)} & before
        if not between and to not in asked:
            raise RegistryError(
                f"{to} is not made from {', '.join(names)}; name a stage that it is made from"
            )
        asked |= between
    steps = dict[str, list[str]]()
    for stage, some in registry.select(sorted(asked), settings, partitions):
        steps[stage.name] = some
    if upstream:
        _add_upstream(planner, steps)
    ordered = [(stage, steps[stage.name]) for stage in registry if steps.get(stage.name)]
    return Selection(planner, ordered, frozenset(asked))


def _add_upstream(planner: Planner, steps: dict[str, list[str]]) -> None:
    """Add what the steps are made from: what they cannot do without, and of the rest what the flow makes."""
    registry, settings = planner.registry, planner.tools.settings
    flow = {stage.name: set(partitions) for stage, partitions in registry.flow(settings)}
    for stage in reversed(list(registry)):
        for partition in steps.get(stage.name, ()):
            required = set(map(_key, planner.required(stage, partition)))
            for upstream, name in registry.inputs(stage, partition, settings):
                known = steps.setdefault(upstream.name, [])
                wanted = (upstream.name, name) in required or name in flow.get(upstream.name, ())
                if wanted and name not in known:
                    known.append(name)


def _key(each: tuple[Stage, str]) -> tuple[str, str]:
    return each[0].name, each[1]
