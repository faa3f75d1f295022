"""The pairs of one release as every export reads them: shard by shard, with their split and their clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from safevid_core.contracts.tables import RELEASE, VIDEO_CORPUS
from safevid_core.corpus.withdrawn import refuse_withdrawn
from safevid_core.datasets.kept_releases import ReleaseMissing, release_folder
from safevid_core.datasets.release_folder import read_record, shards_in
from safevid_core.datasets.splits import SPLITS, UNKNOWN, sources_of, with_splits
from safevid_core.storage.lake import Lake
from safevid_core.storage.seals import refuse_sealed_folder

VALIDATION_SHARE = 0.05
# Columns that every export gives of a pair.
PROVENANCE = ("pair_id", "licence")
# Pairs that are written at one time.
_BATCH = 10_000
_TEXTS = ("prompt", "chosen", "rejected")
_OF_CLIP = ("clip_id", "twin_group", "media_sha256", "start_s", "end_s")
# Columns that the lake may tell anew for an export.
_TOLD = ("source_id", "split", "licence")


@dataclass(frozen=True)
class ReleaseRows:
    """The pairs of a release that an export holds.

    The texts stay on the disk: :meth:`batches` reads them, one shard of the release at a time.

    Attributes:
        release: Its id.
        version: Such as `1.1.0`. Empty for a release of an earlier version of SafeVid.
        pairs: One row for each pair in the order of the release's shards: `row` (its number in the release),
            `pair_id`, the columns of its clip, `source_id`, `split`, `licence`, `file_name`, and
            `placeholder`, the text in it that the reader would replace by media.
        card: The release's card in Markdown.
        folder: The folder of the release.
        videos: Clip id -> path of its video for the reader.
        frames: Clip id -> paths of its frames below the folder of its split.
    """

    release: str
    version: str
    pairs: pl.DataFrame
    card: str
    folder: Path
    videos: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def splits(self) -> dict[str, pl.DataFrame]:
        """Split -> its rows of `pairs`, without a split that has none."""
        parts = {split: self.pairs.filter(pl.col("split") == split) for split in SPLITS}
        return {split: part for split, part in parts.items() if not part.is_empty()}

    @property
    def licences(self) -> dict[str, int]:
        """Licence -> number of pairs whose clip has it, by name."""
        return dict(self.pairs.group_by("licence").len().sort("licence").iter_rows())

    def batches(self, split: str) -> Iterator[pl.DataFrame]:
        """The pairs of one split, some at a time.

        Their columns are those of the table `safevid_350k_release`, with `file_name`, `video` and `frames` of
        their clips. `video` is null and `frames` empty if the export has no such files.
        """
        wanted = self.splits[split].select("row", "clip_id", *_TOLD, "file_name")
        wanted = wanted.join(self._media, on="clip_id", how="left", maintain_order="left")
        wanted = wanted.with_columns(pl.col("frames").fill_null([])).drop("clip_id")
        start = 0
        for shard in shards_in(self.folder):
            mine = wanted.filter(pl.col("row").is_between(start, start + shard.height, closed="left"))
            for part in mine.iter_slices(_BATCH):
                yield shard.drop(_TOLD)[part["row"] - start].hstack(part.drop("row"))
            start += shard.height

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
    lake: Lake,
    release: str | None = None,
    *,
    validation: float | None = None,
    seed: int = 0,
    placeholders: Sequence[str] = (),
) -> ReleaseRows:
    """The pairs of a release of the lake, without media.

    Args:
        release: Its version or id, or the beginning of an id. Defaults to the release in the table
            `safevid_350k_release`.
        validation: Share of the source videos whose pairs are for validation. None keeps the split of a
            release that has one, and is `VALIDATION_SHARE` for others.
        seed: Another seed draws other source videos.
        placeholders: Texts that are looked for in the queries and responses.

    Raises:
        ReleaseMissing: If there is no such release, or it holds no pair.
        ReleaseUnreadable: If a shard is missing or damaged.
        WithdrawnError: If it holds pairs of withdrawn clips.
    """
    folder = release_folder(lake, release)
    refuse_sealed_folder(folder.absolute(), f"release {folder}")
    record = read_record(folder)
    columns = ("pair_id", *_OF_CLIP, *_TOLD, *(_TEXTS if placeholders else ()))
    shards = (RELEASE.frame([]), *shards_in(folder, columns))
    pairs = pl.concat(_without_texts(shard, placeholders) for shard in shards).with_row_index("row")
    refuse_withdrawn(lake, pairs, f"release {record.release}")
    if pairs.is_empty():
        raise ReleaseMissing(f"release {record.release} holds no pair; make pairs, then a release of them")
    if validation is None and not record.validation_share:
        validation = VALIDATION_SHARE
    if validation is not None or pairs["split"].has_nulls():
        licences = pairs["licence"]
        pairs = with_splits(pairs, sources_of(lake, pairs), validation or 0.0, seed)
        pairs = pairs.with_columns(licence=licences.fill_null(UNKNOWN))
    names = lake.scan(VIDEO_CORPUS).select("clip_id", "file_name").collect()
    files = names.unique("clip_id", keep="first")
    pairs = pairs.with_columns(
        pl.col("clip_id")
        .replace_strict(files["clip_id"], files["file_name"], default=None, return_dtype=pl.String)
        .alias("file_name")
    )
    card = (folder / "README.md").read_text("utf-8")
    return ReleaseRows(record.release, record.version, pairs, card, folder)


def _without_texts(shard: pl.DataFrame, placeholders: Sequence[str]) -> pl.DataFrame:
    """The columns of `ReleaseRows.pairs` that a shard tells."""
    found = [
        pl.when(pl.any_horizontal(pl.col(name).str.contains(word, literal=True) for name in _TEXTS)).then(
            pl.lit(word)
        )
        for word in placeholders
    ]
    placeholder = pl.coalesce(*found, pl.lit(None, pl.String)).alias("placeholder")
    return shard.select("pair_id", *_OF_CLIP, *_TOLD, placeholder)
