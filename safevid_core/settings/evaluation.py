"""Settings of evaluation: the key `evaluation` holds those of benchmarks, judging and promotion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from safevid_core.settings.benchmarks import BenchmarkFiles, ChallengeSettings
from safevid_core.settings.group import Group
from safevid_core.settings.judging import JudgeModel
from safevid_core.settings.promotion import PromotionSettings


class EvaluationSettings(Group):
    """What the systems are asked, who judges their responses, and how rates are computed."""

    benchmarks: tuple[str, ...] = Field(
        ("safevidbench_base",), description="The benchmarks that every system is asked. Ours."
    )
    files: dict[str, BenchmarkFiles] = Field(
        default_factory=dict, description="The files of outside benchmarks, by benchmark. Ours."
    )
    judge: JudgeModel = Field(description="The model of the rubric judge. Ours.")
    judges: dict[str, JudgeModel] = Field(
        default_factory=dict,
        description="Further judges, by the name of their file in `safevid_core/judging/judges`. A benchmark "
        "whose headline needs one of them uses it. For all other benchmarks they are reported beside the "
        "panel. Ours.",
    )
    panel: tuple[str, ...] = Field(
        ("rubric",), description="Judges whose majority is the verdict. A tie is undecidable. Ours."
    )
    suite: Path | None = Field(
        None,
        description="YAML file of responses with the right verdicts, with which the judges are validated. "
        "None means the suite of the package. Ours.",
    )
    labels: Path | None = Field(
        None,
        description="CSV file of people's labels with which the judges are compared. None means no "
        "comparison. Ours.",
    )
    writer_families: tuple[str, ...] = Field(
        (),
        description="Model families that wrote queries or chosen responses, such as `gpt`. A judge of these "
        "families is refused. Ours.",
    )
    allow_self_judging: bool = Field(
        False, description="Whether a judge of one of the `writer_families` is allowed all the same. Ours."
    )
    max_items: int = Field(1380, ge=1, description="Items of SafeVidBench-Base. Paper.")
    challenge: ChallengeSettings = Field(
        ChallengeSettings.model_validate({}), description="SafeVidBench-Challenge. Ours."
    )
    releases: dict[Literal["safevidbench_base", "safevidbench_challenge"], str] = Field(
        default_factory=dict,
        description="The release of a benchmark that is used, by benchmark; `new` draws one from the corpus "
        "as it is now. A benchmark that is not named keeps the release in use, even if the corpus has "
        "changed. Ours.",
    )
    modality_items: int = Field(
        120,
        ge=0,
        description="Explicitly harmful items that are asked four times: with no video, a blank one, another "
        "one and the right one. Ours.",
    )
    controls: tuple[str, ...] = Field(
        ("always_refuse", "always_comply", "empty", "gibberish", "echo_query", "echo_description"),
        description="Systems without a model, which show what a rate is worth. Ours.",
    )
    bootstrap_draws: int = Field(2000, ge=100, description="Draws of a bootstrap interval. Ours.")
    show_rejected: bool = Field(
        False,
        description="Whether previews show rejected responses. Dagster's event log keeps previews. Ours.",
    )
    promotion: PromotionSettings = Field(
        PromotionSettings.model_validate({}),
        description="What a policy must reach before it replaces the one in use. Ours.",
    )
