"""Queries of cells: the asker's candidates, the rater's figures, and the best candidate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome
from safevid_core.contracts.rows import DescribedClip
from safevid_core.models.llm import ChatAnswer, ChatRequest, Gateway, ask_structured
from safevid_core.models.structured import told_of_misfits
from safevid_core.models.teacher import spend_info
from safevid_core.queries.candidates import (
    Candidate,
    Candidates,
    candidates_request,
    contradiction,
    fault,
    mismatch,
    normalised,
)
from safevid_core.queries.cells import CLIP_COLUMNS, PlanCell
from safevid_core.queries.rating import (
    BlindRatings,
    Rating,
    SeenRatings,
    rank,
    rating_requests,
    ratings_of,
    weakness,
)
from safevid_core.settings import QuerySettings, Settings
from safevid_core.taxonomy.taxonomy import Taxonomy

# The end of the reason of a cell for which the asker wrote no candidate.
NO_GROUND = "has no ground in the clip"


@dataclass
class AskedQueries:
    """Queries asked over a plan.

    Attributes:
        rows: The kept queries: `query_id` and every column of `tables.QUERY_COLUMNS`.
        outcomes: One for each of `plan_ids`. The reason of a kept query tells which candidates and ratings
            of its cell could not be read.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[tuple[str, Outcome, str]] = field(default_factory=list)
    plan_ids: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


def ask_queries(
    cells: Sequence[PlanCell],
    clips: Sequence[DescribedClip],
    settings: Settings,
    taxonomy: Taxonomy,
    gateway: Gateway,
    *,
    asset: str,
) -> AskedQueries:
    """Write, rate and choose the query of every cell: first the new ones, then the twins of those kept."""
    asking = Asking(clips, settings.queries, taxonomy, gateway, asset)
    asking.ask_all(cells)
    result = asking.result
    result.plan_ids = [cell.plan_id for cell in cells]
    result.info = spend_info(asking.answers) | _counts(result.rows)
    return result


@dataclass
class _Written:
    """The candidates of one cell."""

    cell: PlanCell
    candidates: list[Candidate]
    answer: ChatAnswer
    unread: str  # what is wrong with candidates that cannot be read; empty if there are none


