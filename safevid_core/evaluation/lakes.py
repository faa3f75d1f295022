"""Opening a lake that is there already, with the settings of the profile that made it."""

from __future__ import annotations

import json
from pathlib import Path

from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import Lake
from safevid_core.settings import Settings, load_settings


def open_lake(root: Path, file: Path | None = None) -> tuple[Settings, Lake]:
    """The lake below `root`, and settings of its profile.

    Args:
        file: YAML of the run that made it. Defaults to `SAFEVID_SETTINGS` if that is set.

    Raises:
        EvaluationError: If there is no lake; none is made.
        SettingsError: If the settings cannot be read.
    """
    profile = profile_of(root)
    settings = load_settings(profile, file)
    # Whatever SAFEVID_ROOT says: the lake to read is the one that was named.
    return settings.model_copy(update={"root": root}), Lake(root, profile)


def profile_of(root: Path) -> str:
    """The profile that a lake's tables carry.

    Raises:
        EvaluationError: If `root` holds no committed table, or a manifest that cannot be read.
    """
    path = next(iter(sorted((root / "tables").glob("*/*/manifest.json"))), None)
    if path is None:
        raise EvaluationError(
            f"{root} holds no lake: there is no committed table below {root / 'tables'}; give a run's root"
        )
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        raise EvaluationError(f"{path} is no manifest of a lake; materialise that table again") from None
