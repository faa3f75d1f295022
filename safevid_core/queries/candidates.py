"""Candidates for a query: the asker writes several for each cell of the plan, each with its intent."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, Field, field_validator, model_validator

from safevid_core.contracts.intent import MAX_CRITERIA, Asks, Expectation, Intent
from safevid_core.contracts.rows import DescribedClip
from safevid_core.models.llm import ChatRequest
from safevid_core.models.structured import ItemByItem
from safevid_core.models.teacher import teacher_request
from safevid_core.queries.cells import PlanCell
from safevid_core.queries.prompts import CANDIDATES, CANDIDATES_WITHOUT_DESCRIPTION
from safevid_core.queries.styles import IMPLICIT, style_definitions
from safevid_core.settings import QuerySettings
from safevid_core.taxonomy.taxonomy import Subcategory, Taxonomy

MAX_QUERY_CHARACTERS = 1_000


class Candidate(BaseModel):
    """A query that the asker proposes, with its intent."""

    query: str = Field(min_length=1)
    asks: Asks
    target: str = Field(min_length=1)
    premise: str | None = None
    premise_holds: bool | None = None
    expectation: Expectation
    hazard: str | None = None
    criteria: list[str] = Field(min_length=2, max_length=MAX_CRITERIA)

    @field_validator("query")
    @classmethod
    def _stripped(cls, query: str) -> str:
        return query.strip()

    @field_validator("premise", "hazard")
    @classmethod
    def _nothing_is_none(cls, text: str | None) -> str | None:
        return None if text is None or text.strip().lower() in ("", "none", "null") else text

    @field_validator("criteria")
    @classmethod
    def _has_sentences(cls, criteria: list[str]) -> list[str]:
        if any(not each.strip() for each in criteria):
            raise ValueError("a criterion is empty; give two to six sentences")
        return criteria

    @model_validator(mode="after")
    def _nothing_holds_without_premise(self) -> Candidate:
        """Askers write `false` for a premise that they do not name."""
        if self.premise is None:
            self.premise_holds = None
        return self

    @property
    def intent(self) -> Intent:
        return Intent.held_by(self)


class Candidates(ItemByItem):
    """The asker's reply: no candidate if the subcategory has no ground in the clip."""

    read_by_item = ("candidates",)

    candidates: list[Candidate]


def task_of(described: bool) -> str:
    """What the asker is told, for clips with or without a description."""
    return CANDIDATES if described else CANDIDATES_WITHOUT_DESCRIPTION


def candidates_request(
    cell: PlanCell,
    clip: DescribedClip,
    text: str | None,
    settings: QuerySettings,
    taxonomy: Taxonomy,
) -> ChatRequest:
    """The request to the asker for the candidates of a cell.

    Args:
        text: The text of the twin's query, if the cell mirrors it. None otherwise.
    """
    described = clip.text is not None
    material: dict[str, Any] = {
        "description": clip.text,
        "scene": clip.scene,
        "ground": cell.ground or None,
        "subcategory": subcategory_material(taxonomy[cell.subcategory]),
        "style": style_material(cell.style, settings),
        "phrasing": cell.phrasing,
        # A given query may deserve another response here than beside the video for which it was written.
        "benign": cell.benign if text is None or not described else None,
        "candidates": 1 if text is not None else settings.candidates,
    }
    if text is not None:
        material["query"] = text
    if not described:
        # Without it the request would be the same for all clips.
        material["clip"] = cell.clip_id
    return teacher_request(settings.asker, task_of(described), material)


def subcategory_material(subcategory: Subcategory) -> dict[str, Any]:
    """A subcategory as teachers see it: with its policy, and what makes a query hazardous beside a video."""
    names = ("id", "name", "principle", "definition", "hazard_about_a_video", "hazard_in_time")
    counterpart = subcategory.benign_counterpart
    return {name: getattr(subcategory, name) for name in names} | {
        "policy": subcategory.policy.sentences,
        "benign_counterpart": {"video": counterpart.video, "query": counterpart.query},
    }


def style_material(style: str, settings: QuerySettings) -> dict[str, str]:
    """A style as teachers see it."""
    return {"id": style, "definition": style_definitions(settings)[style]}


def fault(query: str, style: str, description: str | None, explicit: bool) -> str | None:
    """Why a query cannot be asked, in one line. None if it can."""
    if not query.strip():
        return "the query is empty"
    if len(query) > MAX_QUERY_CHARACTERS:
        return f"the query has {len(query)} characters; the most is {MAX_QUERY_CHARACTERS}"
    if normalised(description or "") and normalised(description or "") in normalised(query):
        return "the query quotes the whole description, so that no video is needed to answer it"
    if style == IMPLICIT and explicit:
        return "the query names the harm, though only the video should show it"
    return None


def contradiction(candidate: Candidate, description: str | None) -> str | None:
    """What in the intent of a candidate contradicts its expectation, in one line. None if nothing does."""
    found = candidate.intent.contradiction(known=description is not None)
    return None if found is None else f"the asker {found}"


def mismatch(candidate: Candidate, *, harmless: bool, benign: bool) -> str | None:
    """Why the intent of a candidate is not the one that was planned, in one line. None if it is.

    Args:
        harmless: Whether the subcategory is of principle harmless.
        benign: Whether the benign counterpart was planned.
    """
    helps = candidate.expectation == "answer"
    if benign and not helps:
        return f"a benign query was planned, and the asker expects a safe response to {candidate.expectation}"
    if harmless and not benign and helps:
        return "a harmful query was planned, and the asker expects a safe response to answer it"
    return None


def normalised(text: str) -> str:
    """The words of a text in lower case. A reader calls two texts the same if these are equal."""
    return " ".join(re.findall(r"\w+", text.lower()))
