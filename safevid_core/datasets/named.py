"""What an id names: a row of a table, a source video, a file, a release, a checkpoint or a model call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.tables import Table
from safevid_core.corpus.names import ClipNames
from safevid_core.datasets.links import Links
from safevid_core.models.call_records import call_records
from safevid_core.models.ledger import Ledger

# Stage -> rows of it, with the columns that name something.
Selected = dict[str, pl.DataFrame]

# What else an id may name, in the order in which the columns are searched.
_OTHER_IDS = {
    "source_id": "source video",
    "media_sha256": "file",
    "release": "release",
    "checkpoint": "checkpoint",
}
KEPT = "blobs/"


class UnknownId(SafeVidError, LookupError):
    """An id that no table, file name or model call of the lake has."""


def find(links: Links, ledger: Ledger | None, word: str) -> tuple[str, Selected]:
    """What a word names, and the rows that it is."""
    start = _with_key(links, word)
    if start:
        return next(_kind_of(links.registry[name].table) for name in start), start
    for column, kind in _OTHER_IDS.items():
        found = _first(links, [column], _named_by(column, word))
        if found:
            return kind, found
    call = _first(links, None, word)
    if call:
        return "model call", call
    clips = ClipNames(lake=links.lake).find(word)
    if clips:
        start = {}
        for clip in clips:
            for name, rows in _with_key(links, clip).items():
                start[name] = pl.concat([start[name], rows]) if name in start else rows
        return "clip", start
    if ledger is not None and call_records(ledger, [word]):
        return "model call", {}
    raise UnknownId(
        f"nothing in {links.lake.url} has the id {word!r}; `safevid show STAGE` lists ids, and "
        "`safevid show clip_manifest` the clips"
    )


def _named_by(column: str, word: str) -> str:
    """A checkpoint's address begins with its folder; people may leave that out."""
    return word if column != "checkpoint" or word.startswith(KEPT) else f"{KEPT}checkpoints/{word}"


def _with_key(links: Links, word: str) -> Selected:
    """Rows with this key, of each stage that does not read another one that has it."""
    found: Selected = {}
    for stage in links.registry:
        if any(read in found or read in _behind(links, found) for read in stage.reads):
            continue
        if stage.table.schema[stage.table.key] != pl.String:
            continue
        rows = links.rows(stage.table, pl.col(stage.table.key) == word)
        if rows.height:
            found[stage.name] = rows
    return found


def _behind(links: Links, found: Iterable[str]) -> set[str]:
    names = list(found)
    return {stage.name for stage in links.registry.downstream(names)} if names else set()


def _first(links: Links, names: Sequence[str] | None, word: str) -> Selected:
    """Rows of the first stage in which a column has this value.

    Args:
        names: The columns. None means those that hold request keys.
    """
    for stage in links.registry:
        columns = links.columns(stage.table)
        some = [name for name in columns if (name in names if names else name.endswith("request_key"))]
        if not some:
            continue
        rows = links.rows(stage.table, pl.any_horizontal(pl.col(name) == word for name in some))
        if rows.height:
            return {stage.name: rows}
    return {}


def _kind_of(table: Table) -> str:
    return table.key.removesuffix("_id").replace("_", " ")
