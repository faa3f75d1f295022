"""Adversarial and benign queries, grounded in the description, from a walk of the safety taxonomy."""

from functools import partial

import dagster as dg

from safevid_core.audits.gate import AuditNeeded, require_audit
from safevid_core.lake import StageReport
from safevid_core.preferences.refusals import refused_queries
from safevid_core.queries.generation import make_taxonomy_queries
from safevid_core.records import (
    LOSSY_QUERIES,
    QUERIES_WITHOUT_DESCRIPTIONS,
    TAXONOMY_QUERIES,
    WITHOUT_DESCRIPTIONS,
    lossy,
)
from safevid_dagster.defs.checks import by_loss, conserves, refusals, refusals_spec, with_check
from safevid_dagster.defs.descriptions import descriptions, lossy_descriptions
from safevid_dagster.defs.partitions import LOSSY_SCENES, SCENES, lossy_partition
from safevid_dagster.defs.resources import SafeVid


@dg.asset(
    group_name="queries",
    kinds={"polars"},
    deps=[descriptions],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("taxonomy_queries"), refusals_spec("taxonomy_queries")],
)
def taxonomy_queries(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Queries on the training clips of a scene; the weak ones are filtered. Beyond pilot size they wait until
    people have checked the descriptions."""
    try:
        require_audit(safevid.settings, safevid.lake, context.partition_keys)
    except AuditNeeded as error:
        raise dg.Failure(f"taxonomy_queries: {error}") from None
    result = safevid.partitions(
        context,
        TAXONOMY_QUERIES,
        lambda scene: make_taxonomy_queries(safevid.settings, safevid.lake, scene, safevid.gateway),
    )
    refused = refusals("taxonomy_queries", refused_queries(safevid.settings, safevid.lake))
    return with_check(result, refused)


@dg.asset(
    group_name="queries",
    kinds={"polars"},
    deps=[descriptions],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("queries_without_descriptions"), refusals_spec("queries_without_descriptions")],
)
def queries_without_descriptions(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Queries on the same clips by an asker that is told nothing of them: for a control arm."""
    result = safevid.partitions(
        context,
        QUERIES_WITHOUT_DESCRIPTIONS,
        lambda scene: make_taxonomy_queries(
            safevid.settings, safevid.lake, scene, safevid.gateway, track=WITHOUT_DESCRIPTIONS
        ),
    )
    refused = refused_queries(safevid.settings, safevid.lake, WITHOUT_DESCRIPTIONS)
    return with_check(result, refusals("queries_without_descriptions", refused))


@dg.asset(
    group_name="queries",
    kinds={"polars"},
    deps=[lossy_descriptions],
    partitions_def=LOSSY_SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("lossy_queries"), refusals_spec("lossy_queries")],
)
def lossy_queries(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Queries from descriptions that lost a detail: for control arms."""

    def make(partition: str) -> StageReport:
        loss, scene = lossy_partition(partition)
        return make_taxonomy_queries(
            safevid.settings, safevid.lake, scene, safevid.gateway, track=lossy(loss)
        )

    result = safevid.partitions(context, LOSSY_QUERIES, make)
    refused = by_loss(partial(refused_queries, safevid.settings, safevid.lake))
    return with_check(result, refusals("lossy_queries", refused))
