"""Settings of judging: a model that judges responses."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from safevid_core.settings.models import TextModel


class JudgeModel(TextModel):
    """A model that judges responses."""

    frames: int = Field(
        0,
        ge=0,
        description="Frames of the clip that the judge sees, if it can take images. 0 means none. Ours.",
    )
    prompt: Path | None = Field(
        None,
        description="File with the published wording of the judge's question. None means our wording. Ours.",
    )
