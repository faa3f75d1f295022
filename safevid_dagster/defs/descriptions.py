"""What each describer says of a clip, what the pixels say, the reconciled description, and lossy ones."""

import dagster as dg

from safevid_core.descriptions.lossy import make_lossy_descriptions
from safevid_core.descriptions.reconciliation import make_descriptions
from safevid_core.descriptions.signal import make_signal_descriptions
from safevid_core.descriptions.synthesis import make_candidate_descriptions
from safevid_core.records import DESCRIPTIONS, LOSSY_DESCRIPTIONS, SIGNAL_DESCRIPTIONS, candidate_table
from safevid_dagster.defs.checks import conserves
from safevid_dagster.defs.corpus import video_corpus
from safevid_dagster.defs.partitions import LOSSY_SCENES, SCENES, lossy_partition, settings
from safevid_dagster.defs.resources import SafeVid


def _describer(describer: str) -> dg.AssetsDefinition:
    table = candidate_table(describer)

    @dg.asset(
        name=table.name,
        group_name="descriptions",
        kinds={"pytorch"},
        deps=[video_corpus],
        partitions_def=SCENES,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="video_model",
        check_specs=[conserves(table.name)],
        description=f"Candidate descriptions by {describer}.",
    )
    def candidates(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
        return safevid.partitions(
            context,
            table,
            lambda scene: make_candidate_descriptions(
                safevid.settings, safevid.lake, describer, scene, safevid.gateway
            ),
        )

    return candidates


candidate_descriptions = [_describer(name) for name in settings.descriptions.describers]


@dg.asset(
    group_name="descriptions",
    kinds={"numpy"},
    deps=[video_corpus],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("signal_descriptions")],
)
def signal_descriptions(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Duration, cuts, flashes, colours and motion, measured from the pixels by no model."""
    return safevid.partitions(
        context,
        SIGNAL_DESCRIPTIONS,
        lambda scene: make_signal_descriptions(safevid.settings, safevid.lake, scene),
    )


@dg.asset(
    group_name="descriptions",
    kinds={"polars"},
    deps=[video_corpus, signal_descriptions, *candidate_descriptions],
    partitions_def=SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("descriptions")],
)
def descriptions(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """One description a clip, from the claims that its witnesses support, with what was dropped and why."""
    return safevid.partitions(
        context,
        DESCRIPTIONS,
        lambda scene: make_descriptions(safevid.settings, safevid.lake, scene, safevid.gateway),
    )


@dg.asset(
    group_name="descriptions",
    kinds={"polars"},
    deps=[descriptions],
    partitions_def=LOSSY_SCENES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("lossy_descriptions")],
)
def lossy_descriptions(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Descriptions that lose a detail on purpose: for control arms."""
    return safevid.partitions(
        context,
        LOSSY_DESCRIPTIONS,
        lambda partition: make_lossy_descriptions(
            safevid.settings, safevid.lake, *lossy_partition(partition), safevid.gateway
        ),
    )
