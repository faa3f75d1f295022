"""The audit of subcategories: which ones the queries cover, and how far training and benchmark differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from safevid_core.audits.audit_rows import audit_stage, count_row
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import SAFEVIDBENCH_BASE, TAXONOMY_QUERIES, audit_table
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import frame_hash
from safevid_core.taxonomy.taxonomy import load_taxonomy

TABLE = audit_table("taxonomy_drift_audit")


def plan_taxonomy_drift_audit(tools: Tools, partition: str) -> Plan:
    """Plan to measure the covered subcategories on both sides, their shares, and the divergence."""
    lake = tools.lake
    taxonomy = load_taxonomy(tools.settings)
    train = lake.scan(TAXONOMY_QUERIES).select("query_id", "subcategory").sort("query_id").collect()
    benchmark = lake.scan(SAFEVIDBENCH_BASE).select("item_id", "subcategory").sort("item_id").collect()
    ids = [*train["query_id"], *benchmark["item_id"]]

    def make(row_ids: Sequence[str]) -> StageRows:
        known = [each.id for each in taxonomy.subcategories]
        rows = drift_rows(Counter(train["subcategory"]), Counter(benchmark["subcategory"]), known)
        return StageRows(TABLE.frame(rows), sequence_outcomes(ids, "ok"), {"taxonomy": taxonomy.hash})

    inputs = {"train": frame_hash(train), "benchmark": frame_hash(benchmark), "taxonomy": taxonomy.hash}
    return Plan(inputs, ids, make)


def drift_rows(
    old: Mapping[str, int],
    new: Mapping[str, int],
    known: Sequence[str],
    names: tuple[str, str] = ("train", "benchmark"),
) -> list[dict[str, Any]]:
    """Audit rows that compare two sets of queries: two splits, or two releases.

    Args:
        old: Subcategory -> queries of the first set.
        new: Subcategory -> queries of the second set.
        known: All subcategories of the taxonomy.
        names: Names of the two sets.
    """
    rows = []
    for name, counts in zip(names, (old, new), strict=True):
        missing = [each for each in known if not counts.get(each)]
        covered = 1 - len(missing) / len(known)
        detail = f"none of: {', '.join(missing)}" if missing else ""
        rows.append(count_row("subcategories covered", name, sum(counts.values()), covered, detail))
    if sum(old.values()) and sum(new.values()):
        both = " to ".join(names)
        distance = jensen_shannon(old, new)
        detail = "bits; 0 the same shares, 1 nothing in common"
        rows.append(count_row("divergence", both, sum(old.values()) + sum(new.values()), distance, detail))
    for subcategory in known:
        shares = [counts.get(subcategory, 0) / max(sum(counts.values()), 1) for counts in (old, new)]
        n = old.get(subcategory, 0) + new.get(subcategory, 0)
        detail = f"{names[0]} {shares[0]:.1%}, {names[1]} {shares[1]:.1%}"
        rows.append(count_row("share shift", subcategory, n, shares[1] - shares[0], detail))
    return rows


def jensen_shannon(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Jensen-Shannon divergence of two sets of counts in bits: 0 for equal shares, 1 for disjoint ones."""
    total_one, total_other = sum(one.values()), sum(other.values())
    distance = 0.0
    for key in sorted(set(one) | set(other)):
        p, q = one.get(key, 0) / total_one, other.get(key, 0) / total_other
        middle = (p + q) / 2
        distance += sum(0.5 * each * math.log2(each / middle) for each in (p, q) if each > 0)
    return max(0.0, distance)


STAGE = audit_stage(
    TABLE,
    "Which subcategories the queries cover, and how far training and benchmark differ.",
    plan_taxonomy_drift_audit,
    (TAXONOMY_QUERIES.name, SAFEVIDBENCH_BASE.name),
    (SAFEVIDBENCH_BASE.name,),
)
