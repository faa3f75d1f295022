"""Pairs for ms-swift: JSON lines with `messages`, `videos` and `rejected_response`.

The layout is that of ms-swift 4.6 (custom data sets, RLHF). The last message is the chosen response.
`rejected_response` replaces it on the rejected side, and both sides share the messages before it, so that
both see the video.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.datasets.exports.export import MEDIA_PLACEHOLDERS, Export
from safevid_core.datasets.exports.release_rows import PROVENANCE, ReleaseRows, turn
from safevid_core.datasets.exports.text_rows import json_objects, write_splits


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>.jsonl` for each split."""
    write_splits(rows, folder, _objects)


def _objects(pairs: pl.DataFrame) -> pl.Series:
    objects = pairs.select(
        pl.concat_list(
            turn("user", pl.format("<video>{}", "prompt")), turn("assistant", pl.col("chosen"))
        ).alias("messages"),
        pl.col("rejected").alias("rejected_response"),
        pl.concat_list("video").alias("videos"),
        *PROVENANCE,
    )
    return json_objects(objects)


EXPORT = Export(name="ms-swift", reader="ms-swift", write=write, placeholders=MEDIA_PLACEHOLDERS)
