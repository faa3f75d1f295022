"""Blocking checks: rows conserved, nothing leaked between the splits, every scene covered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dagster as dg
import polars as pl

from safevid_core.evaluation.benchmarks.safevidbench_base import benchmark_leaks
from safevid_core.lake import Lake, LakeError, audit_partition
from safevid_core.preferences.refusals import MOST_REFUSED
from safevid_core.records import Table, Track, lossy
from safevid_core.settings import LOSSES

CONSERVATION = "every_row_is_accounted_for"
LEAKAGE = "train_and_benchmark_never_meet"
COVERAGE = "every_scene_is_there"
REFUSALS = "no_subcategory_is_refused"


def with_check(result: dg.MaterializeResult, check: dg.AssetCheckResult) -> dg.MaterializeResult:
    """The result with one more check."""
    return result._replace(check_results=[*(result.check_results or []), check])


def conserves(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CONSERVATION,
        asset=asset,
        blocking=True,
        description="Each input id has exactly one outcome, and each stored row a parent that ended ok.",
    )


def conservation(lake: Lake, table: Table, partitions: Sequence[str]) -> dg.AssetCheckResult:
    """Read the committed partitions back and check them against their manifests."""
    problems = []
    for partition in partitions:
        try:
            audit_partition(lake, table, partition)
        except LakeError as error:
            problems.append(str(error))
    return dg.AssetCheckResult(
        check_name=CONSERVATION,
        asset_key=dg.AssetKey(table.name),
        passed=not problems,
        metadata={"partitions": len(partitions), "problems": problems[:20]},
    )


def refusals_spec(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        REFUSALS,
        asset=asset,
        blocking=True,
        description=f"Providers refused no more than {MOST_REFUSED:.0%} of any subcategory, in all scenes.",
    )


def by_loss(refused: Callable[[Track], pl.DataFrame]) -> pl.DataFrame:
    """The refusals of every lossy track, each subcategory under the name of the loss."""
    return pl.concat(
        [
            refused(lossy(loss)).with_columns(subcategory=pl.format("{}, {}", pl.lit(loss), "subcategory"))
            for loss in LOSSES
        ]
    )


def refusals(asset: str, shares: pl.DataFrame) -> dg.AssetCheckResult:
    """Whether a provider refused so much of some subcategory that the data are bent.

    Args:
        shares: As of :func:`safevid_core.preferences.refusals.refused_shares`.
    """
    bent = shares.filter("too_many")
    lines = [
        f"{subcategory}: {refused} of {asked} refused; ask another model, or name a `second`"
        for subcategory, asked, refused in bent.select("subcategory", "asked", "refused").iter_rows()
    ]
    return dg.AssetCheckResult(
        check_name=REFUSALS,
        asset_key=dg.AssetKey(asset),
        passed=bent.is_empty(),
        metadata={"refused": int(shares["refused"].sum()), "bent": lines},
    )


def leakage(lake: Lake, benchmark: Table, systems: Sequence[str] | None = None) -> dg.AssetCheckResult:
    """No benchmark clip shares a source video, near copy or twin group with a training clip.

    Args:
        systems: Whose checkpoints are looked at, beside the corpus. Defaults to all that the lake holds.
    """
    shared = benchmark_leaks(lake, benchmark=benchmark, systems=systems)
    return dg.AssetCheckResult(
        check_name=LEAKAGE,
        asset_key=dg.AssetKey(benchmark.name),
        passed=not shared,
        metadata={"shared": shared[:20], "items": lake.read(benchmark).height},
    )


def coverage(lake: Lake, release: Table, parts: Table, scenes: Sequence[str]) -> dg.AssetCheckResult:
    """Every scene's partition is committed, so that no release is silently made from a part."""
    missing = sorted(set(scenes) - set(lake.partitions(parts.name)))
    return dg.AssetCheckResult(
        check_name=COVERAGE,
        asset_key=dg.AssetKey(release.name),
        passed=not missing,
        metadata={"scenes": len(scenes), "missing": missing},
    )
