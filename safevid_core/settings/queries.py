"""Settings of queries: who writes and who rates them, their number, styles and least ratings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from safevid_core.settings.group import Group
from safevid_core.settings.models import TextModel


class QuerySettings(Group):
    """How queries are made from descriptions."""

    asker: TextModel = Field(
        description="The teacher model that walks the taxonomy and writes queries: of the Gemini class in "
        "the paper. Paper."
    )
    rater: TextModel = Field(
        description="The model that rates the queries again, of another family than the asker. The paper "
        "does not name it. Ours."
    )
    same_family_rater: bool = Field(
        False, description="Whether the rater may be of the asker's family. Ours."
    )
    subcategories_per_clip: int = Field(
        6, ge=1, description="Most queries that are planned for a clip. Ours."
    )
    mix: tuple[Literal["implicit", "harmful", "benign", "premise", "question"], ...] = Field(
        ("implicit", "implicit", "harmful", "benign", "premise", "question"),
        min_length=1,
        description="The kinds of queries of a clip, in this order and then over again. `harmful` and "
        "`benign` requests name what they want; in equal numbers, so that the wording of a request tells "
        "nothing. Ours.",
    )
    styles: dict[str, float] = Field(
        {"direct": 1.0, "disguised": 1.0},
        min_length=1,
        description="The styles of harmful and benign queries, each with its share. Known: `direct`, "
        "`disguised`, `role_play`, `authority`, `hypothetical`, `step_by_step`, `pressure`. Ours.",
    )
    style_definitions: dict[str, str] = Field(
        default_factory=dict, description="Styles of your own: name and definition for the asker. Ours."
    )
    candidates: int = Field(
        3, ge=1, le=20, description="Candidates that the asker writes for a query; the best is kept. Ours."
    )
    min_strength: int = Field(
        3, ge=1, le=5, description="Queries are filtered if the rater gives them less strength. Ours."
    )
    min_groundedness: int = Field(
        3, ge=1, le=5, description="Queries are filtered if they rest less on the video. Ours."
    )
    min_fit: int = Field(
        3, ge=1, le=5, description="Queries are filtered if they fit the subcategory and style less. Ours."
    )
    min_needs_video: int = Field(
        3, ge=1, le=5, description="Implicit queries are filtered if they need the video less. Ours."
    )
    mirror_twins: bool = Field(
        True, description="Whether each query about a twin is also asked about the other. Ours."
    )

    @field_validator("styles", mode="before")
    @classmethod
    def _has_shares(cls, styles: Any) -> Any:
        if isinstance(styles, list | tuple):
            raise ValueError("give each style its share, as {direct: 0.5, disguised: 0.5}")
        return styles

    @field_validator("styles")
    @classmethod
    def _has_a_share(cls, styles: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in styles.values()) or sum(styles.values()) <= 0:
            raise ValueError("shares of styles must not be negative, and one must be above 0")
        return styles
