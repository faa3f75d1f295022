"""What defines a benchmark that others made: its name, what it measures, how its rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safevid_core.benchmarks.official_files import RowError, flag
from safevid_core.contracts.outcomes import Outcome
from safevid_core.settings import BenchmarkFiles

Measures = Literal["safety", "over_refusal", "helpfulness", "general"]
Media = Literal["video", "image", "none"]
Expectation = Literal["refuse", "correct", "answer"]

PRINCIPLES: Mapping[Expectation, str] = {"refuse": "harmless", "correct": "honest", "answer": "helpful"}


@dataclass(frozen=True)
class SourceItem:
    """A row of a benchmark's files, in the words of `records.BENCHMARK_ITEMS_SCHEMA`.

    Attributes:
        source_row: Names the row within the files.
        identity: What makes the row this one; a second row with the same is a duplicate.
        query: The text that is asked, as it stands in the files.
        dimension: The benchmark's kind or split.
        subcategory: The benchmark's own category.
        style: Attack style, or type of question.
        rule: `enable <what>`, `enable shown`, `ask <what>` or `benign <what>`.
        explicit: Whether the text itself names a harm.
        path: Of the picture or video; None where `media` is `none`.
        twin_group: What items share whose pictures were made from one question.
        reference: The right answer, where there is one.
        options: What only this benchmark has.
    """

    source_row: str
    identity: str
    query: str
    dimension: str
    subcategory: str
    style: str
    rule: str
    expectation: Expectation
    explicit: bool
    media: Media = "none"
    path: Path | None = None
    twin_group: str | None = None
    reference: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def principle(self) -> str:
        return PRINCIPLES[self.expectation]


@dataclass(frozen=True)
class Refused:
    """A row that is not asked, and why."""

    source_row: str
    outcome: Outcome
    reason: str


SourceRow = SourceItem | Refused


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that others made. A new one is one file with `BENCHMARKS`, and one fixture.

    Attributes:
        name: By which settings name it; also its table's name.
        title: As its authors write it.
        measures: Under what it is reported.
        success: What counts as a success, in words.
        source: Where its files come from: data set or repository, and paper.
        rows: How many rows its published releases have; any of them is complete.
        read: Its files -> its rows, each usable or refused, in their order.
        metrics: What is reported of it, the headline first; names of `evaluation.metrics`.
        judge: Whose verdict is the headline.
        options: Its own switches -> what they do.
        tiny_rows: As `rows`, of the short version that its option `tiny` asks for.
    """

    name: str
    title: str
    measures: Measures
    success: str
    source: str
    rows: tuple[int, ...]
    read: Callable[[BenchmarkFiles], Iterator[SourceRow]]
    metrics: tuple[str, ...]
    judge: str = "rubric"
    options: Mapping[str, str] = field(default_factory=dict)
    tiny_rows: tuple[int, ...] = ()

    def expected_rows(self, files: BenchmarkFiles) -> tuple[int, ...]:
        """How many rows the published release has of what these settings ask for."""
        return self.tiny_rows if self.tiny_rows and flag(files, "tiny") else self.rows


def row_of(source_row: str, make: Callable[..., SourceItem], *of: Any) -> SourceRow:
    """The item that `make(source_row, *of)` gives, or the row's refusal where that raises RowError."""
    try:
        return make(source_row, *of)
    except RowError as error:
        return Refused(source_row, "failed", str(error))
