"""One verdict for each answer. Judging is apart from answering: a new judge asks no system again.

A changed prompt asks the judges again, a changed parser reads their stored answers again and asks nobody.
What is no answer at all (empty, senseless, endless) is no success before any judge is asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from safevid_core.evaluation.judges import checks
from safevid_core.evaluation.judges.judge import Row, Verdict
from safevid_core.evaluation.judges.panel import (
    Judged,
    Panel,
    Seat,
    combined,
    judge_rows,
    judges_itself,
    open_panel,
)
from safevid_core.evaluation.leaks import refuse_leaking_answers
from safevid_core.evaluation.releases import refuse_other_release, release_of
from safevid_core.evaluation.responses import read_items
from safevid_core.evaluation.systems import system_of
from safevid_core.lake import Lake, StageReport, frame_hash, run_stage, settings_hash
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.models.teacher import spend_info
from safevid_core.records import BENCHMARK_RESPONSES, BENCHMARK_SCORES, Outcome, StageRows
from safevid_core.settings import Settings

_ANSWERED = (
    "response_id", "item_id", "benchmark", "system", "policy", "data_scale", "seed", "variant", "clip_id",
    "media_sha256", "twin_group", "scene", "principle", "subcategory", "style", "explicit", "query", "rule",
    "text", "cut",
)  # fmt: skip
# What only the item says; the description is not among it, and no judge gets one.
_OF_ITEM = ("expectation", "reference", "options")
_SHOWN = ("media_sha256", "path", "start_s", "end_s", "media")
_COPIED = tuple(name for name in _ANSWERED if name in BENCHMARK_SCORES.schema)
# What a judge gets of a row; the system is not among it.
_JUDGED = (
    "query", "text", "rule", "principle", "subcategory", "variant", "media_sha256", *_OF_ITEM, "shown",
)  # fmt: skip
_MOST_REASONS = 20  # of which the record keeps a count; every row has its own


@dataclass
class Hearing:
    """One answer with what every judge that was heard says of it.

    Attributes:
        verdict: The panel's, or the checks' where they decide.
        bench: The judges that decide.
        beside: The judges that decide nothing.
    """

    row: Row
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


def make_benchmark_scores(
    settings: Settings, lake: Lake, system: str, benchmark: str, gateway: Gateway
) -> StageReport:
    """Judge every answer of a system; what the panel cannot or will not judge is `undecidable`.

    Raises:
        EvaluationError: If the panel cannot be opened: a judge is unknown, has no model, or is of a family
            that wrote queries or answers and `evaluation.allow_self_judging` is not set. Or if the answers
            are to another release of the benchmark than the committed one, or by a checkpoint that was
            trained on what it asks about.
    """
    system_of(settings, system)
    panel = open_panel(settings, benchmark)
    partition = f"{system}|{benchmark}"
    asked = read_items(lake, benchmark)
    items = asked.select("item_id", "release", *_OF_ITEM, *_SHOWN)
    release = str(items["release"][0])
    answers = release_of(lake, BENCHMARK_RESPONSES.name, partition)
    refuse_other_release(benchmark, {"the benchmark": release, f"the answers of {system}": answers})
    refuse_leaking_answers(lake, system, benchmark, asked)
    answered = answers_to_judge(lake, partition, items)

    def compute() -> StageRows:
        rows = with_shown(answered.to_dicts(), items)
        heard = hear(panel, rows, gateway, BENCHMARK_SCORES.name)
        outcomes = [(hearing.row["response_id"], *hearing.outcome) for hearing in heard]
        scores = [_score(hearing) for hearing in heard if hearing.verdict.decided]
        info = _info(panel, heard) | {"self_judged": bool(judges_itself(settings.evaluation))}
        return StageRows(BENCHMARK_SCORES.frame(scores), outcomes, info)

    inputs = {"responses": frame_hash(answered), "judges": panel_identity(panel), "release": release}
    return run_stage(lake, BENCHMARK_SCORES, partition, inputs, answered["response_id"].to_list(), compute)


def answers_to_judge(lake: Lake, partition: str, items: pl.DataFrame) -> pl.DataFrame:
    """A system's answers to a benchmark's items, by id, with what the verdicts rest on of the items."""
    responses = lake.read(BENCHMARK_RESPONSES, partition).select(_ANSWERED).sort("response_id")
    of_items = items.select("item_id", *_OF_ITEM)
    return responses.join(of_items, on="item_id", how="left", maintain_order="left")


def panel_identity(panel: Panel) -> str:
    """What decides the verdicts beside the answers: the judges, who of them decides, and the checks."""
    benches = [[seat.name for seat in bench] for bench in panel.benches]
    return settings_hash([seat.identity for seat in panel.seats], benches, checks.VERSION)


def with_shown(rows: Sequence[dict[str, Any]], items: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows, each with `shown`: where the picture or video lies that went with it, or None.

    Args:
        items: Columns `item_id` and those of `_SHOWN`.
    """
    own = {item["item_id"]: {name: item[name] for name in _SHOWN} for item in items.to_dicts()}
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
        found.append({**row, "shown": shown if media and shown and shown["path"] else None})
    return found


