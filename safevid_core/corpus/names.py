"""Gives each clip a name for people: the name of its file, and the span if the clip is a part of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import polars as pl

from safevid_core.contracts.tables import CLIP_MANIFEST
from safevid_core.corpus.sources import BELOW
from safevid_core.storage.lake import Lake


class ClipNames:
    """Clip id -> name, by the clip manifest of a lake.

    A clip from a folder is named by its path below the folder: `holiday/beach.mp4`. Any other clip is named
    by its file. If several clips are parts of one file, the span is added: `talk.mp4, 3.2 to 9 s`.
    """

    def __init__(self, lake: Lake, clips: Iterable[str] | None = None) -> None:
        """Args:
        clips: Ids of the clips to be named. None means all clips.
        """
        self._names: dict[str, str] = {}
        self._media = lake.media
        if lake.manifest(CLIP_MANIFEST.name) is None:
            return
        wanted = ("clip_id", "source_row", "file_name", "origin", "start_s", "end_s")
        rows = lake.scan(CLIP_MANIFEST).select(*wanted, pl.len().over("media_sha256").alias("parts"))
        if clips is not None:
            rows = rows.filter(pl.col("clip_id").is_in(list(clips)))
        for row in rows.collect().iter_rows(named=True):
            name = _below_the_folder(row) or row["file_name"]
            self._names[row["clip_id"]] = name if row["parts"] == 1 else f"{name}, {_span(row)}"

    def __call__(self, clip: Mapping[str, Any]) -> str:
        """The name of a row's clip.

        If the manifest does not hold the clip, the name is that of its file. It is "" if the row has no clip,
        or if no place of the file is known.

        Args:
            clip: A row with `clip_id`, and with `media_sha256` if it is known.
        """
        known = self._names.get(clip.get("clip_id") or "")
        if known is not None:
            return known
        place = self._media.last_known(clip["media_sha256"]) if clip.get("media_sha256") else None
        return "" if place is None else place.name

    def find(self, word: str) -> list[str]:
        """Ids of the clips that match a word: a clip id, a clip's name, or the name of its file alone."""
        if word in self._names:
            return [word]
        return [
            clip
            for clip, name in self._names.items()
            if word == name or PurePath(name.partition(", ")[0]).name == word
        ]

    def near(self, word: str) -> list[str]:
        """Up to three names of clips with a spelling close to a word."""
        return difflib.get_close_matches(word, sorted(set(self._names.values())), n=3, cutoff=0.5)


def _below_the_folder(row: Mapping[str, Any]) -> str:
    return str(row["source_row"]).partition(BELOW)[2] if row["origin"] == "folder" else ""


def _span(row: Mapping[str, Any]) -> str:
    return f"{row['start_s'] or 0.0:.4g} to {row['end_s'] or 0.0:.4g} s"
