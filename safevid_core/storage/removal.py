"""Removing rows, generations and directories from a lake, for withdrawals.

Each function may be called again after a process was killed in it: it then does what is left.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace

import polars as pl

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import Table
from safevid_core.storage.commits import MANIFEST, write_manifest
from safevid_core.storage.lake import Lake
from safevid_core.storage.place import Place


def remove_rows(
    lake: Lake, table: Table, partition: str, ids: Collection[str], inputs: Collection[str], reason: str
) -> None:
    """Commit a partition again without some rows, and remove the data files that hold them.

    The inputs of the removed rows end `filtered`, and the partition is stale, so that the next run makes it
    again.

    Args:
        table: With the schema as it is stored.
        ids: Keys of the rows.
        inputs: Input ids that are to end `filtered`, whether or not they gave a row.
        reason: For these inputs.
    """
    manifest = lake.manifest(table.name, partition)
    if manifest is None:
        return
    rows = lake.read(table, partition)
    is_gone = pl.col(table.key).is_in(list(ids))
    gone, kept = rows.filter(is_gone), rows.filter(~is_gone)
    named = set(inputs)
    if table.parent is not None:
        named |= set(gone[table.parent]) - set(kept[table.parent])
    outcomes = lake.outcomes(table.name, partition)
    is_named = pl.col("input_id").is_in(list(named))
    changed = outcomes.filter(is_named & (pl.col("reason") != reason))
    if gone.height or changed.height:
        outcomes = outcomes.with_columns(
            pl.when(is_named).then(pl.lit("filtered")).otherwise(pl.col("outcome")).alias("outcome"),
            pl.when(is_named).then(pl.lit(reason)).otherwise(pl.col("reason")).alias("reason"),
        )
        stage = StageRows(kept, [tuple(each) for each in outcomes.iter_rows()], manifest.info)
        lake.commit(table, partition, stage, "", manifest.inputs, manifest.seconds)
    remove_older_generations(lake, table.name, partition)


def blank_values(lake: Lake, table: Table, partition: str, words: Sequence[str]) -> None:
    """Commit a partition again with every text blanked that holds one of the words."""
    manifest = lake.manifest(table.name, partition)
    if manifest is None:
        return
    rows = lake.read(table, partition)
    texts = texts_of(table)
    blanked = rows.with_columns(
        pl.when(_holds(name, words)).then(None).otherwise(pl.col(name)).alias(name) for name in texts
    )
    if not blanked.equals(rows):
        outcomes = [tuple(each) for each in lake.outcomes(table.name, partition).iter_rows()]
        stage = StageRows(blanked, outcomes, manifest.info)
        lake.commit(table, partition, stage, "", manifest.inputs, manifest.seconds)
    remove_older_generations(lake, table.name, partition)


def holds_words(lake: Lake, table: Table, partition: str, words: Sequence[str]) -> bool:
    """Whether a text of a partition holds one of the words."""
    texts = texts_of(table)
    if not texts or not words:
        return False
    found = lake.scan(table, [partition]).filter(pl.any_horizontal(_holds(name, words) for name in texts))
    return bool(found.select(pl.len()).collect().item())


def texts_of(table: Table) -> list[str]:
    """The columns with texts, without those that say which row it is."""
    return [
        name
        for name, kind in table.schema.items()
        if kind == pl.String and name not in (table.key, table.parent)
    ]


def _holds(name: str, words: Sequence[str]) -> pl.Expr:
    return pl.col(name).str.contains_any(list(words)).fill_null(False)


def remove_older_generations(lake: Lake, asset: str, partition: str) -> None:
    """Remove all data files of a partition but those of its present manifest, however young they are."""
    manifest = lake.manifest(asset, partition)
    if manifest is None:
        return
    place, folder = Place(lake.url), _folder(lake, asset, partition)
    if manifest.earlier:
        write_manifest(place, folder, replace(manifest, earlier=[]))
    for name in place.names(folder, hidden=True):
        if name.startswith(("rows-", "outcomes-", f".{MANIFEST}.")) and name not in manifest.files.values():
            place.remove(f"{folder}/{name}")


def remove_partition(lake: Lake, asset: str, partition: str) -> None:
    """Remove a partition: its manifest first, then everything in its folder."""
    place, folder = Place(lake.url), _folder(lake, asset, partition)
    if place.exists(f"{folder}/{MANIFEST}"):
        place.remove(f"{folder}/{MANIFEST}")
    for name in place.names(folder, hidden=True):
        place.remove(f"{folder}/{name}")
    if place.local is not None and (place.local / folder).is_dir():
        (place.local / folder).rmdir()


def remove_directory(lake: Lake, address: str) -> None:
    """Remove a kept directory of a lake on the local disk."""
    shutil.rmtree(lake.root / address, ignore_errors=True)


def _folder(lake: Lake, asset: str, partition: str) -> str:
    return lake.place_of(asset, partition).removeprefix(f"{lake.url}/")
