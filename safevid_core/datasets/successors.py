"""Successors of releases: the same rows without those about withdrawn clips, under an id of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RELEASES, RELEASE, Table
from safevid_core.datasets.card import front_matter
from safevid_core.datasets.release_folder import (
    ReleaseRecord,
    ReleaseUnreadable,
    keep_release,
    read_kept_out,
    read_record,
    release_id,
    rows_in,
)
from safevid_core.datasets.splits import sources_of, with_splits
from safevid_core.datasets.withdrawal_intent import Folder, Part, WithdrawalIntent
from safevid_core.datasets.withdrawal_rows import as_stored
from safevid_core.storage.lake import WHOLE, Lake, frame_hash
from safevid_core.storage.removal import remove_directory, remove_older_generations, remove_partition

# Which call wrote a query does not make another release.
NOT_IN_RELEASE = ("release", "request_key")


def benchmark_release_id(table: Table, items: Sequence[dict[str, Any]]) -> str:
    """The id of a benchmark's release: 16 hex digits over its items, in the order of their ids."""
    ordered = sorted(items, key=lambda item: str(item["item_id"]))
    return frame_hash(table.frame(ordered).drop(NOT_IN_RELEASE))[:16]


def benchmark_successor(lake: Lake, part: Part, intent: WithdrawalIntent) -> str:
    """Commit the successor of a kept benchmark release, and use it if the release was in use.

    Returns:
        The partition of the successor. Empty if no item is left.
    """
    manifest = lake.manifest(BENCHMARK_RELEASES.name, part.partition)
    if manifest is None:
        return ""
    table = as_stored(lake, BENCHMARK_RELEASES)
    rows = lake.read(table, part.partition).drop("profile")
    kept = rows.filter(~pl.col("item_id").is_in(part.ids))
    if kept.is_empty():
        return ""
    name, _, release = part.partition.rpartition("@")
    new = benchmark_release_id(table, kept.to_dicts())
    kept = kept.with_columns(pl.lit(new).alias("release"))
    gone = set(rows["plan_id"]) - set(kept["plan_id"])
    outcomes = _outcomes(lake, part, gone, intent)
    info = {**manifest.info, "release": new, "successor_of": release, "withdrawal": intent.id}
    stage = StageRows(kept, outcomes, info)
    partition = f"{name}@{new}"
    if lake.manifest(table.name, partition) is None:
        lake.commit(table, partition, stage, new, manifest.inputs, manifest.seconds)
    current = lake.manifest(name, WHOLE)
    if current is not None and current.info.get("release") in (release, ""):
        lake.commit(replace(table, name=name), WHOLE, stage, "", current.inputs, current.seconds)
        remove_older_generations(lake, name, WHOLE)
    return partition


def release_successor(lake: Lake, folder: Folder, intent: WithdrawalIntent) -> str:
    """Keep a release folder without the pairs about withdrawn clips. Returns its address.

    Its version is the next one. Empty if the folder is no release.
    """
    source = lake.local_directory(folder.address)
    try:
        before = read_record(source)
    except ReleaseUnreadable:
        return ""
    rows = rows_in(source)
    kept = rows.filter(~pl.col("pair_id").is_in(folder.ids)).sort("pair_id")
    if kept["split"].has_nulls():  # a folder of an earlier version
        known = with_splits(kept, sources_of(lake, kept), 0.0)
        kept = known.with_columns(licence=pl.coalesce(kept["licence"], known["licence"]))
    new = release_id(kept)
    kept_out = read_kept_out(source)
    note = (
        f"It succeeds a release that was destroyed on {intent.day}: {rows.height - kept.height} of its "
        f"{rows.height} pairs were about withdrawn clips. Materialise {RELEASE.name} for a release with a "
        "card."
    )
    address, _ = keep_release(
        lake,
        kept.with_columns(pl.lit(new).alias("release")),
        new,
        kept_out.filter(~pl.col("clip_id").is_in(intent.clip_ids())),
        lambda _, record: (
            f"{front_matter()}# SafeVid preference pairs, version {record.version}\n\nRelease {new}. {note}\n"
        ),
        withdrawal=intent.id,
        validation_share=before.validation_share,
        taxonomy=before.taxonomy,
        subcategories=before.subcategories,
        settings=before.settings,
    )
    return address


def purge_table_of_release(lake: Lake, part: Part, address: str, intent: WithdrawalIntent) -> None:
    """Commit the table of the release without the pairs, as the successor at an address."""
    manifest = lake.manifest(RELEASE.name, part.partition)
    if manifest is None:
        return
    table = as_stored(lake, RELEASE)
    rows = lake.read(table, part.partition).drop("profile")
    kept = rows.filter(~pl.col("pair_id").is_in(part.ids))
    if kept.height < rows.height:
        try:
            record = read_record(lake.local_directory(address))
        except ReleaseUnreadable:
            record = ReleaseRecord(release_id(kept))
        outcomes = _outcomes(lake, part, set(part.ids), intent)
        info = {
            **manifest.info,
            "release": record.release,
            "version": record.version,
            "path": address,
            "pairs": kept.height,
            "withdrawal": intent.id,
        }
        stage = StageRows(kept.with_columns(pl.lit(record.release).alias("release")), outcomes, info)
        with lake.hold(RELEASE.name, part.partition, "`safevid withdraw`"):
            lake.commit(table, part.partition, stage, "", manifest.inputs, manifest.seconds)
    remove_older_generations(lake, RELEASE.name, part.partition)


def destroy(lake: Lake, each: Mapping[str, Any]) -> None:
    """Destroy one release of the record: a kept directory or a partition of `benchmark_releases`."""
    if each["address"]:
        remove_directory(lake, each["address"])
    else:
        remove_partition(lake, BENCHMARK_RELEASES.name, each["partition"])


def _outcomes(lake: Lake, part: Part, gone: set[str], intent: WithdrawalIntent) -> list[Any]:
    """The outcomes of a partition, in which some inputs end as withdrawn."""
    return [
        (unit, "filtered", intent.outcome_reason) if unit in gone else (unit, outcome, reason)
        for unit, outcome, reason in lake.outcomes(part.asset, part.partition).iter_rows()
    ]
