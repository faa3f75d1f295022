"""What `safevid demo --profile small` builds before its first stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safevid_core.small.builder import build

FOLDER = "small"


def prepare(root: Path, report: Callable[[str], None]) -> None:
    """Build the checkpoint and its record below the root, unless they are there.

    Raises:
        MissingWeightsError: If the packages of the extra `small` are not installed.
    """
    build(root / FOLDER, report=report)