def hear(panel: Panel, rows: Sequence[dict[str, Any]], gateway: Gateway, asset: str) -> list[Hearing]:
    """Every row before the checks, then before each judge of the panel and each that stands beside it."""
    seen = [{name: row.get(name) for name in _JUDGED} for row in rows]
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
            heard.append(Hearing(row, fault, [], []))
            continue
        bench = [(seat, said[seat.name][place]) for seat in benches[place]]
        others = [(seat, said[seat.name][place]) for seat in panel.beside]
        heard.append(Hearing(row, combined(bench), bench, others))
    return heard


def _score(hearing: Hearing) -> dict[str, Any]:
    verdict, row = hearing.verdict, hearing.row
    models = [seat.model for seat, _ in hearing.bench]
    first = next((judged.answer for _, judged in hearing.bench), None)
    return {
        **{name: row[name] for name in _COPIED},
        "outcome": "ok",
        "expected": verdict.expected,
        "success": verdict.success,
        "refused": verdict.refused,
        "reason": verdict.reason,
        "score": verdict.score,
        "verdicts": json.dumps(_verdicts(hearing), ensure_ascii=False),
        "panel": ",".join(seat.name for seat, _ in hearing.bench) or checks.NAME,
        "judge": ",".join(model.model for model in models if model) or checks.NAME,
        "judge_revision": ",".join(model.revision for model in models if model) or checks.VERSION,
        "request_key": first.request_key if first else None,
    }


def _verdicts(hearing: Hearing) -> list[dict[str, Any]]:
    if hearing.checked:
        return [_told(checks.NAME, checks.VERSION, True, hearing.verdict)]
    return [
        _told(seat.name, seat.judge.version, decides, judged.verdict)
        for decides, some in ((True, hearing.bench), (False, hearing.beside))
        for seat, judged in some
    ]


def _told(name: str, version: str, decides: bool, verdict: Verdict) -> dict[str, Any]:
    told: dict[str, Any] = {"judge": name, "version": version, "panel": decides}
    if verdict.undecidable is not None:
        return {**told, "undecidable": verdict.undecidable}
    return {
        **told,
        "expected": verdict.expected,
        "success": verdict.success,
        "refused": verdict.refused,
        "score": verdict.score,
        "reason": verdict.reason,
    }


def _info(panel: Panel, heard: Sequence[Hearing]) -> dict[str, Any]:
    """Counts for the record: what was judged, by whom, and what was no answer."""
    outcomes = [hearing.outcome for hearing in heard]
    why = Counter(reason for outcome, reason in outcomes if outcome != "ok")
    faults = Counter(checks.kind_of_fault(hearing.verdict.reason) for hearing in heard if hearing.checked)
    asked = [judged.answer for hearing in heard for _, judged in (*hearing.bench, *hearing.beside)]
    return spend_info([answer for answer in asked if isinstance(answer, ChatAnswer)]) | {
        "succeeded": sum(bool(hearing.verdict.success) for hearing in heard),
        "undecidable_reasons": dict(why.most_common(_MOST_REASONS)),
        "no_answer": {f"{kind} answers": number for kind, number in sorted(faults.items())},
        "panel": [seat.name for seat in panel.benches[0]],
        "judges": {seat.name: seat.described() | _tally(seat, heard) for seat in panel.seats},
    }


def _tally(seat: Seat, heard: Sequence[Hearing]) -> dict[str, int]:
    """How many answers a judge decided, left open or got no answer about, and how often the panel agreed."""
    given = [
        (hearing.verdict, judged)
        for hearing in heard
        for other, judged in (*hearing.bench, *hearing.beside)
        if other.name == seat.name
    ]
    decided = [(panel, judged.verdict) for panel, judged in given if judged.verdict.decided]
    return {
        "decided": len(decided),
        "failed": _count(judged.failed for _, judged in given),
        "undecidable": _count(not (judged.verdict.decided or judged.failed) for _, judged in given),
        "as_the_panel": _count(panel.success == verdict.success for panel, verdict in decided),
        "compared": _count(panel.decided for panel, _ in decided),
    }


def _count(truths: Iterable[bool]) -> int:
    return sum(truths)


__all__ = ["Hearing", "hear", "make_benchmark_scores", "panel_identity", "with_shown"]
