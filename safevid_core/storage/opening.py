"""Opening the lake of some settings, or one that is there already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safevid_core.settings import Settings, load_settings
from safevid_core.storage.commits import MANIFEST
from safevid_core.storage.lake import Lake, LakeError
from safevid_core.storage.place import Place


def lake_of(settings: Settings) -> Lake:
    """The lake that the settings name; its root is made if it is not there."""
    return Lake(settings.root, settings.profile, frame_cache_gb=settings.storage.frame_cache_gb)


def open_lake(root: Path, file: Path | None = None) -> tuple[Settings, Lake]:
    """The lake below `root`, and settings of its profile.

    Args:
        file: YAML of the run that made it. Defaults to `SAFEVID_SETTINGS` if that is set.

    Raises:
        LakeError: If there is no lake; none is made.
        SettingsError: If the settings cannot be read.
    """
    profile = profile_of(root)
    settings = load_settings(profile, file)
    # Whatever SAFEVID_ROOT says: the lake to read is the one that was named.
    return settings.model_copy(update={"root": root}), Lake(root, profile)


def profile_of(root: str | Path) -> str:
    """The profile that a lake's tables carry.

    Raises:
        LakeError: If `root` holds no committed table, or a manifest that cannot be read.
    """
    place = Place(root)
    path = next((name for name in _manifests(place) if place.exists(name)), None)
    if path is None:
        raise LakeError(
            f"{root} holds no lake: there is no committed table below {place.where('tables')}; "
            "give a run's root"
        )
    try:
        return str(json.loads(place.read(path))["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        raise LakeError(
            f"{place.where(path)} is no manifest of a lake; materialise that table again"
        ) from None


def _manifests(place: Place) -> Iterator[str]:
    """Names of the manifests that the folders of a place may hold."""
    for asset in place.names("tables"):
        for partition in place.names(f"tables/{asset}"):
            yield f"tables/{asset}/{partition}/{MANIFEST}"
