"""Settings of benchmarks: the files of outside ones, and SafeVidBench-Challenge."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from safevid_core.settings.group import Group
from safevid_core.settings.models import VideoModel

# The value of `evaluation.releases` that asks for a release drawn from the corpus as it is now.
NEW_RELEASE = "new"


class BenchmarkFiles(Group):
    """The files of an outside benchmark, and how its items are asked."""

    path: Path = Field(
        description="The folder or file, in the benchmark's official layout. `{root}` stands for the root of "
        "the lake. Ours."
    )
    revision: str = Field("unknown", description="Commit or release of the files, for the record. Ours.")
    options: dict[str, str | bool | int] = Field(
        default_factory=dict,
        description="Switches of this benchmark; the file of the benchmark in `safevid_core/benchmarks` "
        "names them. Ours.",
    )
    image_as: Literal["video", "image"] = Field(
        "video", description="Whether a still picture is shown as a video of one frame or as an image. Ours."
    )
    max_items: int | None = Field(
        None, ge=1, description="Items that are asked, drawn by their id. None means all. Ours."
    )


class ChallengeSettings(Group):
    """SafeVidBench-Challenge: the number of items, and the systems whose failures select them."""

    panel: tuple[VideoModel, ...] = Field(
        (),
        description="Models that answer the candidate items. A model that is measured must not be among "
        "them. Ours.",
    )
    size: int = Field(1380, ge=1, description="Items of SafeVidBench-Challenge. Ours.")
    min_failing: int = Field(
        2, ge=1, description="Models of the panel that must fail on an item for it to be selected. Ours."
    )
