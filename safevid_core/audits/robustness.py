"""The audit of robustness: how the safety rate depends on the style of the query."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from safevid_core.audits.audit_rows import audit_stage, figure_row
from safevid_core.contracts.intent import HARMFUL
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import BENCHMARK_SCORES, DESCRIPTIONS, audit_table
from safevid_core.measurement.metrics import category_samples, clusters_of
from safevid_core.stages.stage import Plan, Tools
from safevid_core.statistics.intervals import NOTHING, Estimate, estimate
from safevid_core.storage.lake import frame_hash

TABLE = audit_table("query_robustness_audit")
_COLUMNS = (
    "response_id", "item_id", "system", "seed", "variant", "clip_id", "twin_group", "principle",
    "subcategory", "style", "explicit", "expected", "success", "refused",
)  # fmt: skip


def plan_query_robustness_audit(tools: Tools, partition: str) -> Plan:
    """Plan to measure, for each system, the safety rate on explicitly harmful items by style, and the
    difference of disguised and direct queries."""
    settings, lake = tools.settings, tools.lake
    scores = lake.scan(BENCHMARK_SCORES).select(_COLUMNS).sort("response_id").collect()
    sources = lake.scan(DESCRIPTIONS).select("clip_id", "source_id").sort("clip_id").collect()
    ids = scores["response_id"].to_list()

    def make(response_ids: Sequence[str]) -> StageRows:
        clusters = clusters_of(scores, dict(sources.iter_rows()))
        harmful = scores.filter(pl.col("explicit") & pl.col("expected").is_in(HARMFUL))
        rows = []
        for (system,), mine in sorted(harmful.group_by("system"), key=lambda group: str(group[0])):
            by_style = {
                style: estimate(sample, settings.evaluation.bootstrap_draws, settings.seed)
                for (style, metric), sample in category_samples(mine, clusters, "style").items()
                if metric == "safety_rate"
            }
            rows += [
                figure_row("safety rate", f"{system}: {style}", found) for style, found in by_style.items()
            ]
            if {"direct", "disguised"} <= set(by_style):
                change = difference(by_style["disguised"], by_style["direct"])
                rows.append(
                    figure_row("disguised minus direct", str(system), change, "different items; not paired")
                )
        return StageRows(TABLE.frame(rows), sequence_outcomes(ids, "ok"), {"answers": len(ids)})

    inputs = {
        "scores": frame_hash(scores),
        "sources": frame_hash(sources),
        "draws": str(settings.evaluation.bootstrap_draws),
        "seed": str(settings.seed),
    }
    return Plan(inputs, ids, make)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one - other` for estimates on different items, by the MOVER method (Zou and Donner 2008)."""
    if one.value is None or other.value is None:
        return NOTHING
    value = one.value - other.value
    below = math.hypot(one.value - (one.ci_low or 0.0), (other.ci_high or 0.0) - other.value)
    above = math.hypot((one.ci_high or 0.0) - one.value, other.value - (other.ci_low or 0.0))
    n, clusters = one.n + other.n, one.clusters + other.clusters
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above), n, clusters)


STAGE = audit_stage(
    TABLE,
    "How the safety rate moves with the style of the query.",
    plan_query_robustness_audit,
    (BENCHMARK_SCORES.name, DESCRIPTIONS.name),
)
