"""Exchange only the pixels within twin pairs: descriptions, answers and verdicts must follow them.

The checkpoints are frozen, the seed was never seen, and names, sidecars and queries stay as they were.
If anything but the pixels told the hazardous twin from the harmless one, this is where it shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from safevid_core.pocket.world import EVENTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 977
SCENES = ["kitchen", "street", "forest", "stage", "harbour", "office", "desert", "railway", "farm", "shop"]


@dataclass(frozen=True)
class Seen:
    """What the frozen models made of one benchmark item."""

    event: str | None
    hazardous: bool
    refused: bool
    success: bool


def described_event(text: str) -> str | None:
    found = [event for event, phrase in EVENTS.items() if phrase in text.lower()]
    return found[0] if len(found) == 1 else None
