"""Typed rows: what one row of a table is once it leaves its frame.

A row class names columns of its table, all of them or those that are read, and :func:`rows_of` makes one
object a row. Columns and types are checked once a frame, not once a row. Where a file lies is in no row.

Row classes are frozen dataclasses with slots: 350,000 pairs take 2.3 s, and 3.3 s as pydantic models
(docs/architecture.md).
"""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

import polars as pl

from safevid_core.contracts.errors import SchemaError
from safevid_core.contracts.intent import Intent
from safevid_core.contracts.tables import (
    BENCHMARK_ITEMS_SCHEMA,
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    CLIP_MANIFEST,
    DESCRIPTIONS,
    DPO_CHECKPOINT,
    JUDGE_VALIDATION,
    PAIRS,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
)

_DTYPES: dict[object, pl.DataType] = {
    str: pl.String(),
    float: pl.Float64(),
    int: pl.Int64(),
    bool: pl.Boolean(),
    list[str]: pl.List(pl.String()),
    list[int]: pl.List(pl.Int64()),
    list[float]: pl.List(pl.Float64()),
}


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A media file, or a span of it.

    Attributes:
        media_sha256: Hash of the file. None for a row without media.
        start_s: Start of the span in seconds. None for the start of the file, or if it is not known.
        end_s: End of the span in seconds. None for the end of the file, or if it is not known.
    """

    media_sha256: str | None
    start_s: float | None
    end_s: float | None

    @property
    def is_picture(self) -> bool:
        """Whether the file is a picture and not a video."""
        return False


@dataclass(frozen=True, slots=True)
class ClipSpan(MediaSpan):
    """A clip: a span of a video."""

    SCHEMA: ClassVar[pl.Schema] = CLIP_MANIFEST.schema

    media_sha256: str
    clip_id: str


@dataclass(frozen=True, slots=True)
class Clip(ClipSpan):
    """A clip of the corpus: its scene, its side of the split and its span of a video."""

    SCHEMA: ClassVar[pl.Schema] = VIDEO_CORPUS.schema

    scene: str
    split: str


@dataclass(frozen=True, slots=True)
class DescribedClip(MediaSpan):
    """A clip with its reconciled description.

    Attributes:
        text: The description. None if the teachers are not told what the clip shows.
    """

    SCHEMA: ClassVar[pl.Schema] = DESCRIPTIONS.schema

    clip_id: str
    scene: str
    twin_group: str | None
    text: str | None


@dataclass(frozen=True, slots=True)
class ClipText(MediaSpan):
    """A text about a clip whose intent is known: a query, the item of a benchmark or the prompt of a pair."""

    scene: str | None
    twin_group: str | None
    principle: str | None
    dimension: str | None
    subcategory: str | None
    style: str | None
    asks: str | None
    target: str | None
    premise: str | None
    premise_holds: bool | None
    expectation: str | None
    hazard: str | None
    criteria: list[str]
    policy: list[str]

    @property
    def intent(self) -> Intent:
        """What the text wants, and what a safe response must do."""
        return Intent.held_by(self)


@dataclass(frozen=True, slots=True)
class Query(ClipText):
    """A query about a clip, with all that its responses are made from."""

    SCHEMA: ClassVar[pl.Schema] = TAXONOMY_QUERIES.schema

    scene: str
    principle: str
    dimension: str
    subcategory: str
    style: str
    expectation: str
    query_id: str
    clip_id: str
    description: str | None
    query: str
    taxonomy_hash: str


@dataclass(frozen=True, slots=True)
class BenchmarkItem(ClipText):
    """An item of a benchmark, without the description of its clip.

    Attributes:
        explicit: Whether the text names a harm by itself.
        media: `image` for a picture. None or `video` for a video.
    """

    SCHEMA: ClassVar[pl.Schema] = BENCHMARK_ITEMS_SCHEMA

    principle: str
    subcategory: str
    expectation: str
    item_id: str
    benchmark: str
    clip_id: str | None
    query: str
    explicit: bool | None
    media: str | None
    reference: str | None

    @property
    def is_picture(self) -> bool:
        """Whether the file is a picture and not a video."""
        return self.media == "image"


@dataclass(frozen=True, slots=True)
class DescribedItem(BenchmarkItem):
    """An item of a benchmark with the description of its clip, from which the query was written."""

    description: str | None


@dataclass(frozen=True, slots=True)
class BenchmarkResponse:
    """What a system answered to one item, asked once.

    Attributes:
        settings: JSON of how the text was generated; None for a system without a model.
    """

    SCHEMA: ClassVar[pl.Schema] = BENCHMARK_RESPONSES.schema

    response_id: str
    request_id: str
    seed: int
    media_sha256: str | None
    text: str | None
    model: str | None
    settings: str | None


@dataclass(frozen=True, slots=True)
class BenchmarkScore:
    """The verdict on one response.

    Attributes:
        expected: What a safe response does: refuse, correct or answer.
        refused: None if no judge says.
        verdicts: JSON list with one object for each judge.
    """

    SCHEMA: ClassVar[pl.Schema] = BENCHMARK_SCORES.schema

    response_id: str
    item_id: str
    variant: str
    seed: int
    expected: str
    success: bool
    refused: bool | None
    reason: str | None
    score: float | None
    verdicts: str | None
    panel: str | None
    judge: str | None
    judge_revision: str | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint was trained from and on."""

    SCHEMA: ClassVar[pl.Schema] = DPO_CHECKPOINT.schema

    seed: int
    checkpoint_id: str
    base: str | None
    base_revision: str | None
    release: str | None
    pairs: int | None
    perturbation: str | None
    objective: str | None
    trained_on: str | None


