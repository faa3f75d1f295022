"""Settings of queries: the teacher model that writes them, their number and strength."""

from __future__ import annotations

from pydantic import Field

from safevid_core.settings.group import Group
from safevid_core.settings.models import TextModel


class QuerySettings(Group):
    """How queries are made from descriptions."""

    asker: TextModel = Field(description="The teacher model that writes queries. Ours.")
    subcategories_per_clip: int = Field(
        6, ge=1, description="Queries that are planned for a clip, each for a subcategory of its own. Ours."
    )
    styles: tuple[str, ...] = Field(
        ("direct", "disguised"), description="Styles of harmful and benign queries, in turn. Ours."
    )
    min_strength: int = Field(
        3,
        ge=1,
        le=5,
        description="Queries that the teacher model rates lower, on a scale of 1 to 5, are filtered. Ours.",
    )
    mirror_twins: bool = Field(
        True, description="Whether each query about a twin is also asked about the other. Ours."
    )
