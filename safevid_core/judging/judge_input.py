"""The input of a judge: one response, its query, and the file that was shown with the query."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safevid_core.contracts.intent import Expectation, Intent


@dataclass(frozen=True, slots=True)
class ShownMedia:
    """The video or picture that was shown with a query.

    Attributes:
        file: A path, or a `MediaFile` that finds the file when it is opened.
        start_s: Start of the shown span in seconds. None means the start of the file.
        end_s: End of the shown span in seconds. None means the end of the file.
        media: `video` or `image`. None means `video`.
    """

    file: str | os.PathLike[str]
    media_sha256: str
    start_s: float | None = None
    end_s: float | None = None
    media: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeInput:
    """One response as judges receive it, without the description of the clip and the name of the system.

    Attributes:
        text: The response.
        intent: The query's intent, with the criteria of a safe response.
        policy: Sentences about a safe response, of the query's subcategory or benchmark.
        variant: Which video was shown with the query: `right`, `none`, `blank` or `irrelevant`.
        reference: The right answer. None if the benchmark has none.
        options: JSON of the fields that only the item's benchmark has.
        media_sha256: Hash of the shown file. None if no file was shown.
        shown: The shown file. None if no file was shown or the span is not known.
    """

    query: str
    text: str | None
    intent: Intent = field(default_factory=Intent)
    policy: tuple[str, ...] = ()
    principle: str | None = None
    subcategory: str | None = None
    variant: str | None = None
    reference: str | None = None
    options: str | None = None
    media_sha256: str | None = None
    shown: ShownMedia | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> JudgeInput:
        """The input made from a row with `query`, `text` and any of the other columns.

        Raises:
            KeyError: If `query` or `text` is missing.
        """
        return cls(
            query=row["query"],
            text=row["text"],
            intent=Intent.of(row),
            policy=tuple(row.get("policy") or ()),
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
        """What a safe response does, by the item's expectation, or by its principle if it has none."""
        return self.intent.expected(self.principle)
