"""A folder for Hugging Face `datasets`: Parquet shards, a card, and Croissant metadata.

Messages are lists of parts, `{type, text}`, under a fixed Arrow schema: JSON lines with a video part would
come out of `datasets` 5.2 as text. A row names its video by hash, source and span, and by no path of this
machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.datasets.exports.croissant import croissant
from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.hub_card import copy_statistics, hub_card, hub_licence, licence_file
from safevid_core.datasets.exports.release_rows import ReleaseRows

DATA = "data"
# Rows of one shard: about 100 MB with answers of 120 words.
_SHARD = 50_000
COLUMNS = (
    "pair_id", "release", "query_id", "clip_id", "source_id", "file_name", "media_sha256", "start_s", "end_s",
    "licence", "twin_group", "scene", "principle", "dimension", "subcategory", "style", *INTENT_COLUMNS,
    "policy", "satisfies", "chosen_score", "rejected_score", "margin", "chosen_verdict", "rejected_verdict",
    "flags", "pair_judge", "chosen_model", "rejected_model", "rejected_system", "taxonomy_hash",
)  # fmt: skip
_ABOUT = """\
One preference pair a row. `prompt`, `chosen` and `rejected` are lists of messages, and a message's `content`
is a list of parts `{type, text}`. The part of type `video` stands for the clip, which `media_sha256` (SHA-256
of the file), `source_id`, `start_s` and `end_s` name; the files are not included. `criteria` are sentences
that are all true of a safe response; `chosen_score` and `rejected_score` are the shares of them that the
pair judge finds met, and `margin` is the difference. `flags` names what patterns saw in a pair; no pair was
kept or dropped by them."""


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write the shards below `data/`, `README.md`, `LICENSE` and `croissant.json`."""
    (folder / DATA).mkdir()
    shards = {split: list(_write_shards(rows, split, folder / DATA)) for split in rows.splits}
    card = hub_card(rows, {split: f"{DATA}/{split}-*.parquet" for split in shards}, _ABOUT, _features())
    (folder / "README.md").write_text(card, encoding="utf-8")
    copy_statistics(rows, folder)
    (folder / "LICENSE").write_text(licence_file(rows), encoding="utf-8")
    document = croissant(rows, arrow_schema(), shards, folder, hub_licence(rows))
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / "croissant.json").write_text(text, encoding="utf-8")


def _write_shards(rows: ReleaseRows, split: str, folder: Path) -> Iterator[Path]:
    """Write the shards of a split, each a batch at a time. Gives their paths."""
    import pyarrow.parquet as pq

    of = -(-rows.splits[split].height // _SHARD)
    batches = rows.batches(split)
    part: pl.DataFrame | None = next(batches)
    for number in range(of):
        path = folder / f"{split}-{number:05}-of-{of:05}.parquet"
        room = _SHARD
        with pq.ParquetWriter(path, arrow_schema(), compression="zstd") as file:
            while part is not None and room:
                now, part = part.head(room), part.slice(room)
                file.write_table(arrow_table(now))
                room -= now.height
                if part.is_empty():
                    part = next(batches, None)
        yield path


def arrow_schema() -> Any:
    """The schema of every shard."""
    import pyarrow as pa

    from safevid_core.contracts.tables import RELEASE

    types = {
        pl.String: pa.string(),
        pl.Float64: pa.float64(),
        pl.Boolean: pa.bool_(),
        pl.List(pl.String): pa.list_(pa.string()),
        pl.List(pl.Int64): pa.list_(pa.int64()),
    }
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(part))]))
    known = {name: types[dtype] for name, dtype in RELEASE.schema.items() if name in COLUMNS}
    beside = {name: known.get(name, pa.string()) for name in COLUMNS}
    return pa.schema([(name, messages) for name in ("prompt", "chosen", "rejected")] + list(beside.items()))


def arrow_table(pairs: pl.DataFrame) -> Any:
    """Pairs under :func:`arrow_schema`."""
    video = _part("video", pl.lit(None, pl.String))
    frame = pairs.select(
        _message("user", video, _part("text", pl.col("prompt"))).alias("prompt"),
        _message("assistant", _part("text", pl.col("chosen"))).alias("chosen"),
        _message("assistant", _part("text", pl.col("rejected"))).alias("rejected"),
        *COLUMNS,
    )
    return frame.to_arrow().cast(arrow_schema())


def _part(kind: str, text: pl.Expr) -> pl.Expr:
    return pl.struct(pl.lit(kind).alias("type"), text.alias("text"))


def _message(role: str, *parts: pl.Expr) -> pl.Expr:
    """A list with one message."""
    content = pl.concat_list(*parts).alias("content")
    return pl.concat_list(pl.struct(pl.lit(role).alias("role"), content))


def _features() -> list[dict[str, Any]]:
    """The features as the front matter of a card holds them."""
    from datasets import DatasetInfo, Features

    features: list[dict[str, Any]] = DatasetInfo(
        features=Features.from_arrow_schema(arrow_schema())
    )._to_yaml_dict()["features"]
    return features


EXPORT = Export(name="hugging-face", reader="Hugging Face datasets", write=write, media="none")
