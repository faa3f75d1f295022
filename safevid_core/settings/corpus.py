"""Settings of the corpus: sources of clips, filters, the frame embedder, the split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from safevid_core.settings.group import Group

Use = Literal["method", "describe"]


class Source(Group):
    """Where clips come from."""

    kind: Literal["pocket", "folder", "manifest"] = Field(
        description="`folder`: every video below a folder. `manifest`: a JSON-lines file, one clip a line. "
        "`pocket`: the rendered clips of the demo. Ours."
    )
    path: Path | None = Field(None, description="The folder or the manifest. `pocket` does not use it. Ours.")
    clips_per_scene: int = Field(
        18, ge=6, description="Clips that are rendered for each scene. Only `pocket` uses it. Ours."
    )
    twin_groups_per_scene: int = Field(
        8, ge=1, description="Pairs of twins among the rendered clips. Only `pocket` uses it. Ours."
    )
    licence: str = Field(
        "unknown", description="Licence that is recorded for clips whose manifest line names none. Ours."
    )
    use: Use | None = Field(
        None,
        description="`method`: the clips are used for training or for benchmarks. `describe`: the clips are "
        "described and reported on, and used for nothing else. None means `method` for rendered clips and "
        "the value of `corpus.own_clips` for all others. Ours.",
    )


class Embedder(Group):
    """The open_clip model that embeds frames and scene prompts."""

    model: str = Field(
        description="Name of an open_clip model, or a folder that holds a custom configuration. Ours."
    )
    pretrained: str | None = Field(
        None, description="Tag of the open_clip weights. None if `model` is a folder. Ours."
    )
    revision: str = Field("1", description="Version of the weights; a new one embeds all clips again. Ours.")
    frames: int = Field(4, ge=1, description="Uniform frames of a clip that are embedded. Ours.")
    batch_size: int = Field(64, ge=1, description="Frames in a forward pass. Ours.")
    device: str = Field("cpu", description="Torch device, such as `cpu` or `cuda`. Ours.")


class CorpusSettings(Group):
    """Which clips the corpus holds, and which of them are kept for benchmarks."""

    sources: tuple[Source, ...] = Field(description="Where clips come from. Ours.")
    embedder: Embedder = Field(description="The model that embeds frames and scene prompts. Ours.")
    own_clips: Use = Field(
        "method",
        description="Use of clips from folders and manifests whose source sets no `use`. The pocket models "
        "know rendered clips only, so the pocket profile says `describe`. Ours.",
    )
    min_seconds: float = Field(1.0, ge=0, description="Shorter clips are filtered, in seconds. Ours.")
    max_seconds: float = Field(120.0, gt=0, description="Longer clips are filtered, in seconds. Ours.")
    min_side: int = Field(32, ge=1, description="Clips with a smaller side are filtered, in pixels. Ours.")
    scene_margin: float = Field(
        0.0,
        ge=0,
        description="A clip is undecidable if its best scene leads the second best by a smaller cosine. 0 "
        "means that no clip is. Ours.",
    )
    low_margin: float = Field(
        0.02, ge=0, description="A clip whose scene leads by a smaller cosine is flagged and kept. Ours."
    )
    near_copy: float = Field(
        0.995, gt=0, le=1, description="Two clips are near-duplicates from this cosine on. Ours."
    )
    target_clips: int = Field(12_377, ge=1, description="Most clips in the corpus. Paper, section 3.1.")
    benchmark_fraction: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of source videos that is kept for benchmarks. A source video whose side was "
        "decided before keeps its side. Ours.",
    )
    withdrawn: tuple[str, ...] | Path = Field(
        (),
        description="Ids of clips, source videos or files that `safevid withdraw --listed` withdraws: a "
        "list, or a text file with one id a line, in which `#` begins a comment. Ours.",
    )
