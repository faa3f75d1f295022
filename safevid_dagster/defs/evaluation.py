"""Benchmarks, the answers of every system on them, their verdicts, the judges' own test, the scorecard."""

import dagster as dg

from safevid_core.evaluation.benchmarks.benchmark import OUTSIDE, make_outside_benchmark
from safevid_core.evaluation.benchmarks.safevidbench_base import make_safevidbench_base
from safevid_core.evaluation.benchmarks.safevidbench_challenge import make_safevidbench_challenge
from safevid_core.evaluation.judge_validation import make_judge_validation
from safevid_core.evaluation.leaks import answering_systems
from safevid_core.evaluation.promotion import make_promotion_decision
from safevid_core.evaluation.responses import make_benchmark_responses
from safevid_core.evaluation.scorecard import make_scorecard
from safevid_core.evaluation.scores import make_benchmark_scores
from safevid_core.evaluation.videos import make_video_report
from safevid_core.records import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    JUDGE_VALIDATION,
    PROMOTION_DECISION,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    SCORECARD,
    VIDEO_REPORT,
    benchmark_table,
)
from safevid_dagster.defs.alignment import dpo_checkpoint
from safevid_dagster.defs.checks import LEAKAGE, conserves, leakage, with_check
from safevid_dagster.defs.descriptions import descriptions
from safevid_dagster.defs.partitions import MEASUREMENTS
from safevid_dagster.defs.resources import SafeVid


@dg.asset(
    group_name="evaluation",
    kinds={"polars"},
    deps=[descriptions, "corpus_split"],
    check_specs=[
        conserves("safevidbench_base"),
        dg.AssetCheckSpec(LEAKAGE, asset="safevidbench_base", blocking=True),
    ],
)
def safevidbench_base(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Held-out phrasings over benchmark-split videos, balanced over scenes; an immutable release."""
    result = safevid.whole(
        context,
        SAFEVIDBENCH_BASE,
        lambda: make_safevidbench_base(safevid.settings, safevid.lake, safevid.gateway),
    )
    return with_check(result, leakage(safevid.lake, SAFEVIDBENCH_BASE, answering_systems(safevid.settings)))


@dg.asset(
    group_name="evaluation",
    kinds={"pytorch"},
    deps=[safevidbench_base],
    pool="video_model",
    check_specs=[
        conserves("safevidbench_challenge"),
        dg.AssetCheckSpec(LEAKAGE, asset="safevidbench_challenge", blocking=True),
    ],
)
def safevidbench_challenge(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Queries in seven harmful categories that a panel of other systems fails on, for people to refine."""
    result = safevid.whole(
        context,
        SAFEVIDBENCH_CHALLENGE,
        lambda: make_safevidbench_challenge(safevid.settings, safevid.lake, safevid.gateway),
    )
    return with_check(
        result, leakage(safevid.lake, SAFEVIDBENCH_CHALLENGE, answering_systems(safevid.settings))
    )


@dg.asset(
    group_name="evaluation",
    kinds={"polars"},
    deps=[
        dg.AssetDep(descriptions, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("safevid_350k_pairs", partition_mapping=dg.AllPartitionMapping()),
    ],
    check_specs=[conserves("video_report")],
)
def video_report(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """What was said about your own videos, by file name: a page, and a table with a row a file."""
    return safevid.whole(context, VIDEO_REPORT, lambda: make_video_report(safevid.settings, safevid.lake))


def _outside(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name="benchmarks",
        kinds={"polars"},
        deps=["pocket_clips"],
        check_specs=[conserves(name)],
        description=f"{OUTSIDE[name].title}, read from its official files: {OUTSIDE[name].source}.",
    )
    def benchmark(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
        return safevid.whole(
            context,
            benchmark_table(name),
            lambda: make_outside_benchmark(safevid.settings, safevid.lake, name),
        )

    return benchmark


outside_benchmarks = [_outside(name) for name in OUTSIDE]


def system_and_benchmark(key: str) -> str:
    assert isinstance(key, dg.MultiPartitionKey)
    return f"{key.keys_by_dimension['system']}|{key.keys_by_dimension['benchmark']}"


@dg.asset(
    group_name="evaluation",
    kinds={"pytorch"},
    deps=[
        dg.AssetDep(dpo_checkpoint, partition_mapping=dg.AllPartitionMapping()),
        safevidbench_base,
        safevidbench_challenge,
        *outside_benchmarks,
    ],
    partitions_def=MEASUREMENTS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="video_model",
    check_specs=[conserves("benchmark_responses")],
)
def benchmark_responses(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """The answers of a system, before or after alignment, or of a control, to one benchmark."""

    def respond(partition: str):
        system, benchmark = partition.split("|")
        return make_benchmark_responses(safevid.settings, safevid.lake, system, benchmark, safevid.gateway)

    return safevid.partitions(context, BENCHMARK_RESPONSES, respond, system_and_benchmark)


@dg.asset(
    group_name="evaluation",
    kinds={"polars"},
    deps=[benchmark_responses],
    partitions_def=MEASUREMENTS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[conserves("benchmark_scores")],
)
def benchmark_scores(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """One verdict an answer; a judge that cannot or will not judge gives `undecidable`, never a score."""

    def judge(partition: str):
        system, benchmark = partition.split("|")
        return make_benchmark_scores(safevid.settings, safevid.lake, system, benchmark, safevid.gateway)

    return safevid.partitions(context, BENCHMARK_SCORES, judge, system_and_benchmark)


@dg.asset(
    group_name="evaluation",
    kinds={"polars"},
    deps=[benchmark_scores],
    check_specs=[conserves("judge_validation")],
)
def judge_validation(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """How far each judge can be trusted, by a fixed adversarial suite and by labels from people."""
    return safevid.whole(
        context,
        JUDGE_VALIDATION,
        lambda: make_judge_validation(safevid.settings, safevid.lake, safevid.gateway),
    )


@dg.asset(
    group_name="evaluation",
    kinds={"python"},
    deps=[benchmark_scores, judge_validation],
    check_specs=[conserves("scorecard")],
)
def scorecard(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Rates with intervals before and after, the controls, and the report as HTML and JSON."""
    return safevid.whole(context, SCORECARD, lambda: make_scorecard(safevid.settings, safevid.lake))


@dg.asset(
    group_name="evaluation",
    kinds={"polars"},
    deps=[scorecard],
    check_specs=[conserves("promotion_decision")],
)
def promotion_decision(context: dg.AssetExecutionContext, safevid: SafeVid) -> dg.MaterializeResult:
    """Whether the aligned policy replaces the one in use: bars, regressions, judges, and who signed off."""
    return safevid.whole(
        context, PROMOTION_DECISION, lambda: make_promotion_decision(safevid.settings, safevid.lake)
    )
