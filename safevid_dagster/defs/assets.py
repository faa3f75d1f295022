"""The assets: one for each stage of the registry."""

from collections.abc import Iterator

import dagster as dg

from safevid_core.pipeline import build_registry
from safevid_core.stages.gates import checks_of
from safevid_core.stages.stage import Stage
from safevid_dagster.defs.partitions import definition_of, settings
from safevid_dagster.defs.resources import SafeVid

registry = build_registry(settings)


def _deps(stage: Stage) -> Iterator[dg.AssetDep]:
    """The upstream assets of a stage's asset, each with a partition mapping if one is needed.

    If the upstream stage has an axis that the stage lacks, all upstream partitions count. Otherwise Dagster
    maps equal partitions to each other.
    """
    axes = set(stage.partitions.axes)
    for name in registry.nearest(stage):  # further stages are upstream of these
        upstream = set(registry[name].partitions.axes)
        if axes and upstream and not upstream <= axes:
            yield dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping())
        else:
            yield dg.AssetDep(name)


def _asset(stage: Stage) -> dg.AssetsDefinition:
    partitions = definition_of(stage.partitions.axes)

    @dg.asset(
        name=stage.name,
        description=stage.description,
        group_name=stage.group,
        kinds=set(stage.needs.kinds),
        deps=list(_deps(stage)),
        partitions_def=partitions,
        backfill_policy=None if partitions is None else dg.BackfillPolicy.single_run(),
        pool=stage.needs.pool,
        check_specs=[
            dg.AssetCheckSpec(check.name, asset=stage.name, blocking=True, description=check.description)
            for check in checks_of(stage)
        ],
    )
    def asset(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
        return safevid.make(context, stage)

    return asset


assets = [_asset(stage) for stage in registry]
