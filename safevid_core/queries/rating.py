"""Ratings of candidates by a second model, the rater, which is of another family than the asker.

The rater sees the candidates of a cell twice: once with the description, to rate strength, groundedness and
fit, and once without, to say whether the video is needed and whether the text names a harm by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.intent import UNSAFE_TO_HELP
from safevid_core.contracts.rows import DescribedClip
from safevid_core.models.llm import ChatRequest
from safevid_core.models.model_names import shared_family, without_family
from safevid_core.models.structured import ItemByItem, Misfit
from safevid_core.models.teacher import teacher_request
from safevid_core.queries.candidates import Candidate, style_material, subcategory_material
from safevid_core.queries.cells import PlanCell
from safevid_core.queries.prompts import RATE, RATE_BLIND
from safevid_core.queries.styles import IMPLICIT
from safevid_core.settings import QuerySettings
from safevid_core.taxonomy.taxonomy import Taxonomy

LOWEST, HIGHEST = 1, 5


class RaterError(SafeVidError, ValueError):
    """The rater may not rate what the asker writes. The message says what to change."""


def _no_truth_value(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError("true and false are no numbers")
    return given


# A whole number. `"4"` and `4.0` are read as 4; `4.5`, `true` and null are refused.
Whole = Annotated[int, BeforeValidator(_no_truth_value)]


class SeenRating(BaseModel):
    """The rating of one candidate, made with the description."""

    number: Whole
    strength: Whole
    groundedness: Whole
    fit: Whole


class SeenRatings(ItemByItem):
    """The rater's reply with the description."""

    read_by_item = ("ratings",)

    ratings: list[SeenRating]


class BlindRating(BaseModel):
    """The rating of one candidate, made without the description."""

    number: Whole
    needs_video: Whole
    explicit: bool


class BlindRatings(ItemByItem):
    """The rater's reply without the description."""

    read_by_item = ("ratings",)

    ratings: list[BlindRating]


_Read = TypeVar("_Read", SeenRating, BlindRating)


@dataclass(frozen=True)
class Rating:
    """What the rater says of one candidate; each figure from 1 to 5."""

    strength: int
    groundedness: int
    fit: int
    needs_video: int
    explicit: bool


def require_other_family(settings: QuerySettings) -> None:
    """Refuse a rater of the asker's family, and one whose family is not known, unless the settings allow it.

    Raises:
        RaterError: With the names and what to change.
    """
    if settings.same_family_rater:
        return
    both = f"queries.rater ({settings.rater.model})", f"queries.asker ({settings.asker.model})"
    family = shared_family(settings.rater, settings.asker)
    if family is not None:
        raise RaterError(
            f"{both[0]} is of the family {family!r}, as {both[1]} is; name a rater of another family, or set "
            "queries.same_family_rater"
        )
    unknown = without_family(settings.rater, "queries.rater") or without_family(
        settings.asker, "queries.asker"
    )
    if unknown is not None:
        key, name = unknown
        raise RaterError(
            f"{key}: the name {name!r} does not tell the model's family, so nobody knows whether rater and "
            f"asker are of one family; set {key}.family, such as `gpt` or `llama`, or "
            "queries.same_family_rater"
        )


def rating_requests(
    cell: PlanCell,
    clip: DescribedClip,
    candidates: Sequence[Candidate],
    settings: QuerySettings,
    taxonomy: Taxonomy,
) -> tuple[ChatRequest, ChatRequest]:
    """The two requests to the rater about the candidates of a cell: with the description, and without."""
    numbered = [{"number": number, "query": each.query} for number, each in enumerate(candidates, start=1)]
    expected = [{"expectation": each.expectation} for each in candidates]
    seen = {
        "description": clip.text,
        "scene": clip.scene,
        "subcategory": subcategory_material(taxonomy[cell.subcategory]),
        "style": style_material(cell.style, settings),
        "candidates": [one | other for one, other in zip(numbered, expected, strict=True)],
    }
    return (
        teacher_request(settings.rater, RATE, seen),
        teacher_request(settings.rater, RATE_BLIND, {"candidates": numbered}),
    )


def ratings_of(seen: SeenRatings, blind: BlindRatings, number: int) -> Rating | str:
    """The rating of candidate `number`, counted from 1, or what is wrong with it in one line."""
    with_video = _of_candidate(seen.ratings, seen.misfits, number)
    without = _of_candidate(blind.ratings, blind.misfits, number)
    if len(with_video) != 1 or len(without) != 1:
        return (
            f"the rater rated candidate {number} {len(with_video)} and {len(without)} times; once each is due"
        )
    one, other = with_video[0], without[0]
    if isinstance(one, Misfit):
        return f"the rater's rating of candidate {number} cannot be read: {one.reason}"
    if isinstance(other, Misfit):
        return f"the rater's blind rating of candidate {number} cannot be read: {other.reason}"
    found = Rating(one.strength, one.groundedness, one.fit, other.needs_video, other.explicit)
    for name in ("strength", "groundedness", "fit", "needs_video"):
        value = getattr(found, name)
        if not LOWEST <= value <= HIGHEST:
            return (
                f"the rater gave candidate {number} a {name} of {value}; the scale is {LOWEST} to {HIGHEST}"
            )
    return found


def _of_candidate(ratings: Sequence[_Read], misfits: Sequence[Misfit], number: int) -> list[_Read | Misfit]:
    """The ratings of one candidate, with those that cannot be read and bear its number."""
    found: list[_Read | Misfit] = [each for each in ratings if each.number == number]
    found += [each for each in misfits if isinstance(each.given, dict) and _is(each.given, number)]
    return found


def _is(given: Mapping[str, Any], number: int) -> bool:
    """Whether a rating that cannot be read is of the candidate with this number."""
    said = given.get("number")
    return not isinstance(said, bool) and str(said).strip() == str(number)


def weakness(candidate: Candidate, style: str, rating: Rating, settings: QuerySettings) -> str | None:
    """Which rating of a candidate is too low, in one line. None if none is.

    Strength counts only if helping would be unsafe or a premise is false: a plain question may be easy.
    """
    least = {
        "strength": settings.min_strength if candidate.expectation != "answer" else LOWEST,
        "groundedness": settings.min_groundedness,
        "fit": settings.min_fit,
        "needs_video": settings.min_needs_video if style == IMPLICIT else LOWEST,
    }
    low = [name for name, bound in least.items() if getattr(rating, name) < bound]
    if not low:
        return None
    return "; ".join(f"{name} {getattr(rating, name)} is below {least[name]}" for name in low)


def rank(candidate: Candidate, style: str, rating: Rating) -> int:
    """The sum of the ratings that count for a candidate. The highest one is kept."""
    strength = rating.strength if candidate.expectation in (*UNSAFE_TO_HELP, "correct") else 0
    return strength + rating.groundedness + rating.fit + (rating.needs_video if style == IMPLICIT else 0)
