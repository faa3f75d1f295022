"""Preference pairs by scene, and their immutable release."""

from functools import partial

import dagster as dg

from safevid_core.lake import StageReport
from safevid_core.preferences.own_style import make_own_style_answers
from safevid_core.preferences.refusals import refused_pairs
from safevid_core.preferences.release import make_release
from safevid_core.preferences.responses import make_pairs
from safevid_core.records import (
    LOSSY_PAIRS,
    OWN_STYLE_ANSWERS,
    PAIRS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    RELEASE,
    WITHOUT_DESCRIPTIONS,
    lossy,
)
from safevid_dagster.defs.checks import (
    COVERAGE,
    by_loss,
    conserves,
    coverage,
    refusals,
    refusals_spec,
    with_check,
)
from safevid_dagster.defs.partitions import LOSSY_SCENES, SCENES, lossy_partition
from safevid_dagster.defs.queries import lossy_queries, queries_without_descriptions, taxonomy_queries
from safevid_dagster.defs.resources import SafeVid


@dg.asset(
    group_name="preferences",
    kinds={"pytorch"},
    deps=[taxonomy_queries],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="video_model",
    check_specs=[conserves("safevid_350k_pairs"), refusals_spec("safevid_350k_pairs")],
)
def safevid_350k_pairs(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """A careful answer from the description beside an unsafe one from the unaligned video model."""
    result = safevid.partitions(
        context,
        PAIRS,
        lambda scene: make_pairs(safevid.settings, safevid.lake, scene, safevid.gateway),
    )
    refused = refusals("safevid_350k_pairs", refused_pairs(safevid.lake))
    return with_check(result, refused)


@dg.asset(
    group_name="preferences",
    kinds={"polars"},
    deps=[safevid_350k_pairs],
    check_specs=[
        conserves("safevid_350k_release"),
        dg.AssetCheckSpec(COVERAGE, asset="safevid_350k_release", blocking=True),
    ],
)
def safevid_350k_release(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """All scenes' pairs as one release: its id is the hash of its rows; card and export beside it."""
    result = safevid.whole(context, RELEASE, lambda: make_release(safevid.settings, safevid.lake))
    covered = coverage(safevid.lake, RELEASE, PAIRS, SCENES.get_partition_keys())
    return with_check(result, covered)


@dg.asset(
    group_name="preferences",
    kinds={"pytorch"},
    deps=[safevid_350k_pairs],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="video_model",
    check_specs=[conserves("own_style_answers")],
)
def own_style_answers(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """The chosen answers as the policy before alignment would say them: for a control arm."""
    return safevid.partitions(
        context,
        OWN_STYLE_ANSWERS,
        lambda scene: make_own_style_answers(safevid.settings, safevid.lake, scene, safevid.gateway),
    )


@dg.asset(
    group_name="preferences",
    kinds={"pytorch"},
    deps=[queries_without_descriptions],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="video_model",
    check_specs=[conserves("pairs_without_descriptions"), refusals_spec("pairs_without_descriptions")],
)
def pairs_without_descriptions(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Pairs whose queries and chosen answers were made without descriptions: for a control arm."""
    result = safevid.partitions(
        context,
        PAIRS_WITHOUT_DESCRIPTIONS,
        lambda scene: make_pairs(
            safevid.settings, safevid.lake, scene, safevid.gateway, track=WITHOUT_DESCRIPTIONS
        ),
    )
    refused = refused_pairs(safevid.lake, WITHOUT_DESCRIPTIONS)
    return with_check(result, refusals("pairs_without_descriptions", refused))


@dg.asset(
    group_name="preferences",
    kinds={"pytorch"},
    deps=[lossy_queries],
    partitions_def=LOSSY_SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="video_model",
    check_specs=[conserves("lossy_pairs"), refusals_spec("lossy_pairs")],
)
def lossy_pairs(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Pairs whose queries and chosen answers rest on descriptions that lost a detail: for control arms."""

    def make(partition: str) -> StageReport:
        loss, scene = lossy_partition(partition)
        return make_pairs(safevid.settings, safevid.lake, scene, safevid.gateway, track=lossy(loss))

    result = safevid.partitions(context, LOSSY_PAIRS, make)
    return with_check(result, refusals("lossy_pairs", by_loss(partial(refused_pairs, safevid.lake))))
