"""Settings of descriptions: the describers, the reconciler, the audit by people."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from safevid_core.settings.group import Group
from safevid_core.settings.models import TextModel, VideoModel

Loss = Literal["without_times", "first_sentence", "one_describer", "with_signal", "without_signal"]
# The details that an ablation removes from descriptions; each is a partition of `lossy_descriptions`.
LOSSES: tuple[Loss, ...] = get_args(Loss)


class DescriptionAuditSettings(Group):
    """How people check a sample of descriptions before queries are made from all of them."""

    required: bool = Field(
        True,
        description="Whether queries beyond pilot size (`models.pilot_fraction`) need a signed audit that "
        "passes. If they do not, the data set card says so. Ours.",
    )
    sample: int = Field(200, ge=1, description="Clips whose descriptions people check. Ours.")
    max_hallucination: float = Field(
        0.1,
        ge=0,
        le=1,
        description="The audit passes if the upper 95% bound of the hallucination rate of the reconciled "
        "descriptions is at most this. Ours.",
    )
    folder: Path | None = Field(
        None,
        description="Folder of the sheets and of `sign_off.yaml`. None means `reviews/descriptions` below "
        "the root. Ours.",
    )


class DescriptionSettings(Group):
    """Who describes a clip, and who makes one description of several."""

    describers: dict[str, VideoModel] = Field(
        description="The video models that describe each clip, by name. Paper."
    )
    prompt: str = Field(description="The prompt of every describer. Ours.")
    reconciler: TextModel = Field(
        description="The text model that makes one description of the describers' texts. Ours."
    )
    signal_witness: bool = Field(
        False,
        description="Whether signals measured on the video (cuts, flashes, motion, light) confirm or refute "
        "claims, beside the describers. An extension. Ours.",
    )
    audit: DescriptionAuditSettings = Field(
        DescriptionAuditSettings.model_validate({}), description="The audit of descriptions by people. Ours."
    )

    @property
    def candidate_tables(self) -> tuple[str, ...]:
        """The tables of the describers' candidate descriptions: `qwen2_5_vl_descriptions` and so on."""
        return tuple(f"{name}_descriptions" for name in self.describers)
