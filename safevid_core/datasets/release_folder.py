"""The folder of a release: Parquet shards by split, `release.json`, and the pairs that were kept out.

The shards hold the rows of the table `safevid_350k_release` in the order of their ids. A row names its video
by hash, source and span, and by no path, so a release does not change if files move.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import RELEASE
from safevid_core.datasets.release_lines import read_lines
from safevid_core.datasets.splits import SPLITS
from safevid_core.datasets.versions import claim_version
from safevid_core.storage.file_hashes import file_sha256
from safevid_core.storage.lake import Lake, frame_hash
from safevid_core.storage.release_folders import LINES, RECORD
from safevid_core.storage.seals import refuse_sealed_folder

KIND = "release"
KEPT_OUT = "kept_out.parquet"
KEPT_OUT_SCHEMA = pl.Schema(
    dict.fromkeys(("pair_id", "query_id", "clip_id", "subcategory", "kind", "reason"), pl.String)
)
_SHARD_ROWS = 50_000
_SHARD_BYTES = 128 << 20  # in memory; about 30 MB as a file
_ROW_GROUP_BYTES = 16 << 20


class ReleaseUnreadable(SafeVidError, ValueError):
    """A folder that is no release, or whose files are damaged."""


@dataclass(frozen=True)
class Shard:
    """A Parquet file of a release.

    Attributes:
        file: Path below the folder. Example: `train/pairs-00000.parquet`.
        sha256: Of its bytes.
    """

    file: str
    split: str
    pairs: int
    sha256: str


@dataclass(frozen=True)
class ReleaseRecord:
    """What `release.json` says.

    Attributes:
        release: Id of the release: a hash of its rows.
        version: Such as `1.1.0`. Empty for a folder of an earlier version.
        parent: The version before it.
        rows_schema: Hash of the columns.
        validation_share: `datasets.validation_share`.
        subcategories: Subcategory -> hash of its definition and policy.
        settings: The settings group `datasets`.
        kept_out: Kind of reason -> number of pairs that were kept out.
        shards: In the order of splits and ids.
        successor_of: The withdrawal whose purge made the release. Empty if its stage made it.
    """

    release: str
    version: str = ""
    parent: str | None = None
    rows_schema: str = ""
    profile: str = ""
    pairs: int = 0
    validation_share: float = 0.0
    taxonomy: str = ""
    subcategories: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    kept_out: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    successor_of: str = ""


def release_id(rows: pl.DataFrame) -> str:
    """Hex id of a set of pairs: a hash of their content. It does not depend on the paths of the videos."""
    rows = rows if rows["pair_id"].is_sorted() else rows.sort("pair_id")
    return content_id("release", frame_hash(rows.drop("release", "profile", strict=False)))


def write_shards(folder: Path, rows: pl.DataFrame) -> tuple[Shard, ...]:
    """Write the shards of a release, one after another.

    Args:
        rows: Rows of the table `safevid_350k_release`, sorted by `pair_id`.
    """
    written = []
    for split in SPLITS:
        some = rows.filter(pl.col("split") == split) if rows["split"].n_unique() > 1 else rows
        if some.is_empty() or some["split"][0] != split:
            continue
        (folder / split).mkdir()
        row_bytes = some.estimated_size() / some.height
        size = max(1, min(_SHARD_ROWS, int(_SHARD_BYTES / row_bytes)))
        group = max(1, int(_ROW_GROUP_BYTES / row_bytes))
        for number, start in enumerate(range(0, some.height, size)):
            path = folder / split / f"pairs-{number:05}.parquet"
            part = some.slice(start, size)
            part.write_parquet(path, compression="zstd", row_group_size=group)
            written.append(Shard(f"{split}/{path.name}", split, part.height, file_sha256(path)))
    return tuple(written)


def keep_release(
    lake: Lake,
    rows: pl.DataFrame,
    release: str,
    kept_out: pl.DataFrame,
    card: Callable[[Path, ReleaseRecord], str],
    *,
    withdrawal: str = "",
    **told: Any,
) -> tuple[str, ReleaseRecord]:
    """Keep a release in the lake, under the version of its rows.

    The folder is written beside its place and moved there when it is complete.

    Args:
        rows: Rows of the table `safevid_350k_release`, sorted by `pair_id`.
        release: Their id.
        kept_out: As `KEPT_OUT_SCHEMA`.
        card: Makes the text of `README.md`. It may write the files that the text shows into the folder.
        withdrawal: Id of the withdrawal whose purge makes the release.
        told: The other attributes of the record.

    Returns:
        The address of the folder, and its record.

    Raises:
        OSError: If the disk is full. Nothing is kept then.
    """
    with lake.new_directory(KIND) as folder:
        shards = write_shards(folder, rows)
        kept_out.sort("pair_id").write_parquet(folder / KEPT_OUT, compression="zstd")
        version = claim_version(lake, rows, release, withdrawal)
        record = ReleaseRecord(
            release, version.version, version.parent, version.rows_schema, lake.profile, rows.height,
            kept_out=dict(kept_out.group_by("kind").len().sort("kind").iter_rows()), shards=shards,
            successor_of=withdrawal, **told,
        )  # fmt: skip
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(card(folder, record), encoding="utf-8")
        return lake.keep(KIND, folder), record


def read_record(folder: Path) -> ReleaseRecord:
    """The record of a release folder. A folder of an earlier version has its id and nothing else.

    Raises:
        ReleaseUnreadable: If the folder is no release.
    """
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return ReleaseRecord(**{**told, "shards": tuple(Shard(**each) for each in told["shards"])})
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseUnreadable(f"{folder / RECORD} cannot be read ({error}); restore the folder") from None
    try:
        with (folder / LINES).open("rb") as file:
            return ReleaseRecord(str(json.loads(file.readline())["release"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ReleaseUnreadable(f"{folder} holds no {RECORD}; name the folder of a release") from None


def read_pairs(folder: Path) -> pl.DataFrame:
    """The rows of a release, with the columns of `safevid_350k_release`.

    Raises:
        ReleaseUnreadable: If the folder is no release, or a shard is missing or damaged.
        WithdrawnError: If a seal beside the folder names pairs of withdrawn clips.
    """
    refuse_sealed_folder(folder.absolute(), f"release {folder}")
    return rows_in(folder)


def rows_in(folder: Path) -> pl.DataFrame:
    """As :func:`read_pairs`, also of a sealed release."""
    rows = pl.concat([RELEASE.frame([]), *shards_in(folder)])
    return rows if rows["pair_id"].is_sorted() else rows.sort("pair_id")


def shards_in(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a release, sealed or not, shard by shard in their order.

    Args:
        columns: Of `safevid_350k_release`. None gives all.

    Raises:
        ReleaseUnreadable: If the folder is no release, or a shard is missing or damaged.
    """
    names = RELEASE.schema.names() if columns is None else list(columns)
    if not (folder / RECORD).is_file() and (folder / LINES).is_file():
        yield read_lines(folder / LINES).select(names)
        return
    for shard in read_record(folder).shards:
        path = folder / shard.file
        try:
            if file_sha256(path) != shard.sha256:
                raise ReleaseUnreadable(f"{path} was changed after its release; restore the folder")
            rows = pl.read_parquet(path, glob=False, columns=names).select(names)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _unreadable(path, error) from None
        yield rows


def read_kept_out(folder: Path) -> pl.DataFrame:
    """The pairs that were kept out of a release, as `KEPT_OUT_SCHEMA`. Empty for earlier versions.

    Raises:
        ReleaseUnreadable: If the file is damaged.
    """
    path = folder / KEPT_OUT
    if not path.is_file():
        return pl.DataFrame(schema=KEPT_OUT_SCHEMA)
    try:
        return pl.read_parquet(path, glob=False, columns=KEPT_OUT_SCHEMA.names())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ReleaseUnreadable:
    return ReleaseUnreadable(f"{path} cannot be read ({' '.join(str(error).split())}); restore the folder")
