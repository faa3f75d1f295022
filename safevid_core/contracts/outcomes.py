"""What becomes of the rows that go into a stage.

Every input id ends in exactly one outcome. The lake checks it when a stage commits
(:mod:`safevid_core.storage.lake`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

Outcome = Literal["ok", "filtered", "failed", "undecidable"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "filtered", "failed", "undecidable")

OUTCOME_SCHEMA = pl.Schema({"input_id": pl.String, "outcome": pl.String, "reason": pl.String})


@dataclass
class StageRows:
    """What a stage's computation gives back."""

    rows: pl.DataFrame
    outcomes: list[tuple[str, Outcome, str]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    def outcome_frame(self) -> pl.DataFrame:
        return pl.DataFrame(self.outcomes, schema=OUTCOME_SCHEMA, orient="row")


def sequence_outcomes(
    ids: Sequence[str], outcome: Outcome, reason: str = ""
) -> list[tuple[str, Outcome, str]]:
    """The same outcome for each id."""
    return [(each, outcome, reason) for each in ids]
