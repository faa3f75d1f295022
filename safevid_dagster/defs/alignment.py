"""DPO on the release, for each policy and data scale."""

import dagster as dg

from safevid_core.alignment.dpo import make_dpo_checkpoint
from safevid_core.records import DPO_CHECKPOINT
from safevid_dagster.defs.checks import conserves
from safevid_dagster.defs.partitions import CHECKPOINTS
from safevid_dagster.defs.preferences import safevid_350k_release
from safevid_dagster.defs.resources import SafeVid


def lake_partition(key: str) -> str:
    """`policy@scale` for a two-dimensional partition key."""
    assert isinstance(key, dg.MultiPartitionKey)
    return f"{key.keys_by_dimension['policy']}@{key.keys_by_dimension['data_scale']}"


@dg.asset(
    group_name="alignment",
    kinds={"pytorch"},
    deps=[safevid_350k_release],
    partitions_def=CHECKPOINTS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    pool="training",
    check_specs=[conserves("dpo_checkpoint")],
)
def dpo_checkpoint(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """LoRA adapters aligned by DPO (beta 0.1, sigmoid, one epoch, vision tower frozen), one a seed."""

    def train(partition: str):
        policy, scale = partition.rsplit("@", 1)
        return make_dpo_checkpoint(safevid.settings, safevid.lake, policy, float(scale))

    return safevid.partitions(context, DPO_CHECKPOINT, train, lake_partition)
