"""Settings of alignment: the policies with their control runs, DPO, packing, processes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from safevid_core.settings.descriptions import Loss
from safevid_core.settings.group import Group
from safevid_core.settings.models import VideoModel

Packing = Literal["none", "pair", "video"]


class Policy(Group):
    """A model to align, or a control run that leaves out one part of the method."""

    perturbation: Literal["none", "permuted_videos", "shuffled_labels", "text_only"] = Field(
        "none",
        description="What a control run changes in the pairs. `permuted_videos`: each pair gets the "
        "video of another. `shuffled_labels`: chosen and rejected are exchanged in half of the pairs. "
        "`text_only`: no video. Ours.",
    )
    objective: Literal["dpo", "sft", "none"] = Field(
        "dpo",
        description="`dpo`: preference training. `sft`: imitation of the chosen responses. `none`: no "
        "training. Ours.",
    )
    trained_on: Literal["release", "own_style", "without_descriptions"] | Loss = Field(
        "release",
        description="`release`: the pairs of the release. `own_style`: the same with chosen responses in the "
        "policy's own words. The others are ablations: pairs made without descriptions, or from "
        "descriptions that were changed as the name says. Ours.",
    )
    system_prompt: str | None = Field(
        None,
        description="System prompt under which a policy with `objective: none` is measured. Ours.",
    )
    seeds: tuple[int, ...] = Field((0,), description="Seeds; each trains a checkpoint of its own. Ours.")

    @property
    def is_control(self) -> bool:
        return (self.perturbation, self.objective, self.trained_on) != ("none", "dpo", "release")

    @property
    def shows_video(self) -> bool:
        return self.perturbation != "text_only"

    @property
    def is_trained(self) -> bool:
        return self.objective != "none"

    @model_validator(mode="after")
    def _prompt_or_training(self) -> Policy:
        if self.is_trained == (self.system_prompt is not None):
            raise ValueError("objective none and system_prompt go together: give both or neither")
        if not self.is_trained and (self.perturbation, self.trained_on) != ("none", "release"):
            raise ValueError("objective none trains on nothing: leave out perturbation and trained_on")
        return self


class AlignmentSettings(Group):
    """How policies are trained."""

    base: VideoModel = Field(description="The model before alignment. Paper.")
    policies: dict[str, Policy] = Field(description="What is trained and measured, by name. Ours.")
    data_scales: tuple[float, ...] = Field(
        (0.01, 0.1, 0.2, 0.5, 1.0),
        description="Shares of the pairs on which a policy can be trained. Ours.",
    )
    beta: float = Field(0.1, gt=0, description="Beta of DPO. Paper, section 4.1.")
    epochs: int = Field(1, ge=1, description="Passes over the pairs. Paper, section 4.1.")
    learning_rate: float = Field(5e-7, gt=0, description="Peak learning rate. Ours.")
    warmup_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises. Ours."
    )
    batch_size: int = Field(16, ge=1, description="Pairs in an optimizer step. Ours.")
    micro_batch_size: int = Field(16, ge=1, description="Pairs in a forward pass without packing. Ours.")
    finetuning: Literal["lora", "qlora", "full"] = Field(
        "lora",
        description="`lora`: an adapter of the language model. `qlora`: an adapter over weights in four "
        "bits, which needs bitsandbytes. `full`: all weights of the language model, kept in float32 while "
        "they train. Ours.",
    )
    train_projector: bool = Field(
        False,
        description="Whether the projector from the vision tower's features to tokens trains too. The stored "
        "features are then those before the projector. Ours.",
    )
    lora_rank: int = Field(64, ge=1, description="Rank of the adapter. Ours.")
    lora_alpha: int = Field(128, ge=1, description="Alpha of the adapter. Ours.")
    max_length: int = Field(
        4096, ge=1, description="Pairs with more tokens are left out before training. Ours."
    )
    max_response_tokens: int | None = Field(
        None,
        ge=1,
        description="Longer responses are cut, before `max_length` is applied. Prompts are never cut. None "
        "means no limit. Ours.",
    )
    packing: Packing = Field(
        "none",
        description="What a forward pass computes only once. `none`: nothing. `pair`: the prompt of a pair. "
        "`video`: a video, for all its pairs. The gradient is the same. Ours.",
    )
    pairs_a_tree: int = Field(
        8,
        ge=1,
        description="Most pairs of one video that follow each other, with packing `video`. Ours.",
    )
    pass_tokens: int = Field(16384, ge=1, description="Most tokens of a forward pass, with packing. Ours.")
    store_features: bool = Field(
        True,
        description="Whether the features of the frozen vision tower are kept on disk in float16 for all "
        "runs. If not, they are kept in memory. Ours.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Whether activations are computed again in the backward pass. Ours."
    )
    save_steps: int = Field(50, ge=1, description="Steps between two checkpoints of a run. Ours.")
    save_minutes: float | None = Field(
        10.0,
        gt=0,
        description="Most minutes between two checkpoints of a run. None means that only `save_steps` "
        "counts. Ours.",
    )
    report_to: tuple[str, ...] = Field(
        (),
        description="Trackers of transformers that also get the metrics of each step, such as `tensorboard` "
        "(into TENSORBOARD_LOGGING_DIR), `trackio` or `wandb`. Install each yourself. Ours.",
    )
    merge: bool = Field(
        False, description="Whether a checkpoint with the adapter merged into it is kept too. Ours."
    )
    processes: int = Field(
        1, ge=1, description="Processes of one training; `accelerate launch` starts them. Ours."
    )
    accelerate_config: Path | None = Field(
        None,
        description="File of `accelerate config`, for FSDP or several machines. None means plain DDP. Ours.",
    )
    workers: int = Field(1, ge=1, description="Trainings that run at the same time. Ours.")
    threads: int | None = Field(
        None, description="Torch threads of a training process. None means torch's default. Ours."
    )
    keep_memory: bool = Field(
        True,
        description="Whether a training on a CPU keeps freed memory for its next tensors. It is faster and "
        "holds more memory. The result is the same. Ours.",
    )

    @model_validator(mode="after")
    def _base_is_whole(self) -> AlignmentSettings:
        if self.base.quantisation != "none":
            raise ValueError(
                "base.quantisation: a quantised model is not trained; say none, and finetuning: qlora"
            )
        return self

    @property
    def trained(self) -> tuple[str, ...]:
        """The policies that have checkpoints."""
        return tuple(name for name, policy in self.policies.items() if policy.is_trained)

    @property
    def pair_sets(self) -> frozenset[str]:
        """The sets of pairs that some policy is trained on: `release`, `own_style`, a loss."""
        return frozenset(policy.trained_on for policy in self.policies.values() if policy.is_trained)
