"""The reference's log-probabilities of all pairs, on disk: computed once for all seeds, scales and epochs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from safevid_core.alignment.encoding import EncodedPair
from safevid_core.lake import write_atomically
from safevid_core.records import content_id


def read_reference(file: Path, pairs: Sequence[EncodedPair]) -> bool:
    """Give the pairs their stored reference, if the file has it for all of them; whether it had."""
    if not file.exists():
        return False
    rows = pl.read_parquet(file)
    stored = {key: (chosen, rejected) for key, chosen, rejected in rows.iter_rows()}
    keys = [_key(pair) for pair in pairs]
    if not all(key in stored for key in keys):
        return False
    for pair, key in zip(pairs, keys, strict=True):
        pair.reference = stored[key]
    return True


def write_reference(file: Path, pairs: Sequence[EncodedPair]) -> None:
    """Store the reference of these pairs."""
    rows = [(_key(pair), *pair.reference) for pair in pairs if pair.reference is not None]
    schema = {"pair": pl.String, "chosen": pl.Float64, "rejected": pl.Float64}
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(buffer)
    write_atomically(file, buffer.getvalue())


def _key(pair: EncodedPair) -> str:
    """The pair's own content: an arm may give the same id another video or other answers."""
    return content_id(pair.clip, *(str(ids) for ids in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids)))
