"""Opens the lake of the settings, or an existing lake by its root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safevid_core.settings import Settings, load_settings
from safevid_core.storage.commits import MANIFEST
from safevid_core.storage.lake import Lake, LakeError
from safevid_core.storage.place import Place


def lake_of(settings: Settings) -> Lake:
    """The lake of the settings. Its root is created if it does not exist."""
    return Lake(settings.root, settings.profile, frame_cache_gb=settings.storage.frame_cache_gb)


def open_lake(root: Path, file: Path | None = None) -> tuple[Settings, Lake]:
    """Open an existing lake and load settings with its profile.

    Args:
        root: The root of the lake.
        file: The settings file of the run that made the lake. Defaults to `SAFEVID_SETTINGS` if that is set.

    Raises:
        LakeError: If there is no lake. No lake is created.
        SettingsError: If the settings cannot be read.
    """
    profile = profile_of(root)
    settings = load_settings(profile, file)
    # `root` takes precedence over SAFEVID_ROOT.
    return settings.model_copy(update={"root": root}), Lake(root, profile)


def profile_of(root: str | Path) -> str:
    """The profile with which a lake's tables were made.

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
            f"{place.where(path)} is not a manifest of a lake; materialise that table again"
        ) from None


def _manifests(place: Place) -> Iterator[str]:
    """Names of the files that are manifests if they exist."""
    for asset in place.names("tables"):
        for partition in place.names(f"tables/{asset}"):
            yield f"tables/{asset}/{partition}/{MANIFEST}"
