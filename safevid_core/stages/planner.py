"""Tells which partitions are fresh, and plans the others. Each plan is computed once a run.

Planning reads the tables from which a partition is made. To save that, the planner stores a mark beside each
partition that it found fresh. While the upstream partitions, the settings, the watched files and the code are
unchanged, the mark alone shows that the partition is fresh.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import safevid_core
from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.settings import Settings
from safevid_core.stages.stage import Forecast, Plan, Stage, Tools
from safevid_core.storage.lake import Manifest, stage_fingerprint, to_be_asked_again
from safevid_core.taxonomy.taxonomy import taxonomy_files

Condition = Literal["fresh", "incomplete", "stale", "missing", "blocked"]


@dataclass(frozen=True)
class State:
    """The state of a partition.

    Attributes:
        condition: `fresh`: a run would make the same partition. `incomplete`: fresh, but a later run asks or
            reads some units again. `stale`: its inputs have changed. `missing`: it was never made. `blocked`:
            an upstream partition is missing.
        manifest: The manifest of the committed partition. None if it was never committed.
        fingerprint: The fingerprint that a run would give it now. Empty if it is not known.
        reason: Why it is not fresh, for people. Example: "changed: texts".
    """

    condition: Condition
    manifest: Manifest | None = None
    fingerprint: str = ""
    reason: str = ""

    @property
    def to_make(self) -> bool:
        """Whether a run would make it."""
        return self.condition in ("incomplete", "stale", "missing")


class Planner:
    """Plans partitions and tells their state.

    A planner serves one run. It keeps each plan until :meth:`forget`.

    Args:
        retry_failed: Whether a run asks again where the ledger holds an unusable answer. Defaults to
            `models.retry_failed`.
        only_reads: Whether nothing is made while the planner lives, so that it reads each manifest once.
    """

    def __init__(self, tools: Tools, *, retry_failed: bool | None = None, only_reads: bool = False) -> None:
        self.tools = tools
        self.registry = tools.registry
        settings = tools.settings
        self.retry_failed = settings.models.retry_failed if retry_failed is None else retry_failed
        self._plans: dict[tuple[str, str], Plan] = {}
        self._circumstances: dict[tuple[str, str], str] = {}
        self._rows = cache(self._expected_rows)
        self._behind = cache(self._first_behind)
        self._manifest = cache(tools.lake.manifest) if only_reads else tools.lake.manifest

    def plan(self, stage: Stage, partition: str) -> Plan:
        """The plan of a partition. It is computed at the first call and kept."""
        key = (stage.name, partition)
        if key not in self._plans:
            circumstances = self._circumstances_of(stage, partition)
            self._plans[key] = stage.plan(self.tools, partition)
            self._circumstances[key] = circumstances
        return self._plans[key]

    def is_planned(self, stage: Stage, partition: str) -> bool:
        """Whether the planner holds the plan of a partition."""
        return (stage.name, partition) in self._plans

    def forget(self, stage: Stage, partition: str) -> None:
        """Drop the plan of a partition that needs it no more."""
        self._plans.pop((stage.name, partition), None)
        self._circumstances.pop((stage.name, partition), None)

    def committed(self, stage: Stage, partition: str, manifest: Manifest) -> None:
        """Note that a partition was made by its plan."""
        self.mark(stage, partition, manifest)
        self._rows.cache_clear()
        self._behind.cache_clear()

    def state(self, stage: Stage, partition: str) -> State:
        """The present state of a partition.

        Raises:
            SafeVidError: If the partition cannot be planned. Example: a watched file is missing.
        """
        manifest = self._manifest(stage.name, partition)
        if manifest is not None and self._is_marked(stage, partition, manifest):
            return self._complete_or_not(manifest)
        missing = self.missing_input(stage, partition)
        if missing:
            return State("blocked", manifest, reason=f"{missing} is not made yet")
        plan = self.plan(stage, partition)
        fingerprint = stage_fingerprint(self.tools.lake, stage.table, plan.inputs)
        if manifest is None:
            return State("missing", None, fingerprint, "never made")
        if manifest.fingerprint == fingerprint or plan.pinned:
            self.mark(stage, partition, manifest)
            return self._complete_or_not(manifest)
        return State("stale", manifest, fingerprint, _what_changed(manifest, plan))

    def standing(self, stage: Stage, partition: str) -> State:
        """As :meth:`state`, for people: a plan may be impossible until an upstream stage has run again.

        Example: the benchmark was drawn anew, and the responses are still of its earlier release. No scores
        can be planned from the two. The committed scores are `stale`, and nothing has failed.

        Raises:
            SafeVidError: If the partition cannot be planned although everything upstream is fresh.
        """
        try:
            return self.state(stage, partition)
        except Exception as error:  # polars raises errors of its own for rows of an earlier version
            manifest = self._manifest(stage.name, partition)
            behind = "" if manifest is None else self._behind(stage.name, partition)
            if not behind:
                raise
            line = " ".join(str(error).split())
            return State("stale", manifest, reason=f"{behind} is to be made again first ({line})")

    def _first_behind(self, stage: str, partition: str) -> str:
        """The first committed upstream partition that is stale or cannot be planned. Empty if none is."""
        for upstream, name in self._inputs(self.registry[stage], partition):
            if self._manifest(upstream.name, name) is None:
                continue  # it is optional, or :meth:`lacking` tells of it
            planned = self.is_planned(upstream, name)
            try:
                stale = self.standing(upstream, name).condition == "stale"
            except Exception:
                stale = True
            finally:
                if not planned:
                    self.forget(upstream, name)
            if stale:
                return name_of(upstream, name)
            behind = self._behind(upstream.name, name)
            if behind:
                return behind
        return ""

    def missing_input(self, stage: Stage, partition: str) -> str:
        """The first missing upstream partition that this one needs. Empty if none is missing."""
        for upstream, name in self.required(stage, partition):
            if self._manifest(upstream.name, name) is None:
                return name_of(upstream, name)
        return ""

    def required(self, stage: Stage, partition: str) -> Iterator[tuple[Stage, str]]:
        """The upstream partitions without which this one cannot be made.

        A stage that reads all partitions of another stage is made from those that are committed.
        """
        return self.registry.needed(stage, partition, self.tools.settings)

    def _wholly_missing(self, stage: Stage, partition: str) -> str:
        """An upstream stage of which no partition is committed. Empty if there is none."""
        committed: dict[str, bool] = {}
        for upstream, name in self._inputs(stage, partition):
            if upstream.name not in stage.optional:
                found = self._manifest(upstream.name, name) is not None
                committed[upstream.name] = committed.get(upstream.name, False) or found
        return next((name for name, found in committed.items() if not found), "")

    def forecast(self, stage: Stage, partition: str) -> Forecast:
        """The rows and questions of a partition: from its plan, or its forecast if inputs are missing."""
        if not stage.asks:
            return Forecast(self._rows(stage.name, partition))
        try:
            missing = self.missing_input(stage, partition) or self._wholly_missing(stage, partition)
            plan = None if missing else self.plan(stage, partition)
        except SafeVidError:
            plan = None  # example: a policy without a checkpoint
        if plan is not None:
            return Forecast(self._rows(stage.name, partition), plan.questions)
        assert stage.forecast is not None, f"stage {stage.name} asks models and has no forecast"
        return stage.forecast(self.tools, partition, self._rows)

    def _expected_rows(self, name: str, partition: str) -> int:
        """Rows of a committed partition, else of its forecast. 0 if the stage has no forecast."""
        manifest = self._manifest(name, partition)
        if manifest is not None:
            return manifest.rows
        stage = self.registry[name]
        return stage.forecast(self.tools, partition, self._rows).rows if stage.forecast else 0

    def open_units(self, manifest: Manifest) -> int:
        """How many units of a committed partition a run would ask or read again."""
        return to_be_asked_again(manifest, retry_failed=self.retry_failed)

    def _complete_or_not(self, manifest: Manifest) -> State:
        left = self.open_units(manifest)
        if not left:
            return State("fresh", manifest, manifest.fingerprint)
        return State("incomplete", manifest, manifest.fingerprint, f"{left} units to be asked or read again")

    # ---------------------------------------------------------------------------------------- marks

    def mark(self, stage: Stage, partition: str, manifest: Manifest) -> None:
        """Store the mark that shows a partition to be fresh."""
        self.tools.lake.write_mark(stage.name, partition, self._mark(stage, partition, manifest))

    def _is_marked(self, stage: Stage, partition: str, manifest: Manifest) -> bool:
        if not all(path.exists() for path in stage.writes(self.tools.settings)):
            return False
        mark = self.tools.lake.read_mark(stage.name, partition)
        return bool(mark) and mark == self._mark(stage, partition, manifest)

    def _mark(self, stage: Stage, partition: str, manifest: Manifest) -> str:
        return content_id(manifest.files["rows"], self._circumstances_of(stage, partition))

    def _circumstances_of(self, stage: Stage, partition: str) -> str:
        """Names everything that a plan depends on, as it was just before the partition was planned.

        If another process commits an input later on, the mark is void and the partition is planned once more.
        """
        key, settings = (stage.name, partition), self.tools.settings
        if key in self._circumstances:
            return self._circumstances[key]
        return content_id(
            stage.table.version,
            self._settings_text,
            _code_text(tuple(settings.stages)),
            *(self._generation(read.name, name) for read, name in self._inputs(stage, partition)),
            *(_stamp(path) for path in (*taxonomy_files(settings), *stage.watches(settings))),
        )

    def _inputs(self, stage: Stage, partition: str) -> Iterator[tuple[Stage, str]]:
        return self.registry.inputs(stage, partition, self.tools.settings)

    def _generation(self, name: str, partition: str) -> str:
        """The file of a partition's rows; empty if the partition is not committed."""
        manifest = self._manifest(name, partition)
        return "" if manifest is None else manifest.files["rows"]

    @cached_property
    def _settings_text(self) -> str:
        return settings_text(self.tools.settings)


