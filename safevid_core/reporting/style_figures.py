"""How much of the preference is style: what the audit of the release says, as the scorecard shows it.

A classifier that sees the two answers of a pair and nothing else tells which is the chosen one. What it gets
right beyond a half a policy could learn without query and video; whether it did, the control runs say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.tables import audit_table
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import WHOLE, Lake

_AUDIT = audit_table("preference_style_audit")


@dataclass(frozen=True)
class Style:
    """How often one classifier tells the chosen answer from the rejected one.

    Attributes:
        measure: What the classifier sees of an answer.
        category: `all`, or the expectation of the pairs.
        figure: Share of the pairs told right, 0 to 1; 0.5 is chance.
        detail: The words that tell most; empty for a classifier without words.
    """

    measure: str
    category: str
    figure: Estimate
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "category": self.category,
            "n": self.figure.n,
            "value": self.figure.value,
            "ci_low": self.figure.ci_low,
            "ci_high": self.figure.ci_high,
            "detail": self.detail,
        }


def style_figures(lake: Lake) -> list[Style]:
    """The audit's figures, those of all pairs first; none where the audit is not committed."""
    if lake.manifest(_AUDIT.name, WHOLE) is None:
        return []
    rows = lake.read(_AUDIT).sort(pl.col("category") != "all", "category", "measure")
    return [
        Style(
            row["measure"],
            row["category"],
            Estimate(row["value"], row["ci_low"], row["ci_high"], row["n"], 0),
            row["detail"] or "",
        )
        for row in rows.iter_rows(named=True)
    ]


def what_style_tells(styles: list[Style]) -> str:
    """One sentence on all pairs, from the figures."""
    of_all = [style for style in styles if style.category == "all" and style.figure.value is not None]
    if not of_all:
        return "How much of the preference is style is not measured; materialise preference_style_audit."
    shares = " and ".join(
        f"{style.measure.removeprefix('chosen ')} in {100 * (style.figure.value or 0):.1f}%"
        for style in of_all
    )
    best = max(of_all, key=lambda style: style.figure.value or 0.0)
    if (best.figure.ci_low or 0.0) > 0.5:
        after = (
            "A policy could learn that much of the preference from style, without the query and the video; "
            "the control runs say how much of the gain needs more."
        )
    else:
        after = "No more than chance: style alone does not tell the chosen answer."
    return f"Without the query and the video, the chosen answer of a pair is {shares} of the pairs. {after}"
