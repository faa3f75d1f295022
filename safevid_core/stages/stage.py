"""A stage: the declaration of how one artifact is made.

The registry, the fingerprints, the estimates, the runs, the Dagster assets and the pages of `safevid` are all
derived from these objects. A stage has a function that plans one of its partitions. The plan names inputs,
lists the units and the questions to models, and holds the function that makes the rows::

    def plan_word_counts(tools: Tools, scene: str) -> Plan:
        texts = tools.lake.read(DESCRIPTIONS, scene).select("clip_id", "text").sort("clip_id")

        def make(clip_ids: Sequence[str]) -> StageRows:
            rows = [{"clip_id": clip, "words": len(text.split())} for clip, text in texts.iter_rows()]
            return StageRows(WORD_COUNTS.frame(rows), sequence_outcomes(clip_ids, "ok"))

        return Plan({"texts": frame_hash(texts)}, texts["clip_id"].to_list(), make)

    STAGE = Stage(
        WORD_COUNTS, "audits", "Words of each description.", plan_word_counts, ("descriptions",), BY_SCENE
    )
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.settings import Settings, TextModel, VideoModel
from safevid_core.stages.partitions import ONE_TABLE, Partitions
from safevid_core.storage.lake import Lake

if TYPE_CHECKING:
    from safevid_core.models.llm import Gateway
    from safevid_core.stages.registry import Registry

Group = Literal[
    "corpus", "descriptions", "queries", "preferences", "alignment", "benchmarks", "evaluation", "audits"
]


@dataclass
class Tools:
    """The objects that a stage works with.

    Attributes:
        registry: All stages, for the stages that report on other stages.
        open_gateway: Opens the gateway to the models. It is called when a stage first asks a model.
        training_program: Gives the training program, a context manager. None uses the core's own program.
    """

    settings: Settings
    lake: Lake
    registry: Registry
    open_gateway: Callable[[], Gateway]
    training_program: Callable[[], Any] | None = None

    @cached_property
    def gateway(self) -> Gateway:
        """The gateway, opened at first use."""
        return self.open_gateway()


@dataclass(frozen=True)
class Questions:
    """The questions that a partition asks of one model.

    Attributes:
        count: The number of questions, with repetitions.
        keys: Returns the ledger keys of the questions that are known. None if the keys are not known.
        follow: Called with those of `keys` that have an answer. Gives the keys of the questions that follow
            from these answers, and the number of questions that are still unknown. None if none follows.
    """

    model: TextModel | VideoModel
    count: int
    keys: Callable[[], Collection[str]] | None = None
    follow: Callable[[Collection[str]], tuple[Collection[str], int]] | None = None


@dataclass(frozen=True)
class Plan:
    """The inputs of a partition as they are now, and the function that makes its rows.

    Planning makes no row and asks no model.

    Attributes:
        inputs: Name -> hash of everything that decides the rows: input rows, settings, revisions of models.
        units: Ids of the inputs. Each unit ends with exactly one outcome.
        make: Makes the rows of some units. It gets all units at once if `Needs.batch` is None.
        questions: The questions that `make` asks, one entry for each model.
        needs_rows: Whether a partition without rows is an error.
        inputs_after_make: Returns the inputs after `make`, if `make` changes the tables that the plan reads.
            None uses `inputs`.
        finish: Takes the united rows of all batches and returns the final rows, for figures over all rows.
            None keeps the united rows.
        on_fresh: Called after the partition is committed or found fresh. It writes missing files for people
            or removes scratch files. None does nothing.
        pinned: Whether the committed partition stays although its inputs changed. Example: a release in use.
        detail: Data for the stage itself. No other code reads it.
    """

    inputs: Mapping[str, str]
    units: Sequence[str]
    make: Callable[[Sequence[str]], StageRows]
    questions: tuple[Questions, ...] = ()
    needs_rows: bool = False
    inputs_after_make: Callable[[], Mapping[str, str]] | None = None
    finish: Callable[[StageRows], StageRows] | None = None
    on_fresh: Callable[[], None] | None = None
    pinned: bool = False
    detail: Any = None


@dataclass(frozen=True)
class Forecast:
    """What a partition will presumably hold and ask, as far as that is known while its inputs are missing.

    Attributes:
        rows: The expected number of rows.
        questions: The expected questions, one entry for each model.
    """

    rows: int
    questions: tuple[Questions, ...] = ()


# (stage, partition) -> the number of its rows: the committed rows, or the rows of its forecast.
ExpectedRows = Callable[[str, str], int]


@dataclass(frozen=True)
class Needs:
    """The resources that a stage needs.

    Attributes:
        kinds: Libraries or hardware that it uses, shown in Dagster: `pytorch`, `polars`.
        pool: The Dagster pool that limits how many such stages run at once. None means no limit.
        batch: Units in a batch. Each batch may run in another process. None makes all units in one call, in
            the process that runs the stage.
    """

    kinds: tuple[str, ...] = ("polars",)
    pool: str | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Gate:
    """A condition that must hold before a stage runs.

    Attributes:
        description: The condition in one sentence. Example: "A paid run beyond pilot size needs a budget."
        require: Called with the planner, the stage and the partitions. It raises an error of the
            `SafeVidError` family if the stage may not run.
    """

    name: str
    description: str
    require: Callable[[Any, Stage, Sequence[str]], None]


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        problems: One line for each problem. The check passed if it is empty.
        figures: Counts for people.
    """

    problems: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Check:
    """A condition that must hold after a stage ran. The stages that read its table do not run otherwise.

    Attributes:
        description: The condition in one sentence.
        run: Called with the tools, the stage and the partitions that were run.
    """

    name: str
    description: str
    run: Callable[[Tools, Stage, Sequence[str]], Finding]