def name_of(stage: Stage, partition: str) -> str:
    """A partition for people: `descriptions[kitchen]`, or `clip_manifest` for a table that is one."""
    return f"{stage.name}[{partition}]" if stage.partitions.axes else stage.name


def settings_text(settings: Settings) -> str:
    """The settings on which plans may depend, as JSON. The folder of the lake is left out."""
    return settings.model_dump_json(exclude={"root"})


def _what_changed(manifest: Manifest, plan: Plan) -> str:
    """The names of the inputs that differ from those of the committed partition."""
    names = {*manifest.inputs, *plan.inputs}
    changed = sorted(name for name in names if manifest.inputs.get(name) != plan.inputs.get(name))
    return f"changed: {', '.join(changed)}" if changed else "made by an earlier version"


@cache
def _code_text(extensions: tuple[str, ...]) -> str:
    """Sizes and times of the package's own files and of the modules that extend it.

    A changed line of code, or of a file that the code reads, makes every mark void.
    """
    files = [Path(safevid_core.__file__)]
    files += (Path(str(sys.modules[name].__file__)) for name in extensions if name in sys.modules)
    return content_id(*(_stamp(file.parent if file.name == "__init__.py" else file) for file in files))


def _stamp(path: Path) -> str:
    """Size, time and inode of a file, or of all files of a folder. Empty if the path does not exist."""
    if path.is_dir():
        files: Sequence[Path] = sorted(
            each for each in path.rglob("*") if each.suffix != ".pyc" and each.is_file()
        )
        return content_id(*(f"{str(each.relative_to(path))!a} {_stamp(each)}" for each in files))
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
