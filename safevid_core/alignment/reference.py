"""File cache of the reference model's log-probabilities, shared by all seeds, data scales and epochs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from safevid_core.alignment.encoding import EncodedPair
from safevid_core.contracts.ids import content_id
from safevid_core.storage.lake import write_atomically


def read_reference(file: Path, pairs: Sequence[EncodedPair]) -> bool:
    """Set `reference` of the pairs from the file.

    Returns:
        Whether the file holds the reference of all pairs. If not, no pair is changed.
    """
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
    """Write the reference of these pairs to the file."""
    rows = [(_key(pair), *pair.reference) for pair in pairs if pair.reference is not None]
    schema = {"pair": pl.String, "chosen": pl.Float64, "rejected": pl.Float64}
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(buffer)
    write_atomically(file, buffer.getvalue())


def _key(pair: EncodedPair) -> str:
    """Return a content id. The pair id is not enough: a control run may give it other videos or responses."""
    return content_id(pair.clip, *(str(ids) for ids in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids)))
