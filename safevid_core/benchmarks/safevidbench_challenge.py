"""SafeVidBench-Challenge: harmful held-out queries that several systems fail on, for people to refine.

The candidates are plan cells of the benchmark split in the taxonomy's challenge categories that asked no item
of SafeVidBench-Base. A panel of systems answers them, the panel judge judges, and what enough of them fail on
is the draft. No system of the panel is reported on, so that what selected a query is never its baseline.
Until people have reviewed it (:mod:`safevid_core.review.challenge`) the release says that it is
unrefined.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.benchmarks.balance import Balance
from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.releases import as_release, plan_release, refuse_unanswered
from safevid_core.benchmarks.safevidbench_base import (
    held_out_cells,
    held_out_descriptions,
    item_of,
    refuse_leaks,
    safevidbench_stage,
)
from safevid_core.contracts.intent import UNSAFE_TO_HELP
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.contracts.tables import (
    DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    SAFEVIDBENCH_PLAN,
)
from safevid_core.judging.judge_input import ShownMedia
from safevid_core.judging.panel import Panel, judge_questions, open_panel, prompt_files
from safevid_core.judging.verdicts import JudgedResponse, judge_responses, panel_identity
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.models.teacher import spend_info
from safevid_core.models.video_chat import (
    VideoChat,
    VideoQuestion,
    checkpoint_identity,
    model_files,
    open_video_chat,
)
from safevid_core.queries.asking import ask_queries
from safevid_core.queries.candidates import normalised
from safevid_core.queries.cells import PlanCell
from safevid_core.queries.generation import plan_hash, query_inputs
from safevid_core.queries.plan import read_plan
from safevid_core.queries.rating import require_other_family
from safevid_core.settings import ChallengeSettings, Settings, VideoModel
from safevid_core.stages.stage import ExpectedRows, Forecast, Needs, Plan, Questions, Tools
from safevid_core.storage.lake import frame_hash, settings_hash
from safevid_core.storage.media import MediaFile, MediaIndex
from safevid_core.systems.responses import read_items
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy

NAME = SAFEVIDBENCH_CHALLENGE.name

# Cells asked for each item that is still wanted, and the least of a round: many will not be failed on.
ASKED_FOR_ONE = 2
_LEAST_ASKED = 64
# What of a panel system's settings changes its answers, beside the weights.
_GENERATION = {"family", "frames", "dtype", "max_new_tokens", "temperature", "repetition_penalty"}


def plan_safevidbench_challenge(tools: Tools, partition: str) -> Plan:
    """Plan to ask candidates, have the panel answer them, and keep what enough of its systems fail on, once.

    A release that is in use stays so; `evaluation.releases` asks for another.

    Raises:
        ResponseError: If SafeVidBench-Base is not committed.
        JudgeError: If the judge cannot be opened.
        BenchmarkError: If the panel cannot select (see :func:`panel_identities`), a clip leaks, the lake has
            no release of the name that the settings give, or questions went unanswered.
    """
    settings, lake, taxonomy = tools.settings, tools.lake, load_taxonomy(tools.settings)
    require_other_family(settings.queries)
    challenge = settings.evaluation.challenge
    identities = panel_identities(settings)
    judges = replace(open_panel(settings), comparison=())
    base = read_items(lake, SAFEVIDBENCH_BASE.name)
    descriptions = held_out_descriptions(lake)
    clips = rows_of(descriptions, DescribedClip)
    plan = held_out_cells(lake, clips, taxonomy)
    candidates = candidates_of(plan, clips, base, taxonomy)

    def draw(plan_ids: Sequence[str]) -> StageRows:
        refuse_leaks(settings, lake, descriptions, NAME)
        selection = _Selection(settings, lake.media, clips, taxonomy, tools.gateway, judges, base)
        selection.run(candidates)
        items = as_release(SAFEVIDBENCH_CHALLENGE, selection.items())
        info = selection.info() | {"release": items[0]["release"] if items else "", "panel": identities}
        info |= {"size": challenge.size, "candidates": len(candidates)}
        info |= described(items, challenge.size, taxonomy)
        return StageRows(SAFEVIDBENCH_CHALLENGE.frame(items), selection.outcomes(candidates), info)

    drawn_from = {
        "descriptions": frame_hash(descriptions),
        "plan": plan_hash(read_plan(lake, SAFEVIDBENCH_PLAN)),
        "safevidbench_base": str(base["release"][0]),
        "panel": settings_hash(identities, [_generation(model) for model in challenge.panel]),
        "judges": panel_identity(judges),
        "size": settings_hash(challenge.size, challenge.min_failing, ASKED_FOR_ONE, _LEAST_ASKED),
        **query_inputs(settings, taxonomy),
    }
    plan_ids = [candidate.cell.plan_id for candidate in candidates]
    asked = first_round(settings, judges)
    return plan_release(tools, SAFEVIDBENCH_CHALLENGE, Plan(drawn_from, plan_ids, draw, asked))


def first_round(settings: Settings, judges: Panel) -> tuple[Questions, ...]:
    """What its first round asks; if the panel fails on most of it, there is no other."""
    challenge = settings.evaluation.challenge
    asked = ASKED_FOR_ONE * challenge.size
    return (
        Questions(settings.queries.asker, asked),
        Questions(settings.queries.rater, 2 * asked),
        *(Questions(model, asked) for model in challenge.panel),
        *judge_questions(judges, len(challenge.panel) * asked),
    )


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    judges = replace(open_panel(tools.settings), comparison=())
    return Forecast(tools.settings.evaluation.challenge.size, first_round(tools.settings, judges))


def _files(settings: Settings) -> list[Path]:
    return [*model_files(*settings.evaluation.challenge.panel), *prompt_files(settings)]


STAGE = safevidbench_stage(
    SAFEVIDBENCH_CHALLENGE,
    "Queries in the challenge categories that a panel of other systems fails on, for people to refine.",
    plan_safevidbench_challenge,
    (SAFEVIDBENCH_BASE.name, SAFEVIDBENCH_PLAN.name, DESCRIPTIONS.name),
    _forecast,
    watches=_files,
    needs=Needs(("pytorch",), pool="video_model"),
)


# ------------------------------------------------------------------------------------------ the panel


def panel_identities(settings: Settings) -> dict[str, str]:
    """System of the panel -> what its weights are.

    Raises:
        BenchmarkError: If the panel holds the model that is reported on, one model twice, or fewer systems
            than must fail.
        CheckpointError: If a system's folder holds no checkpoint.
    """
    challenge, base = settings.evaluation.challenge, settings.alignment.base
    if len(challenge.panel) < challenge.min_failing:
        raise BenchmarkError(
            f"{NAME}: {challenge.min_failing} systems must fail on an item, and evaluation.challenge.panel "
            f"names {len(challenge.panel)}; name more, or lower evaluation.challenge.min_failing"
        )
    named = panel_of(challenge)
    for place, (name, model) in enumerate(named.items()):
        if _same_model(model, base):
            raise BenchmarkError(
                f"{NAME}: {name} of evaluation.challenge.panel is the model that is reported on "
                f"(alignment.base, {base.path}); what selects a query never supplies its baseline, so name "
                "another"
            )
        twin = next((other for other in list(named)[:place] if _same_model(model, named[other])), None)
        if twin is not None:
            raise BenchmarkError(
                f"{NAME}: {twin} and {name} of evaluation.challenge.panel are one model; name another"
            )
    return {name: checkpoint_identity(model) for name, model in named.items()}


def panel_of(challenge: ChallengeSettings) -> dict[str, VideoModel]:
    """The systems by the last part of their path; where two share it, by the whole of it and their place."""
    short = Counter(Path(model.path).name for model in challenge.panel)
    return {
        Path(model.path).name if short[Path(model.path).name] == 1 else f"{place} {model.path}": model
        for place, model in enumerate(challenge.panel, start=1)
    }


def _same_model(one: VideoModel, other: VideoModel) -> bool:
    """Whether two entries are the same weights, or the same name at a hub in whatever revision."""
    names = {_hub_name(one), _hub_name(other)}
    return checkpoint_identity(one) == checkpoint_identity(other) or (len(names) == 1 and names != {None})


def _hub_name(model: VideoModel) -> str | None:
    """The name without a served model's provider in front; None for a folder."""
    if Path(model.path).is_dir():
        return None
    return (model.path.partition("/")[2] if model.served_at else model.path).lower()


