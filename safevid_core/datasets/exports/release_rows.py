"""The pairs of one release as every export reads them: typed, in the order of their ids, with their split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from safevid_core.contracts.rows import Pair, rows_of
from safevid_core.contracts.tables import VIDEO_CORPUS
from safevid_core.corpus.withdrawn import refuse_withdrawn
from safevid_core.datasets.kept_releases import ReleaseMissing, release_folder
from safevid_core.datasets.release_folder import read_pairs, read_record
from safevid_core.datasets.splits import SPLITS, UNKNOWN, sources_of, with_splits
from safevid_core.storage.lake import Lake

VALIDATION_SHARE = 0.05
# Pairs that are Python objects at one time.
_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A pair with what the release says of its clip.

    Attributes:
        source_id: Of the source video. The clip's id if the corpus no longer lists the clip.
        file_name: Of the source video's file, None if it is not known.
        licence: Of the clip; `unknown` if none is recorded.
        video: Path of the clip's video for the reader. None if the export names no files.
        frames: Paths of the clip's frames below the folder of its split. Empty if none were asked for.
    """

    pair: Pair
    split: str
    source_id: str
    file_name: str | None
    licence: str
    video: str | None
    frames: tuple[str, ...]

    @property
    def provenance(self) -> dict[str, str]:
        """What every export says of a pair: its id and the licence of its clip."""
        return {"pair_id": self.pair.pair_id, "licence": self.licence}


@dataclass(frozen=True)
class ReleaseRows:
    """The pairs of a release that an export holds.

    Attributes:
        release: Its id.
        version: Such as `1.1.0`. Empty for a release of an earlier version of SafeVid.
        pairs: The columns of the table `safevid_350k_release` with `file_name`, sorted by `pair_id`.
        card: The release's card in Markdown.
        folder: Folder of the release. None if the rows are of no folder.
        videos: Clip id -> path of its video for the reader.
        frames: Clip id -> paths of its frames below the folder of its split.
    """

    release: str
    version: str
    pairs: pl.DataFrame
    card: str
    folder: Path | None = None
    videos: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def splits(self) -> dict[str, pl.DataFrame]:
        """Split -> its pairs, without a split that has none."""
        parts = {split: self.pairs.filter(pl.col("split") == split) for split in SPLITS}
        return {split: part for split, part in parts.items() if not part.is_empty()}

    @property
    def licences(self) -> dict[str, int]:
        """Licence -> number of pairs whose clip has it, by name."""
        return dict(self.pairs.group_by("licence").len().sort("licence").iter_rows())

    def rows(self, split: str) -> Iterator[ExportRow]:
        """The pairs of one split."""
        frame = self.splits[split]
        for start in range(0, frame.height, _BATCH):
            part = frame.slice(start, _BATCH)
            beside = part.select("source_id", "file_name", "licence").iter_rows()
            for pair, (source_id, file_name, licence) in zip(rows_of(part, Pair), beside, strict=True):
                video, frames = self.videos.get(pair.clip_id), self.frames.get(pair.clip_id, ())
                yield ExportRow(pair, split, source_id, file_name, licence, video, frames)


def read_release(
    lake: Lake, release: str | None = None, *, validation: float | None = None, seed: int = 0
) -> ReleaseRows:
    """The pairs of a release of the lake, without media.

    Args:
        release: Its version or id, or the beginning of an id. Defaults to the release in the table
            `safevid_350k_release`.
        validation: Share of the source videos whose pairs are for validation. None keeps the split of a
            release that has one, and is `VALIDATION_SHARE` for others.
        seed: Another seed draws other source videos.

    Raises:
        ReleaseMissing: If there is no such release, or it holds no pair.
        WithdrawnError: If it holds pairs of withdrawn clips.
    """
    folder = release_folder(lake, release)
    record = read_record(folder)
    pairs = read_pairs(folder)
    refuse_withdrawn(lake, pairs, f"release {record.release}")
    if pairs.is_empty():
        raise ReleaseMissing(f"release {record.release} holds no pair; make pairs, then a release of them")
    if validation is None and not record.validation_share:
        validation = VALIDATION_SHARE
    if validation is not None or pairs["split"].has_nulls():
        told = pairs["licence"]
        pairs = with_splits(pairs, sources_of(lake, pairs), validation or 0.0, seed)
        pairs = pairs.with_columns(licence=told.fill_null(UNKNOWN))
    names = lake.scan(VIDEO_CORPUS).select("clip_id", "file_name").collect()
    files = names.unique("clip_id", keep="first")
    pairs = pairs.with_columns(
        pl.col("clip_id")
        .replace_strict(files["clip_id"], files["file_name"], default=None, return_dtype=pl.String)
        .alias("file_name")
    )
    card = (folder / "README.md").read_text("utf-8")
    return ReleaseRows(record.release, record.version, pairs, card, folder)
