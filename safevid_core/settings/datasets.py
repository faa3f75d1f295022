"""Settings of the release of pairs: pairs of others, duplicates, and pairs that a benchmark holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from safevid_core.settings.allocation import AllocationSettings
from safevid_core.settings.group import Group

ImportColumn = Literal["query", "chosen", "rejected", "video", "subcategory", "style", "expectation"]
_NEEDED = ("query", "chosen", "rejected", "video")


class PairImport(Group):
    """A data set of preference pairs that others made, and where its rows hold what."""

    path: Path = Field(
        description="A file of JSON lines (`.jsonl`), a JSON list (`.json`) or Parquet (`.parquet`), or a "
        "folder of such files. Ours."
    )
    columns: dict[ImportColumn, str] = Field(
        description="Where a row holds each text. A dot leads into objects and lists: `messages.0.content` "
        "is the content of the first message. `query`, `chosen`, `rejected` and `video` are needed. `video` "
        "is matched with the corpus: a clip id, a SHA-256, a path or file name, or the id of a source video. "
        "Ours."
    )
    placeholders: tuple[str, ...] = Field(
        ("<video>", "<image>"), description="Texts that are removed from the query. Ours."
    )
    max_characters: int = Field(
        100_000, ge=1, description="Rows with a longer query or response are left out. Ours."
    )

    @field_validator("columns")
    @classmethod
    def _has_what_is_needed(cls, columns: dict[str, str]) -> dict[str, str]:
        missing = [name for name in _NEEDED if name not in columns]
        if missing:
            raise ValueError(f"the map lacks {', '.join(missing)}")
        return columns


class DatasetSettings(Group):
    """What a release is made of."""

    target_pairs: int | None = Field(
        None,
        description="Pairs that the release shall hold. They are allocated over scene, subcategory, style "
        "and expectation before anything is asked (table `pair_allocation`). None plans "
        "`queries.subcategories_per_clip` queries a clip without an allocation. Paper.",
    )
    allocation: AllocationSettings = Field(
        AllocationSettings.model_validate({}), description="How the target is distributed. Ours."
    )
    shortage: Literal["report", "refuse"] = Field(
        "report",
        description="What becomes of a target that cannot be met. `report`: the largest plan that can be met "
        "is made, and the shortage is reported. `refuse`: nothing is planned. Ours.",
    )
    near_duplicate: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Two texts are near-duplicates from this Jaccard similarity of their three-word "
        "sequences on. Ours.",
    )
    across_videos: bool = Field(
        True,
        description="Whether a pair is kept out if its query and both responses are near-duplicates of those "
        "of a pair about another video. Ours.",
    )
    contaminated: Literal["stop", "keep_out"] = Field(
        "stop",
        description="What becomes of pairs that share a video or nearly the query with an item of a "
        "benchmark in the lake. `stop`: the release fails its check, which lists them. `keep_out`: the "
        "release leaves them out. Ours.",
    )
    max_words_accuracy: float | None = Field(
        0.95,
        ge=0.5,
        le=1,
        description="A release is refused if a classifier that sees only the words of the two responses "
        "tells the chosen one more often, by the lower bound of its 95% interval. null for no limit. Ours.",
    )
    max_length_accuracy: float | None = Field(
        0.7,
        ge=0.5,
        le=1,
        description="The same for a classifier that sees only the lengths of the two responses. Ours.",
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the source videos whose pairs are the validation split of a release. Policies "
        "train on the split `train` only. A hash of the video decides its split, which no later release "
        "changes. Ours.",
    )
    imports: dict[str, PairImport] = Field(
        default_factory=dict,
        description="Data sets of others, by a name of yours. Their rows become the table `imported_pairs` "
        "and enter the release. Ours.",
    )
    only_imports: bool = Field(
        False,
        description="Whether a release holds imported pairs alone, so that no teacher model is needed. Ours.",
    )

    @field_validator("target_pairs")
    @classmethod
    def _is_a_target(cls, target: int | None) -> int | None:
        if target is not None and target < 1:
            raise ValueError(f"{target} pairs cannot be allocated; give at least 1, or null for no target")
        return target
