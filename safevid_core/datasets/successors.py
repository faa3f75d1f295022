"""Successors of releases: the same rows without those about withdrawn clips, under an id of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RELEASES, RELEASE, Table
from safevid_core.datasets.kept_releases import KIND
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

    Only folders with `pairs.jsonl` have a successor; empty if the folder has none.
    """
    source = lake.local_directory(folder.address)
    if not (source / "pairs.jsonl").is_file():
        return ""
    gone = set(folder.ids)
    with lake.new_directory(KIND) as scratch:
        before = after = 0
        new = content_id("successor", folder.address, *sorted(gone))
        with (
            open(source / "pairs.jsonl", encoding="utf-8") as old,
            open(scratch / "pairs.jsonl", "w", encoding="utf-8") as file,
        ):
            for line in old:
                row = json.loads(line)
                before += 1
                if row["pair_id"] not in gone:
                    after += 1
                    file.write(json.dumps({**row, "release": new}, ensure_ascii=False) + "\n")
        note = (
            f"Release {new}. It succeeds a release that was destroyed on {intent.day}: {before - after} "
            f"of its {before} pairs were about withdrawn clips. Materialise {RELEASE.name} for a release "
            "with a card."
        )
        (scratch / "README.md").write_text(f"# SafeVid preference pairs\n\n{note}\n", encoding="utf-8")
        return lake.keep(KIND, scratch)


def purge_table_of_release(lake: Lake, part: Part, address: str, intent: WithdrawalIntent) -> None:
    """Commit the table of the release without the pairs, as the successor at an address."""
    manifest = lake.manifest(RELEASE.name, part.partition)
    if manifest is None:
        return
    table = as_stored(lake, RELEASE)
    rows = lake.read(table, part.partition).drop("profile")
    kept = rows.filter(~pl.col("pair_id").is_in(part.ids))
    if kept.height < rows.height:
        new = content_id("successor", str(manifest.info.get("path", "")), *sorted(part.ids))
        outcomes = _outcomes(lake, part, set(part.ids), intent)
        info = {
            **manifest.info,
            "release": new,
            "path": address,
            "pairs": kept.height,
            "withdrawal": intent.id,
        }
        stage = StageRows(kept.with_columns(pl.lit(new).alias("release")), outcomes, info)
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
