"""Alignment on the release, for each policy and control arm and each data scale."""

import contextlib
from collections.abc import Iterator

import dagster as dg

from safevid_core.alignment.dpo import Program, make_dpo_checkpoints
from safevid_core.records import DPO_CHECKPOINT
from safevid_dagster.defs.checks import conserves
from safevid_dagster.defs.partitions import CHECKPOINTS
from safevid_dagster.defs.preferences import (
    lossy_pairs,
    own_style_answers,
    pairs_without_descriptions,
    safevid_350k_release,
)
from safevid_dagster.defs.resources import SafeVid


def lake_partition(key: str) -> str:
    """`policy@scale` for a two-dimensional partition key."""
    assert isinstance(key, dg.MultiPartitionKey)
    return f"{key.keys_by_dimension['policy']}@{key.keys_by_dimension['data_scale']}"


def split_partition(partition: str) -> tuple[str, float]:
    """The policy and the data scale of a lake partition."""
    policy, scale = partition.rsplit("@", 1)
    return policy, float(scale)


@contextlib.contextmanager
def training_program(context: dg.AssetExecutionContext) -> Iterator[Program]:
    """The training as a process of its own, which tells this run's log how it goes."""
    with dg.open_pipes_session(
        context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
    ) as session:
        yield Program("safevid_dagster.training", session.get_bootstrap_env_vars())


@dg.asset(
    group_name="alignment",
    kinds={"pytorch"},
    deps=[safevid_350k_release, own_style_answers, pairs_without_descriptions, lossy_pairs],
    partitions_def=CHECKPOINTS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="training",
    check_specs=[conserves("dpo_checkpoint")],
)
def dpo_checkpoint(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """LoRA adapters aligned by DPO (beta 0.1, sigmoid, one epoch, vision tower frozen), one a seed."""

    return safevid.together(
        context,
        DPO_CHECKPOINT,
        lambda partitions: make_dpo_checkpoints(
            safevid.settings,
            safevid.lake,
            [split_partition(name) for name in partitions],
            lambda: training_program(context),
        ),
        lake_partition,
    )