@dataclass(frozen=True, slots=True)
class JudgeFigure:
    """One figure of a judge's validation; `value` is None if nothing could be measured."""

    SCHEMA: ClassVar[pl.Schema] = JUDGE_VALIDATION.schema

    judge: str
    model: str | None
    revision: str | None
    version: str | None
    source: str
    measure: str
    grouping: str
    category: str
    n: int
    undecidable: int | None
    value: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True)
class Pair(ClipText):
    """A preference pair: a prompt about a clip with a chosen and a rejected response."""

    SCHEMA: ClassVar[pl.Schema] = PAIRS.schema

    pair_id: str
    query_id: str | None
    clip_id: str
    prompt: str
    chosen: str
    rejected: str
    satisfies: list[int]
    chosen_score: float | None
    rejected_score: float | None
    margin: float | None
    chosen_verdict: str | None
    rejected_verdict: str | None
    flags: list[str]
    pair_judge: str | None
    chosen_model: str | None
    rejected_model: str | None
    rejected_system: str | None
    taxonomy_hash: str | None


ROWS = (
    ClipSpan,
    Clip,
    DescribedClip,
    Query,
    BenchmarkItem,
    DescribedItem,
    BenchmarkResponse,
    BenchmarkScore,
    Checkpoint,
    JudgeFigure,
    Pair,
)
Row = TypeVar("Row")


def rows_of(frame: pl.DataFrame, kind: type[Row]) -> list[Row]:
    """The rows of a frame as objects, in its order. Columns that the class does not name are left out.

    Raises:
        SchemaError: If a column is missing or has another type; names the first.
    """
    columns = columns_of(kind)
    for name, dtype in columns.items():
        found = frame.schema.get(name)
        if found is None:
            raise SchemaError(f"{kind.__name__}: column {name!r} is missing; make the table again")
        if found not in (dtype, pl.Null()):
            raise SchemaError(
                f"{kind.__name__}: column {name!r} is {found}, not {dtype}; make the table again"
            )
    return [kind(*values) for values in frame.select(list(columns)).iter_rows()]


def columns_of(kind: type) -> dict[str, pl.DataType]:
    """The columns that a row class names, in the order of its fields, with their types."""
    hints = get_type_hints(kind)
    return {each.name: _dtype(hints[each.name]) for each in fields(kind)}


def _dtype(hint: object) -> pl.DataType:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(each for each in get_args(hint) if each is not types.NoneType)
    return _DTYPES[hint]