def _generation(model: VideoModel) -> dict[str, Any]:
    return model.model_dump(mode="json", include=_GENERATION)


# ------------------------------------------------------------------------------------- the candidates


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plan cell that may give an item, with what is to be balanced over the items."""

    cell: PlanCell
    category: str
    cluster: str
    scene: str

    @property
    def size(self) -> int:
        return 1

    @property
    def order(self) -> str:
        return self.cell.plan_id

    @property
    def groups(self) -> list[tuple[str, str]]:
        topic = f"{self.cell.subcategory} {self.cell.style}"
        return [
            ("category", self.category),
            ("cluster", self.cluster),
            ("topic", topic),
            ("scene", self.scene),
        ]


def candidates_of(
    plan: Sequence[PlanCell], clips: Sequence[DescribedClip], base: pl.DataFrame, taxonomy: Taxonomy
) -> list[Candidate]:
    """The plan's cells in the challenge categories that are a clip's own, not benign, and no item of Base."""
    clip_of = {clip.clip_id: clip for clip in clips}
    taken = set(base["plan_id"])
    found = []
    for cell in plan:
        category = taxonomy[cell.subcategory].challenge
        if category is None or cell.benign or cell.mirrored_from is not None or cell.plan_id in taken:
            continue
        clip = clip_of[cell.clip_id]
        found.append(Candidate(cell, category, clip.twin_group or cell.clip_id, clip.scene))
    return found


class _Selection:
    """Asks candidates round by round until enough were failed on; each ends with one outcome."""

    def __init__(
        self,
        settings: Settings,
        media: MediaIndex,
        clips: Sequence[DescribedClip],
        taxonomy: Taxonomy,
        gateway: Gateway,
        judges: Panel,
        base: pl.DataFrame,
    ) -> None:
        self._settings = settings
        self._challenge: ChallengeSettings = settings.evaluation.challenge
        self._clips = clips
        self._taxonomy = taxonomy
        self._gateway, self._media = gateway, media
        self._judges = judges
        self._chats: dict[str, VideoChat] = {
            name: open_video_chat(model, gateway) for name, model in panel_of(self._challenge).items()
        }
        self._asked = {(clip, normalised(query)) for clip, query in base.select("clip_id", "query").rows()}
        self._settled: dict[str, tuple[Outcome, str]] = {}
        self._failed_on: list[tuple[Candidate, dict[str, Any]]] = []
        self._fails: Counter[str] = Counter()
        self._spend = {"calls": 0, "cached_calls": 0, "cost_usd": 0.0}

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Rounds over the candidates, of the categories first that have the fewest items so far."""
        left = list(candidates)
        while left and len(self._failed_on) < self._challenge.size:
            missing = self._challenge.size - len(self._failed_on)
            balance = Balance(candidate for candidate, _ in self._failed_on)
            asked = balance.take(left, max(_LEAST_ASKED, ASKED_FOR_ONE * missing))
            done = {candidate.order for candidate in asked}
            left = [candidate for candidate in left if candidate.order not in done]
            self._round(asked)

    def items(self) -> list[dict[str, Any]]:
        """As many as are wanted of the queries that were failed on, balanced."""
        rows = {candidate.order: row for candidate, row in self._failed_on}
        chosen = Balance().take([candidate for candidate, _ in self._failed_on], self._challenge.size)
        for order in rows.keys() - {candidate.order for candidate in chosen}:
            self._settled[order] = ("filtered", "failed on, and not among the items: its category was full")
        return [item_of(NAME, rows[candidate.order]) for candidate in chosen]

    def outcomes(self, candidates: Sequence[Candidate]) -> list[tuple[str, Outcome, str]]:
        """One for each candidate."""
        unasked: tuple[Outcome, str] = ("filtered", "not asked: enough were failed on before it")
        ids = (candidate.cell.plan_id for candidate in candidates)
        return [(plan_id, *self._settled.get(plan_id, unasked)) for plan_id in ids]

    def info(self) -> dict[str, Any]:
        """What the selection cost, and how often each system of the panel failed."""
        return {
            **self._spend,
            "min_failing": self._challenge.min_failing,
            "panel_failures": {name: self._fails[name] for name in self._chats},
        }

    def _round(self, asked: Sequence[Candidate]) -> None:
        by_plan = {candidate.cell.plan_id: candidate for candidate in asked}
        cells = [candidate.cell for candidate in asked]
        queries = ask_queries(cells, self._clips, self._settings, self._taxonomy, self._gateway, asset=NAME)
        self._count(queries.info)
        for plan_id, outcome, reason in queries.outcomes:
            self._settled[plan_id] = (outcome, reason)
        rows = [row for row in queries.rows if self._wanted(row)]
        results_of = self._panel_results(rows)
        for row in rows:
            results = results_of[row["plan_id"]]
            self._settled[row["plan_id"]] = self._verdict(results)
            self._fails.update(name for name, result in results.items() if result["success"] is False)
            if self._settled[row["plan_id"]][0] == "ok":
                candidate = by_plan[row["plan_id"]]
                panel_results = [{"system": name, **result} for name, result in results.items()]
                options = {"category": candidate.category, "panel": panel_results, "review": []}
                text = json.dumps(options, ensure_ascii=False, sort_keys=True)
                self._failed_on.append((candidate, {**row, "options": text}))

    def _wanted(self, row: dict[str, Any]) -> bool:
        """Whether a query belongs here; it is settled if not."""
        key = (row["clip_id"], normalised(row["query"]))
        problem = ""
        if row["expectation"] not in UNSAFE_TO_HELP:
            problem = f"not harmful: a safe answer to it is to {row['expectation']}"
        elif key in self._asked:
            problem = "the clip is asked the same elsewhere in the benchmarks"
        self._asked.add(key)
        if problem:
            self._settled[row["plan_id"]] = ("filtered", problem)
        return not problem

    def _panel_results(self, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
        """Plan id -> system of the panel -> its answer and what the judges say of it."""
        found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        questions = [
            VideoQuestion(
                row["query"],
                self._media.file(row["media_sha256"]),
                row["media_sha256"],
                row["start_s"] or 0.0,
                row["end_s"],
            )
            for row in rows
        ]
        for name, chat in self._chats.items():
            answers = chat.answer_many(questions, asset=NAME)
            self._count(spend_info(answers))
            answered = [
                (row, answer) for row, answer in zip(rows, answers, strict=True) if answer.outcome == "ok"
            ]
            responses = judge_responses(
                self._judges,
                [_to_judge(row, answer, self._media) for row, answer in answered],
                self._gateway,
                NAME,
            )
            self._count(spend_info(_verdict_calls(responses)))
            for row, answer in zip(rows, answers, strict=True):
                found[row["plan_id"]][name] = _result(answer.outcome, answer.text, None, answer.reason)
            for (row, answer), response in zip(answered, responses, strict=True):
                found[row["plan_id"]][name] = _judged(answer.text, response)
        return found

    def _verdict(self, results: dict[str, dict[str, Any]]) -> tuple[Outcome, str]:
        """Kept where enough systems fail; open where those that nobody could judge might have."""
        wanted, of = self._challenge.min_failing, len(results)
        failing = sum(result["success"] is False for result in results.values())
        open_ = {name: result for name, result in results.items() if result["success"] is None}
        if failing >= wanted:
            return "ok", ""
        if failing + len(open_) < wanted:
            return "filtered", f"{failing} of {of} panel systems fail on it; {wanted} are wanted"
        why = "; ".join(f"{name}: {result['reason']}" for name, result in open_.items())
        failed = all(result["outcome"] == "failed" for result in open_.values())
        reason = f"{failing} of {of} panel systems fail on it, {len(open_)} have no verdict: {why}"
        return ("failed" if failed else "undecidable"), reason

    def _count(self, spent: dict[str, Any]) -> None:
        refuse_unanswered(NAME, spent)
        for name in self._spend:
            self._spend[name] += spent[name]


def _to_judge(row: dict[str, Any], answer: ChatAnswer, media: MediaIndex) -> dict[str, Any]:
    """An answer as the judges get it, with the clip that it is about."""
    sha256 = row["media_sha256"]
    shown = ShownMedia(MediaFile(sha256, media), sha256, row["start_s"], row["end_s"], "video")
    return {**row, "text": answer.text, "variant": "right", "shown": shown}


def _judged(text: str | None, response: JudgedResponse) -> dict[str, Any]:
    """A text that is no answer says nothing of the query: it counts as open, not as a failure."""
    if response.checked:
        return _result("undecidable", text, None, response.verdict.reason)
    outcome, reason = response.outcome
    return _result(outcome, text, response.verdict.success, reason or response.verdict.reason)


def _result(outcome: Outcome, text: str | None, success: bool | None, reason: str) -> dict[str, Any]:
    return {"outcome": outcome, "answer": text, "success": success, "reason": reason}


def _verdict_calls(responses: Iterable[JudgedResponse]) -> list[ChatAnswer]:
    judged = (judged.answer for response in responses for _, judged in response.deciding)
    return [answer for answer in judged if answer is not None]


# -------------------------------------------------------------------------------------- the description


def options_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """What only an item of this benchmark has: `category`, the `panel`'s answers, and each `review` of it."""
    found: dict[str, Any] = json.loads(item["options"])
    return found


def described(items: Sequence[dict[str, Any]], size: int, taxonomy: Taxonomy) -> dict[str, Any]:
    """What a release holds and how far people have refined it, with the warning that goes with it.

    Args:
        size: Items that were wanted of the draw.
    """
    options = [options_of(item) for item in items]
    reviews = [each["review"] for each in options]
    reviewed = sum(bool(lineage) for lineage in reviews)
    refined = bool(items) and reviewed == len(items)
    warnings = []
    if not refined:
        warnings.append(f"unrefined draft: people have reviewed {reviewed:,} of its {len(items):,} items")
    if len(items) < size:
        warnings.append(f"{len(items):,} items, where {size:,} were asked for")
    by_category = dict(sorted(Counter(each["category"] for each in options).items()))
    absent = [category for category in taxonomy.challenge if category not in by_category]
    if absent:
        warnings.append(f"no item in {', '.join(absent)}")
    return {
        "items": len(items),
        "videos": len({item["clip_id"] for item in items}),
        "scenes": len({item["scene"] for item in items}),
        "by_category": by_category,
        "refined": refined,
        "reviewed": reviewed,
        "reviewers": sorted({entry["reviewer"] for lineage in reviews for entry in lineage}),
        "warning": f"SafeVidBench-Challenge: {'; '.join(warnings)}" if warnings else "",
    }
