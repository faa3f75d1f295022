"""Seals: files beside releases, checkpoints and partitions that name the withdrawn ids in them.

What is sealed stays byte-identical. Whoever loads it reads the seal and refuses the ids. The seal of a kept
directory `blobs/release/<hash>` is the hidden file `blobs/release/.<hash>.withdrawn.json`. The seal of a
partition is `withdrawn.json` in its folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safevid_core.contracts.errors import SafeVidError
from safevid_core.storage.lake import Lake
from safevid_core.storage.place import Place

_NAME = "withdrawn.json"


class WithdrawnError(SafeVidError, ValueError):
    """What was asked for holds withdrawn clips; the message says how many, and what to do."""


@dataclass(frozen=True)
class Seal:
    """One withdrawal, as the things that it touched know it.

    Attributes:
        withdrawal: Its id.
        date: ISO date.
        clips: Ids of the withdrawn clips in the sealed thing.
        rows: Ids of the rows about them: pairs, items or checkpoints.
        generation: The data file of the partition that is sealed; a later one has no such rows. Empty for a
            kept directory, which never changes.
    """

    withdrawal: str
    date: str
    reason: str
    clips: list[str]
    rows: list[str]
    generation: str = ""

    def sentence(self) -> str:
        return f"withdrawn on {self.date}: {self.reason}"


def seal_directory(lake: Lake, address: str, seal: Seal) -> None:
    """Seal a kept directory. Sealing it again for the same withdrawal changes nothing."""
    _write(Place(lake.url), _beside(address), seal)


def seal_partition(lake: Lake, asset: str, partition: str, seal: Seal) -> None:
    """Seal the present generation of a partition."""
    manifest = lake.manifest(asset, partition)
    if manifest is not None:
        folder = _folder(lake, asset, partition)
        _write(
            Place(lake.url),
            f"{folder}/{_NAME}",
            Seal(**{**asdict(seal), "generation": manifest.files["rows"]}),
        )


def seals_of_directory(lake: Lake, address: str) -> list[Seal]:
    """The seals of a kept directory, oldest first."""
    return _read(Place(lake.url), _beside(address))


def seals_of_partition(lake: Lake, asset: str, partition: str) -> list[Seal]:
    """The seals of the present generation of a partition."""
    manifest = lake.manifest(asset, partition)
    if manifest is None:
        return []
    found = _read(Place(lake.url), f"{_folder(lake, asset, partition)}/{_NAME}")
    return [seal for seal in found if seal.generation == manifest.files["rows"]]


def refuse_sealed_folder(folder: Path, what: str) -> None:
    """Refuse a folder of the local disk that has a seal beside it.

    Raises:
        WithdrawnError: With the number of rows.
    """
    refuse(_read(Place(folder.parent), f".{folder.name}.{_NAME}"), what)


def refuse(seals: Iterable[Seal], what: str) -> None:
    """Refuse what has seals.

    Raises:
        WithdrawnError: With the number of rows.
    """
    some = list(seals)
    if some:
        rows = len({row for seal in some for row in seal.rows})
        clips = sorted({clip for seal in some for clip in seal.clips})
        named = ", ".join(clips[:3]) + (" ..." if len(clips) > 3 else "")
        raise WithdrawnError(
            f"{what} holds {rows} rows about withdrawn clips ({named}; {some[-1].sentence()}); "
            "make it again without them"
        )


def _beside(address: str) -> str:
    parent, _, name = address.rpartition("/")
    return f"{parent}/.{name}.{_NAME}"


def _folder(lake: Lake, asset: str, partition: str) -> str:
    return lake.place_of(asset, partition).removeprefix(f"{lake.url}/")


def _read(place: Place, name: str) -> list[Seal]:
    try:
        stored: list[dict[str, Any]] = json.loads(place.read(name))["seals"]
    except FileNotFoundError:
        return []
    return [Seal(**each) for each in stored]


def _write(place: Place, name: str, seal: Seal) -> None:
    before = [each for each in _read(place, name) if each.withdrawal != seal.withdrawal]
    found = [asdict(each) for each in [*before, seal]]
    place.write(name, json.dumps({"seals": found}, indent=1).encode())
