"""The Dagster home of a lake: the folder with the records of runs, their logs and the schedules."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from safevid_core.settings import Settings
from safevid_core.storage.opening import lake_of

PACKAGE = Path(__file__).parent


def home_of(settings: Settings) -> Path:
    """The path of the Dagster home, below the root. It may not exist yet."""
    return settings.root.absolute() / "dagster"


def prepare_home(settings: Settings) -> Path:
    """Create the Dagster home with SafeVid's instance file, and set it for this process.

    The file is the package's `dagster.yaml` and the place of the outputs of steps.

    Raises:
        LakeError: If the root cannot be written.
    """
    lake_of(settings)
    home = home_of(settings)
    home.mkdir(exist_ok=True)
    logs = {"module": "safevid_dagster.compute_logs", "class": "ComputeLogs"}
    config = {"compute_logs": {**logs, "config": {"base_dir": str(home / "storage")}}}
    text = (PACKAGE / "dagster.yaml").read_text(encoding="utf-8") + "\n" + yaml.safe_dump(config)
    (home / "dagster.yaml").write_text(text, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    return home
