"""Queries beyond pilot size wait until people have checked the descriptions that they are made from."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import (
    DESCRIPTION_FIDELITY_AUDIT,
    DESCRIPTIONS,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
)
from safevid_core.settings import Settings
from safevid_core.stages.planner import Planner
from safevid_core.stages.stage import Gate, Stage
from safevid_core.storage.lake import WHOLE, Lake, frame_hash

# Scores of a description, each from 0 to 1.
MEASURES = ("agreement", "coverage", "contradiction")
# What the audit sees of a description.
AUDITED = ("clip_id", "source_id", "twin_group", "claims", "dropped", "witnesses", *MEASURES)


class AuditNeeded(SafeVidError, RuntimeError):
    """Queries beyond pilot size without a signed audit that passes; the message says what is missing."""


def require_audit(settings: Settings, lake: Lake, scenes: Sequence[str]) -> None:
    """Let queries on some scenes pass that are of pilot size, or rest on descriptions that people checked.

    Pilot size counts the training clips of these scenes and of those that have queries already, so that it is
    not passed scene by scene.

    Raises:
        AuditNeeded: For any other, unless the settings do not require an audit.
    """
    if not settings.descriptions.audit.required:
        return
    share = _share(lake, {*scenes, *lake.partitions(TAXONOMY_QUERIES.name)})
    if share <= settings.models.pilot_fraction:
        return
    lacking = what_is_missing(lake)
    if not lake.scan(DESCRIPTIONS).select("clip_id").head(1).collect().height:
        raise AuditNeeded("there is no description to write queries from; materialise descriptions first")
    if lacking:
        raise AuditNeeded(
            f"queries on {share:.0%} of the training clips are beyond a pilot "
            f"({settings.models.pilot_fraction:.0%}): {lacking}; or set descriptions.audit.required to "
            "false, and the data set card says so"
        )


def what_is_missing(lake: Lake) -> str:
    """Why the audit of the descriptions as they are does not pass, and the fix; empty if it does."""
    manifest = lake.manifest(DESCRIPTION_FIDELITY_AUDIT.name, WHOLE)
    if manifest is None or manifest.inputs.get("descriptions") != frame_hash(described_clips(lake)):
        return "the descriptions have changed since they were audited; materialise description_fidelity_audit"
    info = manifest.info
    if info["passed"]:
        return ""
    if "sheet" not in info:
        return "there is no description to audit"
    if info["open_rows"] or info["problems"]:
        return f"{info['open_rows']} rows of {info['sheet']} have no verdict that can be used; fill it in"
    high = info["hallucination"]["ci_high"]
    if high is None or high > info["max_hallucination"]:
        found = "unknown" if high is None else f"up to {high:.1%}"
        return f"the hallucination rate may be {found}, more than {info['max_hallucination']:.0%}"
    return f"nobody has signed audit {info['audit']}; add it to sign_off.yaml beside {info['sheet']}"


def _share(lake: Lake, scenes: set[str]) -> float:
    """Of all training clips, those of these scenes; 1 where there are none."""
    train = lake.scan(VIDEO_CORPUS).filter(pl.col("split") == "train").select("scene").collect()
    asked = train.filter(pl.col("scene").is_in(sorted(scenes)))
    return asked.height / train.height if train.height else 1.0


def described_clips(lake: Lake) -> pl.DataFrame:
    """What the audit sees of every description, by clip id."""
    return lake.scan(DESCRIPTIONS).select(AUDITED).sort("clip_id").collect()


def _require(planner: Planner, stage: Stage, partitions: Sequence[str]) -> None:
    try:
        require_audit(planner.tools.settings, planner.tools.lake, partitions)
    except AuditNeeded as error:
        raise AuditNeeded(f"{stage.name}: {error}") from None


SIGNED_AUDIT = Gate(
    "signed_audit",
    "Queries beyond pilot size wait until people have checked the descriptions.",
    _require,
)
