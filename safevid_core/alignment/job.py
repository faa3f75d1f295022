"""What a training process is asked to do and what it leaves behind, as JSON files in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safevid_core.lake import write_atomically
from safevid_core.records import Outcome
from safevid_core.settings import AlignmentSettings, Policy

_ORDINARY = Policy.model_validate({})
_SHARED = ("features", "reference", "reference_pairs")


@dataclass(frozen=True)
class Job:
    """One seed of one policy at one data scale.

    Attributes:
        folder: The run's own working folder: checkpoints, progress, and at last the adapter.
        pairs: Parquet file of the pairs, already sampled and perturbed.
        seed: Sets LoRA's start and the order of the pairs.
        settings: The alignment settings.
        policy: What is trained, and how.
        features: Folder of the clips' vision features, shared by runs over one base; None keeps them in
            memory.
        reference: File of the pairs' reference, shared likewise; None computes it for this run alone.
        reference_pairs: Parquet file of all pairs whose reference goes into the file; None is `pairs`.
        name: What people call the run. Defaults to its folder's name.
    """

    folder: Path
    pairs: Path
    seed: int
    settings: AlignmentSettings
    policy: Policy = _ORDINARY
    features: Path | None = None
    reference: Path | None = None
    reference_pairs: Path | None = None
    name: str = ""

    @property
    def file(self) -> Path:
        return self.folder / "job.json"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def write(self) -> None:
        content = {
            "folder": str(self.folder),
            "pairs": str(self.pairs),
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "policy": self.policy.model_dump(mode="json"),
            "name": self.name or self.folder.name,
            **{name: str(path) for name in _SHARED if (path := getattr(self, name)) is not None},
        }
        write_atomically(self.file, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, file: Path) -> Job:
        content = json.loads(file.read_text())
        settings = AlignmentSettings.model_validate(content["settings"])
        policy = Policy.model_validate(content["policy"])
        shared = {name: Path(content[name]) for name in _SHARED if name in content}
        return cls(
            Path(content["folder"]), Path(content["pairs"]), content["seed"], settings, policy,
            name=content["name"], **shared,
        )  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """A finished run: how it went, which pairs were refused (pair id -> outcome, reason), and warnings.

    `first_loss` is the first step's; loss, margin and accuracy are means over the last tenth of the steps.

    Attributes:
        curves: What a plot shows, name -> values in the order of the steps, of a long run means over runs
            of steps; unlike the log of the adapter it has rates and memory.
        cut_answers: How many answers were longer than `max_answer_tokens`.
    """

    pairs: int
    steps: int
    first_loss: float
    last_loss: float
    reward_margin: float
    reward_accuracy: float
    train_s: float
    refused: dict[str, tuple[Outcome, str]]
    warnings: list[str]
    curves: dict[str, list[float]]
    cut_answers: int = 0

    def write(self, folder: Path) -> None:
        write_atomically(folder / "result.json", json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> RunResult | None:
        """The folder's result; None while its run is not finished."""
        try:
            content: dict[str, Any] = json.loads((folder / "result.json").read_text())
        except FileNotFoundError:
            return None
        content["refused"] = {pair_id: tuple(why) for pair_id, why in content["refused"].items()}
        return cls(**content)
