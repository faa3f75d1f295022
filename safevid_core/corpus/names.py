"""Gives each clip a name for people: the name of its file, and the span if the clip is a part of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

import polars as pl

from safevid_core.contracts.rows import rows_of
from safevid_core.contracts.tables import CLIP_MANIFEST
from safevid_core.corpus.sources import BELOW
from safevid_core.storage.lake import Lake


@dataclass(frozen=True, slots=True)
class _NamedClip:
    """A clip of the manifest with the number of clips of its file."""

    clip_id: str
    source_row: str
    file_name: str
    origin: str
    start_s: float | None
    end_s: float | None
    parts: int

    @property
    def below_the_folder(self) -> str:
        """The path of a clip from a folder, below the folder; "" for any other clip."""
        return self.source_row.partition(BELOW)[2] if self.origin == "folder" else ""

    @property
    def span(self) -> str:
        return f"{self.start_s or 0.0:.4g} to {self.end_s or 0.0:.4g} s"


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
        parts = pl.len().over("media_sha256").cast(pl.Int64)
        rows = lake.scan(CLIP_MANIFEST).select(*wanted, parts=parts)
        if clips is not None:
            rows = rows.filter(pl.col("clip_id").is_in(list(clips)))
        for row in rows_of(rows.collect(), _NamedClip):
            name = row.below_the_folder or row.file_name
            self._names[row.clip_id] = name if row.parts == 1 else f"{name}, {row.span}"

    def __call__(self, clip_id: str | None, media_sha256: str | None = None) -> str:
        """The name of a clip.

        If the manifest does not hold the clip, the name is that of its file. It is "" for a row without a
        clip, or if no place of the file is known.

        Args:
            clip_id: None for a row without a clip.
            media_sha256: Hash of the clip's file, if it is known.
        """
        known = self._names.get(clip_id or "")
        if known is not None:
            return known
        place = self._media.last_known(media_sha256) if media_sha256 else None
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
