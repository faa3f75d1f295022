"""The audit of lost detail: measurements and claims about a clip that its reconciled description lacks."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safevid_core.audits.audit_rows import Observation, audit_stage, figure_row, mean_of, with_clusters
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.rows import rows_of
from safevid_core.contracts.tables import DESCRIPTIONS, SIGNAL_DESCRIPTIONS, audit_table
from safevid_core.descriptions.motion_words import described_motion, measured_motion
from safevid_core.descriptions.signals.flashes import FLASH_LIMIT, most_flashes
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import frame_hash

TABLE = audit_table("detail_loss_audit")

_FLASH_WORDS = re.compile(r"\bflash\w*|\bflicker\w*|\bstrob\w*|\bblink\w*", re.IGNORECASE)
_CUT_WORDS = re.compile(r"\bcuts?\b|\bshots?\b|\bscene changes?\b|\bthen\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Clip:
    """A described clip; `claims`, `dropped` and `measurements` are JSON."""

    clip_id: str
    cluster: str
    text: str | None
    claims: str | None
    dropped: str | None
    measurements: str | None


def plan_detail_loss_audit(tools: Tools, partition: str) -> Plan:
    """Plan to measure the share of clips whose text lacks a measurement, and of claims that were dropped
    although no witness contradicted them."""
    lake = tools.lake
    measured = lake.scan(SIGNAL_DESCRIPTIONS).select("clip_id", "measurements").collect()
    clips = (
        lake.scan(DESCRIPTIONS)
        .select("clip_id", "source_id", "twin_group", "text", "claims", "dropped")
        .collect()
        .join(measured, on="clip_id", how="left")
        .sort("clip_id")
    )
    ids = clips["clip_id"].to_list()

    def make(clip_ids: Sequence[str]) -> StageRows:
        rows = rows_of(with_clusters(clips), _Clip)
        lost = _lost_measurements(rows)
        figures = [
            figure_row("measured, not in the text", name, mean_of(lost[name]), detail)
            for name, (detail, _, _) in _SIGNALS.items()
        ]
        figures += [
            figure_row("claimed, dropped uncontradicted", kind, mean_of(observations))
            for kind, observations in sorted(_dropped_claims(rows).items())
        ]
        return StageRows(TABLE.frame(figures), sequence_outcomes(ids, "ok"), {"clips": len(rows)})

    return Plan({"clips": frame_hash(clips)}, ids, make)


# Signal -> the row's detail, whether a clip's measurements have it, and whether the text mentions it.
_SIGNALS: Mapping[
    str, tuple[str, Callable[[Mapping[str, Any]], bool], Callable[[str, Mapping[str, Any]], bool]]
] = {
    "motion": (
        "one direction, or stillness, was measured; the text says no motion",
        lambda m: measured_motion(m) is not None,
        lambda text, m: described_motion(text) is not None,
    ),
    "flashes above the limit": (
        f"more than {FLASH_LIMIT} flashes in a second; the text speaks of none",
        lambda m: most_flashes(m) > FLASH_LIMIT,
        lambda text, m: bool(_FLASH_WORDS.search(text)),
    ),
    "cuts": (
        "a shot cut was found; the text speaks of one scene",
        lambda m: bool(m.get("cuts_s")),
        lambda text, m: bool(_CUT_WORDS.search(text)),
    ),
    "colours that move": (
        "the colour of what moves was measured; the text names none of them",
        lambda m: bool(m.get("moving_colours")),
        lambda text, m: any(
            re.search(rf"\b{re.escape(colour['name'])}", text, re.IGNORECASE)
            for colour in m["moving_colours"]
        ),
    ),
}


def _lost_measurements(clips: Sequence[_Clip]) -> dict[str, list[Observation]]:
    """Signal -> for each clip that has it, whether the text lacks it."""
    found: dict[str, list[Observation]] = defaultdict(list)
    for clip in clips:
        if clip.measurements is None:
            continue
        measurements = json.loads(clip.measurements)
        for name, (_, is_there, is_said) in _SIGNALS.items():
            if is_there(measurements):
                lost = not is_said(clip.text or "", measurements)
                found[name].append((clip.clip_id, clip.cluster, float(lost)))
    return found


def _dropped_claims(clips: Sequence[_Clip]) -> dict[str, list[Observation]]:
    """Kind -> for each claim that no witness contradicted, whether it was dropped."""
    found: dict[str, list[Observation]] = defaultdict(list)
    for clip in clips:
        for column, claims, dropped in (("claims", clip.claims, 0.0), ("dropped", clip.dropped, 1.0)):
            for place, claim in enumerate(json.loads(claims or "[]")):
                if not claim.get("contradicted_by"):
                    unit = f"{clip.clip_id} {column} {place}"
                    found[str(claim.get("kind") or "other")].append((unit, clip.cluster, dropped))
    return found


STAGE = audit_stage(
    TABLE,
    "What was measured or claimed and did not reach the reconciled description.",
    plan_detail_loss_audit,
    (DESCRIPTIONS.name, SIGNAL_DESCRIPTIONS.name),
)
