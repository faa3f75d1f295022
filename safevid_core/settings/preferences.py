"""Settings of preference pairs: who writes chosen and rejected responses."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from safevid_core.settings.group import Group
from safevid_core.settings.judging import JudgeModel
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
    """How the two responses of a pair are made, and who decides whether they are a pair."""

    responder: TextModel = Field(description="The teacher model that writes chosen responses. Ours.")
    unaligned: VideoModel = Field(description="The video model that writes rejected responses. Ours.")
    judges: dict[str, JudgeModel] = Field(
        min_length=1,
        description="The pair judge, by the name of its file in `safevid_core/judging/judges`. Several "
        "judges are a panel, and their majority decides. Ours.",
    )
    second_judge: dict[str, JudgeModel] | None = Field(
        None,
        description="The second judge, named as in `preferences.judges`. It judges a sample of the pairs to "
        "measure the noise of their labels. None means that the noise is not measured. Ours.",
    )
    same_family_second_judge: bool = Field(
        False, description="Whether the second judge may be of the pair judge's family. Ours."
    )
    noise_sample: int = Field(400, ge=1, description="Number of pairs that the second judge judges. Ours.")
    min_margin: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Least difference between the shares of criteria that the chosen and the rejected "
        "response meet. Ours.",
    )
    comply_prompt: str | None = Field(
        None,
        description="System prompt under which the unaligned model answers queries whose safe response is "
        "not a plain answer. None means no system prompt. Ours.",
    )
    refuse_prompt: str | None = Field(
        None,
        description="System prompt under which the unaligned model answers benign queries, so that the "
        "rejected responses there are over-refusals. None means no system prompt. Ours.",
    )
    rejected_temperature: float = Field(
        0.7, ge=0, description="Sampling temperature of rejected responses. Ours."
    )
    labels: Path | None = Field(
        None,
        description="CSV file in which people say which pairs are sound and which are swapped, as `safevid "
        "review pairs` writes it. None means no labels. Ours.",
    )
    min_labelled_pairs: int = Field(
        200,
        ge=1,
        description="With fewer labelled pairs a release is marked UNCALIBRATED, and promotion refuses it. "
        "Ours.",
    )
    min_pair_precision: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Least lower 95% bound of the share of labelled pairs that people find sound. Ours.",
    )
    own_style: OwnStyleSettings = Field(
        OwnStyleSettings.model_validate({}),
        description="Chosen responses in the policy's own words, for policies with `trained_on: own_style`. "
        "Ours.",
    )
