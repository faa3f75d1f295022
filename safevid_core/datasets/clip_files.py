"""The files that a lake keeps about clips: media, frames, features, films, pages and sheets for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.corpus.embeddings import vector_files
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from safevid_core.video.identity import content_key

# What goes with a text, in the film's id: nothing for a clip of the corpus, else an item's column `media`.
_FILM_MEDIA = (None, "video", "image")
_TEXTS = {".csv", ".html", ".json", ".jsonl", ".md", ".yaml"}


@dataclass(frozen=True)
class ClipFile:
    """One file about a clip.

    Attributes:
        what: `media`, `frames`, `embedding`, `features`, `film`, `review sheet` or `report`.
        path: Its place.
        own: Whether it lies below the lake's root, so that SafeVid wrote it.
    """

    what: str
    path: Path
    own: bool = True

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def files_of(lake: Lake, clips: pl.DataFrame, *, unnamed: bool = False) -> list[ClipFile]:
    """All files about some clips.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s`.
        unnamed: Whether frames that do not say whose they are count too, as those of earlier versions.
    """
    hashes = clips["media_sha256"].drop_nulls().unique().sort().to_list()
    found = [ClipFile("media", path, own) for path, own in media_files(lake, hashes)]
    found += [ClipFile("frames", path) for path in lake.frames.files_of(hashes, unnamed=unnamed)]
    spans = clips.select("media_sha256", "start_s", "end_s").drop_nulls("media_sha256").rows()
    for span in spans:
        found += [ClipFile("embedding", path) for path in vector_files(lake, *span)]
        found += [ClipFile("features", path) for path in _features(lake, span)]
        found += [ClipFile("film", path) for path in _films(lake, span)]
    words = clips["clip_id"].to_list()
    found += [ClipFile("review sheet", path) for path in mentioning(lake.local_path("reviews"), words)]
    found += [ClipFile("report", path) for path in mentioning(lake.local_path("reports"), words)]
    return found


def media_files(lake: Lake, hashes: Iterable[str]) -> Iterator[tuple[Path, bool]]:
    """The places that hold the bytes now, and whether each is a file that SafeVid wrote below the root.

    SafeVid renders and copies clips below the root only; a link there leads to a file of the user.
    """
    root = lake.local_path().resolve()
    for sha256 in hashes:
        for path in lake.media.places(sha256):
            yield path, root in path.resolve().parents and not path.is_symlink()


def mentioning(folder: Path, words: Sequence[str]) -> list[Path]:
    """The text files below a folder that hold one of the words; `folder` may be such a file itself."""
    if not words or not folder.exists():
        return []
    wanted = [word.encode() for word in words]
    found = []
    below = [folder] if folder.is_file() else folder.rglob("*")
    for path in sorted(each for each in below if each.suffix in _TEXTS and each.is_file()):
        data = path.read_bytes()
        if any(word in data for word in wanted):
            found.append(path)
    return found


def mentioning_files(settings: Settings, lake: Lake, words: Sequence[str]) -> list[Path]:
    """Files and folders outside the lake that the settings name and that hold one of the words.

    Examples are filled review sheets and the manifest of a source.
    """
    root = lake.local_path().resolve()
    found = []
    for path in sorted(_paths_in(settings.model_dump())):
        if root == path.resolve() or root in path.resolve().parents:
            continue
        if path.is_dir() or (path.suffix in _TEXTS and path.is_file()):
            found += mentioning(path, words)
    return found


def _paths_in(value: Any) -> set[Path]:
    if isinstance(value, Path):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return set().union(*(_paths_in(each) for each in inner)) if inner else set()


def _features(lake: Lake, span: tuple[Any, ...]) -> list[Path]:
    """Stored features of the vision towers that training froze, one folder a tower."""
    return sorted(lake.local_path("features").glob(f"*/{content_key(*span)}.npy"))


def _films(lake: Lake, span: tuple[Any, ...]) -> Iterator[Path]:
    for media in _FILM_MEDIA:
        yield from sorted(lake.cache_folder("films").glob(f"{content_id(*span, media)}-*.jpg"))
