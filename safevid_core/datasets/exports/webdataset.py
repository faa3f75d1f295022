"""Pairs as WebDataset: tar shards in which a sample is `<pair_id>.json` and the frames of its clip.

Members of one sample share the name up to the first dot and follow each other: `<pair_id>.json`,
`<pair_id>.000.jpg`, `<pair_id>.001.jpg`. Members carry no time and no owner, so the same release gives the
same bytes.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from safevid_core.datasets.exports.clip_media import FRAMES, safe_name
from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows

# Samples of one shard: 28 pairs a video with 8 frames of 50 KB make about 400 MB.
_SHARD = 1_000


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>-<number>.tar`. The frames lie in the shards alone."""
    for split in rows.splits:
        for number, some in enumerate(_shards(rows.rows(split))):
            with tarfile.open(folder / f"{split}-{number:06}.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
                for row in some:
                    for name, data in _members(row, folder):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        shard.addfile(member, io.BytesIO(data))
        shutil.rmtree(folder / split / FRAMES)
        (folder / split).rmdir()


def _shards(rows: Iterator[ExportRow]) -> Iterator[list[ExportRow]]:
    some: list[ExportRow] = []
    for row in rows:
        some.append(row)
        if len(some) == _SHARD:
            yield some
            some = []
    if some:
        yield some


def _members(row: ExportRow, folder: Path) -> Iterator[tuple[str, bytes]]:
    key = safe_name(row.pair.pair_id)
    about = {**asdict(row.pair), "source_id": row.source_id, "licence": row.licence}
    yield f"{key}.json", json.dumps(about, ensure_ascii=False).encode()
    for place in row.frames:
        yield f"{key}.{Path(place).name}", (folder / row.split / place).read_bytes()


EXPORT = Export(name="webdataset", reader="WebDataset", write=write, media="frames")
