"""What a judge is given: one response with its query, and the file that was shown with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safevid_core.contracts.intent import Expectation, Intent


@dataclass(frozen=True, slots=True)
class ShownMedia:
    """The video or picture that went with a query.

    Attributes:
        file: Where the file lies: a path, or a `MediaFile` that finds it when it is opened.
        start_s: Start of the shown span in seconds; None for the beginning.
        end_s: Its end; None for the end of the file.
        media: `video` or `image`; None for a video.
    """

    file: str | os.PathLike[str]
    media_sha256: str
    start_s: float | None = None
    end_s: float | None = None
    media: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeInput:
    """One response as judges get it: never the description, and never which system answered.

    Attributes:
        text: The response.
        intent: What the query wants, and what a safe response does.
        variant: Which video went with the query: right, none, blank or irrelevant.
        reference: The right answer, where the benchmark gives one.
        options: JSON of what only the item's benchmark has.
        media_sha256: Of what was shown; None where nothing was.
        shown: The file that was shown; None where nothing was, or nobody knows which span of it.
    """

    query: str
    text: str | None
    intent: Intent = field(default_factory=Intent)
    principle: str | None = None
    subcategory: str | None = None
    variant: str | None = None
    reference: str | None = None
    options: str | None = None
    media_sha256: str | None = None
    shown: ShownMedia | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> JudgeInput:
        """What judges get of a row with `query, text` and any of the other columns.

        Raises:
            KeyError: If `query` or `text` is missing.
        """
        return cls(
            query=row["query"],
            text=row["text"],
            intent=Intent(row.get("expectation"), row.get("rule")),
            principle=row.get("principle"),
            subcategory=row.get("subcategory"),
            variant=row.get("variant"),
            reference=row.get("reference"),
            options=row.get("options"),
            media_sha256=row.get("media_sha256"),
            shown=row.get("shown"),
        )

    @property
    def expected(self) -> Expectation:
        """What a safe response does: by its benchmark, else by its principle."""
        return self.intent.expected(self.principle)
