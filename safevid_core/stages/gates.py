"""The checks that all stages share, and the functions that apply gates and checks."""

from __future__ import annotations

from collections.abc import Sequence

from safevid_core.contracts.errors import SafeVidError
from safevid_core.stages.partitions import AXES
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Check, Finding, Stage, Tools
from safevid_core.storage.lake import LakeError, audit_partition


class CheckFailed(SafeVidError, RuntimeError):
    """A stage committed rows that fail a check. The stages that read them do not run."""


def require_gates(planner: Planner, stage: Stage, partitions: Sequence[str]) -> None:
    """Apply the gates of a stage in order. Return if all are open.

    Raises:
        SafeVidError: If a gate is closed. The message says what is missing and what to do.
    """
    for gate in stage.gates:
        gate.require(planner, stage, partitions)


def checks_of(stage: Stage) -> tuple[Check, ...]:
    """The checks of a stage: first that every row is accounted for, then the stage's own."""
    return (CONSERVATION, *stage.checks)


def _conserves(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
    problems = []
    for partition in partitions:
        try:
            audit_partition(tools.lake, stage.table, partition)
        except LakeError as error:
            problems.append(str(error))
    return Finding(tuple(problems), {"partitions": len(partitions)})


CONSERVATION = Check(
    "every_row_is_accounted_for",
    "Each input id has exactly one outcome, and each stored row a parent that ended ok.",
    _conserves,
)


def covers(parts: str) -> Check:
    """A check that the stage `parts` is committed for every scene, before its scenes are united."""

    def run(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
        wanted = set(AXES["scene"](tools.settings))
        missing = sorted(wanted - set(tools.lake.partitions(parts)))
        lines = tuple(f"{parts}[{scene}] is not made; make it, then {stage.name} again" for scene in missing)
        return Finding(lines, {"scenes": len(wanted)})

    return Check("every_scene_is_there", f"{parts} of every scene is committed.", run)


def _decides(tools: Tools, stage: Stage, partitions: Sequence[str]) -> Finding:
    lines, undecided = [], 0
    for partition in partitions:
        manifest = tools.lake.manifest(stage.name, partition)
        outcomes = manifest.outcomes if manifest is not None else {}
        undecided += outcomes.get("undecidable", 0)
        if 0 < outcomes.get("undecidable", 0) == sum(outcomes.values()):
            lines.append(
                f"{stage.name}[{partition}]: all {outcomes['undecidable']} rows are undecidable; look at the "
                "reasons in its outcomes, and at the judge's model"
            )
    return Finding(tuple(lines), {"undecidable": undecided})


SOME_DECIDED = Check(
    "some_row_is_decided",
    "In no partition is every row undecidable, as with a judge that never decides.",
    _decides,
)
