"""Judges the responses of a system with a panel of judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.contracts.outcomes import Outcome
from safevid_core.judging.judge_input import JudgeInput, ShownMedia
from safevid_core.judging.judges import checks
from safevid_core.judging.judges.judge import Verdict
from safevid_core.judging.panel import Judged, Panel, Seat, combined, judge_rows
from safevid_core.models.llm import Gateway
from safevid_core.storage.lake import settings_hash
from safevid_core.storage.media import MediaIndex

# Columns of the item that a judge receives with the response. The description is not among them.
OF_ITEM = (*INTENT_COLUMNS, "policy", "reference", "options")
SHOWN = ("media_sha256", "start_s", "end_s", "media")


@dataclass
class JudgedResponse:
    """One response with the verdicts of all judges.

    Attributes:
        row: The response's row, with all its columns.
        seen: The input that the judges received.
        verdict: The verdict of the panel, or of the checks if they decide.
        deciding: The judges that decide, with their verdicts.
        comparison: The judges that give verdicts for comparison only.
    """

    row: Mapping[str, Any]
    seen: JudgeInput
    verdict: Verdict
    deciding: list[tuple[Seat, Judged]]
    comparison: list[tuple[Seat, Judged]]

    @property
    def checked(self) -> bool:
        """Whether the checks decided, so that no judge was asked."""
        return not self.deciding

    @property
    def outcome(self) -> tuple[Outcome, str]:
        if self.verdict.undecidable is None:
            return "ok", ""
        # If a judge's model could not be reached, a later run may get the verdict. If the judge gave no
        # verdict, a later run does not.
        failed = any(judged.failed for _, judged in self.deciding)
        decided = any(judged.verdict.decided for _, judged in self.deciding)
        return ("failed" if failed and not decided else "undecidable"), self.verdict.undecidable


def panel_identity(panel: Panel) -> str:
    """Hash of all that decides the verdicts besides the responses: the judges, their groups, the checks."""
    groups = [[seat.name for seat in group] for group in panel.deciding_groups]
    return settings_hash([seat.identity for seat in panel.seats], groups, checks.VERSION)


def with_shown(
    rows: Sequence[dict[str, Any]], items: pl.DataFrame, index: MediaIndex
) -> list[dict[str, Any]]:
    """The rows with one more column, `shown`: the :class:`ShownMedia` that was shown, or None.

    Args:
        items: Columns `item_id` and those of `SHOWN`.
        index: Finds the files by their hashes.
    """
    own = {item["item_id"]: {name: item[name] for name in SHOWN} for item in items.to_dicts()}
    # An irrelevant video belongs to another item. Its span is known only if the file has a single span.
    spans: dict[str, list[dict[str, Any]]] = {}
    for item in own.values():
        known = spans.setdefault(item["media_sha256"], [])
        if item not in known:
            known.append(item)
    found = []
    for row in rows:
        media, shown = row["media_sha256"], own.get(row["item_id"])
        if shown is None or shown["media_sha256"] != media:
            others = spans.get(media, [])
            shown = others[0] if len(others) == 1 else None
        file = index.file(media)
        found.append({**row, "shown": ShownMedia(file, **shown) if file and shown else None})
    return found


def judge_responses(
    panel: Panel, rows: Sequence[Mapping[str, Any]], gateway: Gateway, asset: str
) -> list[JudgedResponse]:
    """The verdicts on each row, in order. The checks come first; rows that fail them reach no judge.

    Args:
        asset: Name of the stage that the ledger records the calls under.
    """
    seen = [JudgeInput.of(row) for row in rows]
    faults = [checks.check_response(row) for row in seen]
    open_ = [place for place, fault in enumerate(faults) if fault is None]
    groups = {place: panel.deciding(seen[place]) for place in open_}
    beside = {seat.name for seat in panel.comparison}
    verdicts: dict[str, dict[int, Judged]] = {}
    for seat in panel.seats:
        places = [place for place in open_ if seat.name in beside or seat in groups[place]]
        judged = judge_rows(seat, [seen[place] for place in places], gateway, asset)
        verdicts[seat.name] = dict(zip(places, judged, strict=True))
    responses = []
    for place, (row, fault) in enumerate(zip(rows, faults, strict=True)):
        if fault is not None:
            responses.append(JudgedResponse(row, seen[place], fault, [], []))
            continue
        deciding = [(seat, verdicts[seat.name][place]) for seat in groups[place]]
        others = [(seat, verdicts[seat.name][place]) for seat in panel.comparison]
        responses.append(JudgedResponse(row, seen[place], combined(deciding), deciding, others))
    return responses
