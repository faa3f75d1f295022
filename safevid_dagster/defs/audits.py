"""Audits hang off descriptions, queries, pairs and scores; nothing is made from them."""

from collections.abc import Callable

import dagster as dg

from safevid_core.audits.drift import make_taxonomy_drift_audit
from safevid_core.audits.fidelity import make_description_fidelity_audit
from safevid_core.audits.loss_of_detail import make_detail_loss_audit
from safevid_core.audits.preference_style import make_preference_style_audit
from safevid_core.audits.robustness import make_query_robustness_audit
from safevid_core.audits.temporal import make_temporal_audit
from safevid_core.lake import Lake, StageReport
from safevid_core.records import audit_table
from safevid_core.settings import Settings
from safevid_dagster.defs.checks import conserves
from safevid_dagster.defs.resources import SafeVid


def _audit(
    name: str, of: str, make: Callable[[Settings, Lake], StageReport], says: str
) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name="audits",
        kinds={"polars"},
        deps=[of],
        check_specs=[conserves(name)],
        description=says,
    )
    def audit(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
        return safevid.whole(context, audit_table(name), lambda: make(safevid.settings, safevid.lake))

    return audit


audits = [
    _audit(
        "description_fidelity_audit",
        "descriptions",
        make_description_fidelity_audit,
        "How far the describers agree; what people say of a sample, for whom it writes a sheet to fill in.",
    ),
    _audit(
        "detail_loss_audit",
        "descriptions",
        make_detail_loss_audit,
        "What was measured or claimed and did not reach the reconciled description.",
    ),
    _audit(
        "temporal_audit",
        "descriptions",
        make_temporal_audit,
        "How often the described direction of motion is the one measured from the pixels, and how often the "
        "opposite one, which only the order of the frames tells apart.",
    ),
    _audit(
        "preference_style_audit",
        "safevid_350k_release",
        make_preference_style_audit,
        "How often a chosen answer is told from the rejected one by its words or its length alone.",
    ),
    _audit(
        "taxonomy_drift_audit",
        "taxonomy_queries",
        make_taxonomy_drift_audit,
        "Which subcategories the queries cover, and how far training and benchmark differ.",
    ),
    _audit(
        "query_robustness_audit",
        "benchmark_scores",
        make_query_robustness_audit,
        "How the safety rate moves with the style of the query.",
    ),
]
