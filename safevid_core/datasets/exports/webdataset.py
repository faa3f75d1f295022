"""Pairs as WebDataset: tar shards in which a sample is `<pair_id>.json` and the frames of its clip.

Members of one sample share the name up to the first dot and follow each other: `<pair_id>.json`,
`<pair_id>.000.jpg`, `<pair_id>.001.jpg`. Members carry no time and no owner, so the same release gives the
same bytes.
"""

from __future__ import annotations

import io
import itertools
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from safevid_core.contracts.rows import Pair, columns_of
from safevid_core.datasets.exports.clip_media import FRAMES, safe_name
from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.release_rows import ReleaseRows
from safevid_core.datasets.exports.text_rows import json_objects

# Samples of one shard: 28 pairs a video with 8 frames of 50 KB make about 400 MB.
_SHARD = 1_000
_COLUMNS = tuple(columns_of(Pair))


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>-<number>.tar`. The frames lie in the shards alone."""
    for split in rows.splits:
        samples = (sample for pairs in rows.batches(split) for sample in _samples(pairs))
        for number in itertools.count():
            some = list(itertools.islice(samples, _SHARD))
            if not some:
                break
            with tarfile.open(folder / f"{split}-{number:06}.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
                for sample in some:
                    for name, data in _members(*sample, folder / split):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        shard.addfile(member, io.BytesIO(data))
        shutil.rmtree(folder / split / FRAMES)
        (folder / split).rmdir()


def _samples(pairs: pl.DataFrame) -> Iterator[tuple[str, str, list[str]]]:
    """Id, JSON text and paths of the frames of each pair."""
    about = json_objects(pairs.select(*_COLUMNS, "source_id", "licence"))
    return zip(pairs["pair_id"], about, pairs["frames"].to_list(), strict=True)


def _members(pair_id: str, about: str, frames: list[str], folder: Path) -> Iterator[tuple[str, bytes]]:
    key = safe_name(pair_id)
    yield f"{key}.json", about.encode()
    for place in frames:
        yield f"{key}.{Path(place).name}", (folder / place).read_bytes()


EXPORT = Export(name="webdataset", reader="WebDataset", write=write, media="frames")
