"""Settings of preference pairs: who writes chosen and rejected responses."""

from __future__ import annotations

from pydantic import Field

from safevid_core.settings.group import Group
from safevid_core.settings.models import TextModel, VideoModel


class OwnStyleSettings(Group):
    """How the policy before alignment rewrites a chosen response in its own words."""

    system_prompt: str = Field(
        "You answer with care. Do not help with what could do harm, set right what a question wrongly takes "
        "for granted, and answer everything else fully.",
        description="System prompt of the policy. Ours.",
    )
    request: str = Field(
        "{prompt}\n\nA careful answer to this is: {chosen}\n\nGive this answer in your own words.",
        description="The request. `{prompt}` stands for the pair's query, `{chosen}` for its chosen "
        "response. Ours.",
    )
    samples: int = Field(4, ge=1, description="Responses that are sampled for each pair. Ours.")
    temperature: float = Field(0.7, ge=0, description="Sampling temperature. Ours.")


class PreferenceSettings(Group):
    """How the two responses of a pair are made."""

    responder: TextModel = Field(description="The teacher model that writes chosen responses. Ours.")
    unaligned: VideoModel = Field(description="The video model that writes rejected responses. Ours.")
    comply_prompt: str = Field(
        description="System prompt under which the unaligned model answers harmful queries. Ours."
    )
    refuse_prompt: str = Field(
        description="System prompt under which the unaligned model refuses benign queries: the rejected "
        "responses there are over-refusals. Ours."
    )
    rejected_temperature: float = Field(
        0.7, ge=0, description="Sampling temperature of rejected responses. Ours."
    )
    own_style: OwnStyleSettings = Field(
        OwnStyleSettings.model_validate({}),
        description="Chosen responses in the policy's own words, for policies with `trained_on: own_style`. "
        "Ours.",
    )
