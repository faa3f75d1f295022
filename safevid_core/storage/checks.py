"""Checks that a stage accounts for every row, and that a committed partition has not changed since."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl

from safevid_core.contracts.outcomes import OUTCOME_SCHEMA, OUTCOMES, StageRows
from safevid_core.contracts.tables import Table
from safevid_core.storage.hashing import BATCH_ROWS, FrameHasher, frame_hash, hash_of_columns
from safevid_core.storage.layout import earlier_frame_hash
from safevid_core.storage.manifest import LakeError, Manifest

if TYPE_CHECKING:
    from safevid_core.storage.lake import Lake

# A column of earlier versions of many tables: the path of a file. It is in no hash.
_PLACE = "path"


def check_conservation(table: Table, stage: StageRows, input_ids: Iterable[str] | pl.Series) -> None:
    """Check that every input id has one outcome, and every row a unique key and a parent that ended `ok`.

    Args:
        input_ids: The ids of the inputs, each once.

    Raises:
        LakeError: Naming the table and the first id that is wrong.
    """
    wanted = input_ids if isinstance(input_ids, pl.Series) else pl.Series(list(input_ids), dtype=pl.String)
    if wanted.n_unique() != len(wanted):
        raise LakeError(f"{table.name}: an input id is given twice")
    outcomes = stage.outcome_frame()
    _check_outcomes(table, outcomes)
    named = outcomes["input_id"]
    for one, other, fault in (
        (wanted, named, "inputs have no outcome"),
        (named, wanted, "outcomes name no input"),
    ):
        left = one.filter(~one.is_in(other.implode()))
        if len(left):
            raise LakeError(f"{table.name}: {len(left)} {fault}, the first {left.min()!s}")
    _check_rows(table, stage.rows, outcomes)


def audit_partition(lake: Lake, table: Table, partition: str) -> None:
    """Check the stored files of a committed partition against its manifest.

    The checks are:

    - rows and outcomes have the hashes of the commit (volatile columns are not hashed)
    - the number of outcomes is that of the manifest
    - each input id has one outcome
    - keys are unique, and each row's parent ended `ok`

    The files are read once, in batches. Only keys, parents and outcomes are held in memory.

    Raises:
        LakeError: If the partition is missing, has changed since its commit, or loses rows.
    """
    import pyarrow

    where = f"{table.name}[{partition}]: "
    manifest = lake.manifest(table.name, partition)
    if manifest is None:
        raise LakeError(where + "not committed; materialise it first")
    try:
        outcomes = _read_outcomes(lake, manifest)
        rows, differing = (_read_earlier if manifest.layout == 1 else _read_hashing)(lake, table, manifest)
    except (OSError, pyarrow.ArrowException, pl.exceptions.PolarsError) as error:
        first_line = str(error).partition("\n")[0]
        raise LakeError(where + f"a data file cannot be read ({first_line}); materialise it again") from None
    if outcomes.height != sum(manifest.outcomes.values()):
        raise LakeError(where + f"{outcomes.height} outcomes, the manifest has another number")
    if manifest.outcomes_hash and frame_hash(outcomes) != manifest.outcomes_hash:
        raise LakeError(where + "outcomes differ from the manifest's hash")
    if differing:
        raise LakeError(where + f"rows differ from the manifest's content hash in {', '.join(differing)}")
    _check_outcomes(table, outcomes)
    _check_rows(table, rows, outcomes)


def _read_outcomes(lake: Lake, manifest: Manifest) -> pl.DataFrame:
    with lake.open_data(manifest, "outcomes") as file:
        return pl.read_parquet(file)


def _read_hashing(lake: Lake, table: Table, manifest: Manifest) -> tuple[pl.DataFrame, list[str]]:
    """Read the keys and parents of the stored rows, and find the columns with a wrong hash, in one pass."""
    import pyarrow as pa
    import pyarrow.parquet

    wanted = dict.fromkeys([table.key, *([table.parent] if table.parent else [])])
    with lake.open_data(manifest, "rows") as file:
        stored = pyarrow.parquet.ParquetFile(file)
        schema = stored.schema_arrow
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            return pl.DataFrame(), missing
        hashed = [name for name in schema.names if name not in (_PLACE, *table.volatile)]
        hasher = FrameHasher(pa.schema([schema.field(name) for name in hashed]))
        ids = [schema.empty_table().select(list(wanted))]
        for batch in stored.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys([*hashed, *wanted]))):
            hasher.update(batch)
            ids.append(pa.Table.from_batches([batch.select(list(wanted))]))
    rows = pl.from_arrow(pa.concat_tables(ids))
    assert isinstance(rows, pl.DataFrame)
    found, recorded = hasher.column_hashes(), manifest.columns
    differing = [name for name in {**recorded, **found} if recorded.get(name) != found.get(name)]
    if not differing and hash_of_columns(found) != manifest.content_hash:
        differing = ["the order of the columns"]
    return rows, differing


def _read_earlier(lake: Lake, table: Table, manifest: Manifest) -> tuple[pl.DataFrame, list[str]]:
    """Like :func:`_read_hashing`, for a partition of layout 1. It has one hash over all columns."""
    with lake.open_data(manifest, "rows") as file:
        rows = pl.read_parquet(file)
    same = earlier_frame_hash(rows.drop(_PLACE, *table.volatile, strict=False)) == manifest.content_hash
    return rows, [] if same else ["some column"]


def _check_outcomes(table: Table, outcomes: pl.DataFrame) -> None:
    """Check that each input id has one outcome, and that it is one of the four."""
    where = f"{table.name}: "
    named = outcomes.select(OUTCOME_SCHEMA.names())["input_id"]
    if named.n_unique() != len(named):
        raise LakeError(where + f"input {named.filter(named.is_duplicated())[0]} has two outcomes")
    other = outcomes["outcome"].filter(~outcomes["outcome"].is_in(OUTCOMES))
    if len(other):
        raise LakeError(where + f"outcome {other[0]!r} is not one of {', '.join(OUTCOMES)}")


def _check_rows(table: Table, rows: pl.DataFrame, outcomes: pl.DataFrame) -> None:
    where = f"{table.name}: "
    if rows[table.key].n_unique() != rows.height:
        raise LakeError(where + f"column {table.key} repeats")
    if table.parent is None:
        return
    good = outcomes.filter(pl.col("outcome") == "ok")["input_id"]
    parents = rows[table.parent].unique()
    orphans = parents.filter(~parents.is_in(good.implode(), nulls_equal=True))
    if len(orphans):
        raise LakeError(
            where + f"{len(orphans)} rows have a parent that did not end ok, the first {orphans.min()!s}"
        )