# Partition -> the function that makes its rows.
Makers = Mapping[str, Callable[[], StageRows]]
SharedWorkers = Callable[[Tools, Mapping[str, Plan]], AbstractContextManager[Makers]]


def all_partitions(stage: Stage, settings: Settings) -> Sequence[str]:
    """Every partition of a stage."""
    return stage.partitions.names(settings)


@dataclass(frozen=True)
class Stage:
    """The declaration of how one artifact is made.

    Attributes:
        table: The schema of its rows. The table and the stage have the same name.
        group: The part of the method to which it belongs, its group in Dagster.
        description: One sentence for people.
        plan: Plans one partition.
        reads: Names of the stages whose tables it reads.
        partitions: How its table is partitioned.
        wanted: Returns the partitions that the settings want. A stage without any is not in the flow, but
            can be run by name.
        forecast: Returns what a partition will presumably hold and ask while its inputs are missing. None if
            the stage has no forecast.
        asks: Whether it asks models.
        optional: The stages in `reads` that may be missing.
        made_from: Gives the partitions of `reads` from which one partition is made, as stage and partition:
            the responses of a system to a benchmark need that system's checkpoint only. The partition None
            means all of a stage. Where `made_from` is None, they are those with the same values on the
            shared axes.
        watches: Returns the files and folders outside the lake on which its plan depends.
        writes: Returns the files for people that its plan's `on_fresh` writes. A partition is planned again
            if one of them is missing.
        needs: The resources that it needs.
        gates: Conditions before it runs, in order.
        checks: Conditions after it ran. The check that every row is accounted for runs for all stages and is
            not listed.
        shared_workers: Opens workers that several partitions share. It is a context manager over the plans of
            the partitions to be made. It gives for each partition a function that replaces the plan's `make`.
    """

    table: Table
    group: Group
    description: str
    plan: Callable[[Tools, str], Plan]
    reads: tuple[str, ...] = ()
    partitions: Partitions = ONE_TABLE
    wanted: Callable[[Stage, Settings], Sequence[str]] = all_partitions
    forecast: Callable[[Tools, str, ExpectedRows], Forecast] | None = None
    asks: bool = False
    optional: frozenset[str] = frozenset()
    made_from: Callable[[Settings, str], Iterable[tuple[str, str | None]]] | None = None
    watches: Callable[[Settings], Sequence[Path]] = lambda settings: ()
    writes: Callable[[Settings], Sequence[Path]] = lambda settings: ()
    needs: Needs = Needs()
    gates: tuple[Gate, ...] = ()
    checks: tuple[Check, ...] = ()
    shared_workers: SharedWorkers | None = None

    @property
    def name(self) -> str:
        return self.table.name
