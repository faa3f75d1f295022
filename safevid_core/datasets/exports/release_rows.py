"""The pairs of one release as every export reads them: typed, in the order of their ids, with their split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import RELEASE, VIDEO_CORPUS
from safevid_core.corpus.withdrawn import refuse_withdrawn
from safevid_core.datasets.release import read_export
from safevid_core.storage.lake import Lake

SPLITS = ("train", "validation")
VALIDATION_SHARE = 0.05
_UNKNOWN = "unknown"
# Pairs that are written at one time.
_BATCH = 10_000
# Columns that every export gives of a pair.
PROVENANCE = ("pair_id", "licence")


class ReleaseMissing(SafeVidError, ValueError):
    """A release that the lake does not hold; the message names those that it holds."""


@dataclass(frozen=True)
class ReleaseRows:
    """The pairs of a release that an export holds.

    Attributes:
        release: Its id.
        pairs: The columns of the table `safevid_350k_release` with `split`, `source_id`, `file_name` and
            `licence`, sorted by `pair_id`.
        card: The release's card in Markdown.
        videos: Clip id -> path of its video for the reader.
        frames: Clip id -> paths of its frames below the folder of its split.
    """

    release: str
    pairs: pl.DataFrame
    card: str
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

    def batches(self, split: str) -> Iterator[pl.DataFrame]:
        """The pairs of one split, some at a time, with the columns `video` and `frames` of their clips.

        `video` is null and `frames` empty if the export has no such files.
        """
        frame = self.splits[split]
        media = self._media
        for start in range(0, frame.height, _BATCH):
            part = frame.slice(start, _BATCH).join(media, on="clip_id", how="left", maintain_order="left")
            yield part.with_columns(pl.col("frames").fill_null([]))

    @cached_property
    def _media(self) -> pl.DataFrame:
        clips = list({**self.videos, **self.frames})
        return pl.DataFrame(
            {
                "clip_id": clips,
                "video": [self.videos.get(clip) for clip in clips],
                "frames": [self.frames.get(clip, ()) for clip in clips],
            },
            schema={"clip_id": pl.String, "video": pl.String, "frames": pl.List(pl.String)},
        )


def turn(role: str, text: pl.Expr) -> pl.Expr:
    """A message as an object with `role` and `content`."""
    return pl.struct(pl.lit(role).alias("role"), text.alias("content"))


def read_release(
    lake: Lake, release: str | None = None, *, validation: float = VALIDATION_SHARE, seed: int = 0
) -> ReleaseRows:
    """The pairs of a release of the lake, without media.

    Args:
        release: Its id, or the beginning of one. Defaults to the release in the table
            `safevid_350k_release`.
        validation: Share of the source videos whose pairs are for validation.
        seed: Another seed draws other source videos.

    Raises:
        ReleaseMissing: If there is no such release, or it holds no pair.
        WithdrawnError: If it holds pairs of withdrawn clips.
    """
    manifest = lake.manifest(RELEASE.name)
    current = None if manifest is None else str(manifest.info["release"])
    found, folder = (current, None) if release is None else _find(lake, release, current)
    if manifest is None and folder is None:
        raise ReleaseMissing("the lake holds no release; run safevid_350k_release first")
    if manifest is not None and found == current:
        pairs, folder = lake.read(RELEASE), lake.local_directory(str(manifest.info["path"]))
        refuse_withdrawn(lake, pairs, f"release {found}")
    else:
        assert folder is not None
        pairs = read_export(folder / "pairs.jsonl", lake.local_path())
    if pairs.is_empty():
        raise ReleaseMissing(f"release {found} holds no pair; make pairs, then a release of them")
    known = lake.scan(VIDEO_CORPUS).select("clip_id", "source_id", "file_name", "licence").collect()
    pairs = (
        pairs.select(RELEASE.schema.names())
        .join(known.unique("clip_id", keep="first"), on="clip_id", how="left")
        .with_columns(pl.col("source_id").fill_null(pl.col("clip_id")), pl.col("licence").fill_null(_UNKNOWN))
        .sort("pair_id")
    )
    sides = {source: side_of(source, validation, seed) for source in pairs["source_id"].unique()}
    pairs = pairs.with_columns(split=pl.col("source_id").replace_strict(sides, return_dtype=pl.String))
    return ReleaseRows(str(found), pairs, (folder / "README.md").read_text(encoding="utf-8"))


def side_of(source_id: str, validation: float, seed: int) -> str:
    """The split of a source video. It does not depend on which other videos a release has."""
    place = int(content_id("export", seed, source_id, length=12), 16) / 16**12
    return "validation" if place < validation else "train"


def _find(lake: Lake, wanted: str, current: str | None) -> tuple[str, Path | None]:
    """Id of the release that is named, and the folder that it left; None for the release of the table."""
    folders: dict[str, Path | None] = {} if current is None else {current: None}
    for address in lake.directories("release"):
        folder = lake.local_directory(address)
        release = _release_of(folder / "pairs.jsonl")
        if release is not None:
            folders.setdefault(release, folder)
    matching = [wanted] if wanted in folders else [name for name in folders if name.startswith(wanted)]
    if len(matching) > 1:
        raise ReleaseMissing(f"{wanted!r} begins several releases: {', '.join(matching)}; write one whole")
    if not matching:
        raise ReleaseMissing(f"no release {wanted!r}; the lake holds: {', '.join(folders) or 'none'}")
    return matching[0], folders[matching[0]]


def _release_of(path: Path) -> str | None:
    """The release that a `pairs.jsonl` is of; None if it has no line."""
    try:
        with path.open("rb") as file:
            return str(json.loads(file.readline())["release"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
