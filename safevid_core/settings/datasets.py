"""Settings of the release of pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safevid_core.settings.group import Group


class DatasetSettings(Group):
    """Which pairs enter a release."""

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
