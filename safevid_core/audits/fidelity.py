"""Which describer the reconciliation bears out, and which contradicts the others, attribute by attribute.

Without labels this is agreement between witnesses, not truth: a mistake that all of them make is invisible.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from safevid_core.audits.audit_rows import Observation, cluster_of, figure_row, mean_of
from safevid_core.lake import WHOLE, Lake, StageReport, frame_hash, run_stage
from safevid_core.records import DESCRIPTIONS, StageRows, audit_table, sequence_outcomes
from safevid_core.settings import Settings

TABLE = audit_table("description_fidelity_audit")
_MEASURES = ("agreement", "coverage", "contradiction")
_COLUMNS = ("clip_id", "source_id", "twin_group", "claims", "dropped", *_MEASURES)


def make_description_fidelity_audit(settings: Settings, lake: Lake) -> StageReport:
    """Per witness and attribute: how often what it asserted was kept, and how often it contradicted."""
    descriptions = lake.scan(DESCRIPTIONS).select(_COLUMNS).sort("clip_id").collect()
    ids = descriptions["clip_id"].to_list()

    def compute() -> StageRows:
        clips = descriptions.to_dicts()
        rows = [
            figure_row(
                name,
                "all",
                mean_of((c["clip_id"], cluster_of(c), c[name]) for c in clips if c[name] is not None),
            )
            for name in _MEASURES
        ]
        kept, contradicted = _stances(clips)
        for measure, found in (("assertions kept", kept), ("claims contradicted", contradicted)):
            rows += [
                figure_row(measure, f"{witness}: {attribute}", mean_of(observations))
                for (witness, attribute), observations in sorted(found.items())
            ]
        return StageRows(TABLE.frame(rows), sequence_outcomes(ids, "ok"), {"clips": len(clips)})

    return run_stage(lake, TABLE, WHOLE, {"descriptions": frame_hash(descriptions)}, ids, compute)


_Found = dict[tuple[str, str], list[Observation]]


def _stances(clips: list[dict[str, Any]]) -> tuple[_Found, _Found]:
    """(witness, attribute) -> was each of its assertions kept; did it contradict each kept claim."""
    kept: _Found = defaultdict(list)
    contradicted: _Found = defaultdict(list)
    for clip in clips:
        cluster = cluster_of(clip)
        for column, was_kept in (("claims", 1.0), ("dropped", 0.0)):
            for place, claim in enumerate(_claims(clip[column])):
                unit = f"{clip['clip_id']} {column} {place}"
                attribute = str(claim.get("attribute") or "other")
                for witness in claim.get("asserted_by", ()):
                    kept[witness, attribute].append((unit, cluster, was_kept))
                if column == "claims":
                    against = set(claim.get("contradicted_by", ()))
                    for witness in against | set(claim.get("asserted_by", ())):
                        contradicted[witness, attribute].append((unit, cluster, float(witness in against)))
    return kept, contradicted


def _claims(text: str | None) -> list[Mapping[str, Any]]:
    return [claim for claim in json.loads(text or "[]") if isinstance(claim, dict)]