class Asking:
    """Asks about cells and records one outcome of each. `kept` is plan id -> text of the kept queries.

    Attributes:
        kept: Plan id -> text of the kept queries.
        left_open: The number of cells without candidates that the rater could rate, because the asker could
            not be reached, and of mirrored cells without a text for the same reason.
    """

    def __init__(
        self,
        clips: Sequence[DescribedClip],
        settings: QuerySettings,
        taxonomy: Taxonomy,
        gateway: Gateway,
        asset: str,
    ) -> None:
        self._clips = {clip.clip_id: clip for clip in clips}
        self._settings = settings
        self._taxonomy = taxonomy
        self._gateway = gateway
        self._asset = asset
        self._plan_of_text: dict[tuple[str, str], str] = {}
        self._outcome_of: dict[str, Outcome] = {}
        self._unanswered: set[str] = set()
        self.kept: dict[str, str] = {}
        self.left_open = (0, 0)
        self.answers: list[ChatAnswer] = []
        self.result = AskedQueries()

    def ask_all(self, cells: Sequence[PlanCell]) -> None:
        """Ask about the new cells, then about the twins of those kept. Each cell is settled."""
        new: list[PlanCell] = []
        mirrored: list[PlanCell] = []
        for cell in cells:
            obsolete = self.obsolete(cell)
            if obsolete:
                self.record_outcome(cell, "filtered", obsolete)
            else:
                (new if cell.mirrored_from is None else mirrored).append(cell)
        self.ask(new, texts={})
        self.mirror(mirrored)

    def ask(self, cells: Sequence[PlanCell], texts: Mapping[str, str]) -> None:
        """Ask about one batch. `texts` gives the fixed text of a cell's query by plan id."""
        written = self._write(cells, texts)
        requests = [
            request
            for each in written
            for request in rating_requests(
                each.cell, self._clips[each.cell.clip_id], each.candidates, self._settings, self._taxonomy
            )
        ]
        seen = ask_structured(self._gateway, requests[::2], SeenRatings, asset=self._asset)
        blind = ask_structured(self._gateway, requests[1::2], BlindRatings, asset=self._asset)
        for each, (with_video, one), (without, other) in zip(written, seen, blind, strict=True):
            self.answers += [one, other]
            if with_video is None or without is None:
                failed = one if with_video is None else other
                self._note_unanswered(each.cell, one, other)
                self.record_outcome(
                    each.cell, _failure(failed), f"the rater gave no usable rating: {failed.reason}"
                )
            else:
                self._choose(each, with_video, without, one)

    def mirror(self, cells: Sequence[PlanCell]) -> None:
        """Ask about the mirrored cells whose twin's query was kept. The others get an outcome."""
        texts: dict[str, str] = {}
        for cell in cells:
            original = cell.mirrored_from or ""
            if original in self.kept:
                texts[cell.plan_id] = self.kept[original]
                continue
            if original in self._unanswered:
                self.left_open = self.left_open[0], self.left_open[1] + 1
            self.record_outcome(cell, *self._without_twin(original))
        self.ask([cell for cell in cells if cell.plan_id in texts], texts)

    def obsolete(self, cell: PlanCell) -> str:
        """Why a cell of an older plan cannot be asked any more. Empty if it can."""
        if cell.clip_id not in self._clips:
            return f"clip {cell.clip_id} is not described any more; make the query plan again"
        if cell.subcategory not in self._taxonomy:
            return (
                f"subcategory {cell.subcategory} is not in the taxonomy, version {self._taxonomy.version}; "
                "make the query plan again"
            )
        return ""

    def record_outcome(self, cell: PlanCell, outcome: Outcome, reason: str) -> None:
        self.result.outcomes.append((cell.plan_id, outcome, reason))
        self._outcome_of[cell.plan_id] = outcome

    def _note_unanswered(self, cell: PlanCell, *answers: ChatAnswer) -> None:
        if any(answer.unanswered for answer in answers):
            self._unanswered.add(cell.plan_id)

    def _without_twin(self, plan_id: str) -> tuple[Outcome, str]:
        """The outcome of a cell whose twin's query was not kept: it failed if the twin's failed."""
        of_twin = self._outcome_of.get(plan_id)
        if of_twin == "failed":
            return "failed", f"the twin's query {plan_id} failed"
        return "filtered", f"the twin's query {plan_id} was not kept"

    def _write(self, cells: Sequence[PlanCell], texts: Mapping[str, str]) -> list[_Written]:
        """Candidates of the cells that have any; an outcome is recorded for the others."""
        requests: list[ChatRequest] = [
            candidates_request(
                cell, self._clips[cell.clip_id], texts.get(cell.plan_id), self._settings, self._taxonomy
            )
            for cell in cells
        ]
        results = ask_structured(self._gateway, requests, Candidates, asset=self._asset)
        written = []
        for cell, (found, answer) in zip(cells, results, strict=True):
            self.answers.append(answer)
            text = texts.get(cell.plan_id)
            if found is None:
                self._note_unanswered(cell, answer)
                self.left_open = self.left_open[0] + answer.unanswered, self.left_open[1]
                self.record_outcome(cell, _failure(answer), answer.reason)
            elif not found.candidates:
                self.record_outcome(cell, "filtered", f"subcategory {cell.subcategory} {NO_GROUND}")
            elif text is not None and normalised(found.candidates[0].query) != normalised(text):
                self.record_outcome(cell, "filtered", "the asker changed the text that it was given")
            else:
                some = found.candidates[: self._settings.candidates]
                if text is not None:
                    some = [found.candidates[0].model_copy(update={"query": text})]
                unread = told_of_misfits(found.misfits, "a candidate of the asker")
                written.append(_Written(cell, some, answer, unread))
        return written

    def _choose(self, written: _Written, seen: SeenRatings, blind: BlindRatings, rated: ChatAnswer) -> None:
        """Keep the best candidate that passes, or record what is wrong with each."""
        cell = written.cell
        best: tuple[Candidate, Rating] | None = None
        problems: list[str] = []
        unrated: list[str] = []
        for number, candidate in enumerate(written.candidates, start=1):
            rating = ratings_of(seen, blind, number)
            if isinstance(rating, str):
                unrated.append(rating)
                problems.append(rating)
                continue
            problem = self._problem(cell, candidate, rating)
            if problem:
                problems.append(problem)
            elif best is None or rank(candidate, cell.style, rating) > rank(best[0], cell.style, best[1]):
                best = candidate, rating
        if best is None:
            outcome: Outcome = "failed" if len(unrated) == len(written.candidates) else "filtered"
            self.record_outcome(cell, outcome, _joined(*problems, written.unread))
        else:
            self.record_outcome(cell, "ok", _joined(*unrated, written.unread))
            self._keep(written, *best, rated)

    def _problem(self, cell: PlanCell, candidate: Candidate, rating: Rating) -> str | None:
        description = self._clips[cell.clip_id].text
        wrong = fault(candidate.query, cell.style, description, rating.explicit)
        wrong = wrong or contradiction(candidate, description)
        if cell.mirrored_from is None:
            harmless = self._taxonomy[cell.subcategory].principle == "harmless"
            wrong = wrong or mismatch(candidate, harmless=harmless, benign=cell.benign)
        wrong = wrong or weakness(candidate, cell.style, rating, self._settings)
        if wrong:
            return wrong
        before = self._plan_of_text.get((cell.clip_id, normalised(candidate.query)))
        return f"same text as the clip's query of plan {before}" if before else None

    def _keep(self, written: _Written, candidate: Candidate, rating: Rating, rated: ChatAnswer) -> None:
        cell, answer = written.cell, written.answer
        self._plan_of_text[cell.clip_id, normalised(candidate.query)] = cell.plan_id
        self.kept[cell.plan_id] = candidate.query
        clip, subcategory = self._clips[cell.clip_id], self._taxonomy[cell.subcategory]
        self.result.rows.append(
            {
                "query_id": content_id("query", cell.plan_id, candidate.query),
                "plan_id": cell.plan_id,
                **{name: getattr(clip, name) for name in CLIP_COLUMNS if name != "text"},
                "description": clip.text,
                "principle": subcategory.principle,
                "dimension": subcategory.dimension,
                "subcategory": subcategory.id,
                "style": cell.style,
                "query": candidate.query,
                **candidate.intent.columns,
                "policy": subcategory.policy_for(candidate.expectation),
                "explicit": rating.explicit,
                "strength": rating.strength,
                "groundedness": rating.groundedness,
                "fit": rating.fit,
                "needs_video": rating.needs_video,
                "candidates": len(written.candidates),
                "mirrored_from": cell.mirrored_from,
                "taxonomy_hash": subcategory.hash,
                "model": answer.model,
                "revision": answer.revision,
                "request_key": answer.request_key,
                "rater": rated.model,
                "rater_request_key": rated.request_key,
            }
        )


def _joined(*lines: str) -> str:
    """Each line once, in one line."""
    return "; ".join(dict.fromkeys(line for line in lines if line))


def _failure(answer: ChatAnswer) -> Outcome:
    return answer.outcome if answer.outcome != "ok" else "failed"


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    columns = ("principle", "subcategory", "style", "expectation")
    return {f"by_{name}": dict(sorted(Counter(row[name] for row in rows).items())) for name in columns}
