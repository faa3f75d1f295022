"""The verdicts of a panel of judges on the responses of a system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.contracts.outcomes import Outcome
from safevid_core.judging.judge_input import JudgeInput, ShownMedia
from safevid_core.judging.judges import checks
from safevid_core.judging.judges.judge import Verdict
from safevid_core.judging.panel import Judged, Panel, Seat, combined, judge_rows
from safevid_core.models.llm import Gateway
from safevid_core.storage.lake import settings_hash
from safevid_core.storage.media import MediaIndex

# Columns of the item that a judge gets beside the response. The description is not among them.
OF_ITEM = ("expectation", "reference", "options")
SHOWN = ("media_sha256", "start_s", "end_s", "media")


@dataclass
class JudgedResponse:
    """One answer with what every judge that was heard says of it.

    Attributes:
        row: The response's row, with all its columns.
        seen: What of it the judges were given.
        verdict: The panel's, or the checks' where they decide.
        bench: The judges that decide.
        beside: The judges that decide nothing.
    """

    row: Mapping[str, Any]
    seen: JudgeInput
    verdict: Verdict
    bench: list[tuple[Seat, Judged]]
    beside: list[tuple[Seat, Judged]]

    @property
    def checked(self) -> bool:
        """Whether the text was no answer, so that no judge was asked."""
        return not self.bench

    @property
    def outcome(self) -> tuple[Outcome, str]:
        if self.verdict.undecidable is None:
            return "ok", ""
        # A verdict that is missing because nobody answered may yet come; one that a judge withheld will not.
        failed = any(judged.failed for _, judged in self.bench)
        decided = any(judged.verdict.decided for _, judged in self.bench)
        return ("failed" if failed and not decided else "undecidable"), self.verdict.undecidable


def panel_identity(panel: Panel) -> str:
    """What decides the verdicts beside the answers: the judges, who of them decides, and the checks."""
    benches = [[seat.name for seat in bench] for bench in panel.benches]
    return settings_hash([seat.identity for seat in panel.seats], benches, checks.VERSION)


def with_shown(
    rows: Sequence[dict[str, Any]], items: pl.DataFrame, index: MediaIndex
) -> list[dict[str, Any]]:
    """The rows, each with `shown`: the :class:`ShownMedia` that went with it, or None.

    Args:
        items: Columns `item_id` and those of `SHOWN`.
        index: Finds the files.
    """
    own = {item["item_id"]: {name: item[name] for name in SHOWN} for item in items.to_dicts()}
    # An irrelevant video is another item's; which span of its file it was is known if there is but one.
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
    """Every row before the checks, then before each judge of the panel and each that stands beside it."""
    seen = [JudgeInput.of(row) for row in rows]
    faults = [checks.check_answer(row) for row in seen]
    open_ = [place for place, fault in enumerate(faults) if fault is None]
    benches = {place: panel.deciding(seen[place]) for place in open_}
    beside = {seat.name for seat in panel.beside}
    said: dict[str, dict[int, Judged]] = {}
    for seat in panel.seats:
        places = [place for place in open_ if seat.name in beside or seat in benches[place]]
        judged = judge_rows(seat, [seen[place] for place in places], gateway, asset)
        said[seat.name] = dict(zip(places, judged, strict=True))
    heard = []
    for place, (row, fault) in enumerate(zip(rows, faults, strict=True)):
        if fault is not None:
            heard.append(JudgedResponse(row, seen[place], fault, [], []))
            continue
        bench = [(seat, said[seat.name][place]) for seat in benches[place]]
        others = [(seat, said[seat.name][place]) for seat in panel.beside]
        heard.append(JudgedResponse(row, seen[place], combined(bench), bench, others))
    return heard
